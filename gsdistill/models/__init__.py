"""The files of models: where they are, which of them a prior needs, and how they are read without running them."""

GROUP = "gsdistill.priors"  # of entry points: classes of installed packages that are priors
