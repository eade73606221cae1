"""All figures of a splat whose truth is not known: those of the splat alone, and those that a prior gives.

``MEANINGS`` has one or two sentences for each figure: what it measures and which way is better.
"""

from __future__ import annotations

from gsdistill.core.structs import Gaussians
from gsdistill.evaluation import fronts, plain
from gsdistill.prior.base import Prior
from gsdistill.prior.prompts import PromptSettings

__all__ = ["MEANINGS", "figures_without_truth"]

MEANINGS = {**plain.MEANINGS, **fronts.MEANINGS}


def figures_without_truth(
    gaussians: Gaussians, prompt: str, prior: Prior | None = None, settings: PromptSettings = PromptSettings()
) -> dict[str, float | int | str]:
    """The figures of :mod:`gsdistill.evaluation.plain`, and with a prior those of :mod:`gsdistill.evaluation.fronts`.

    With a prior the splat must be on the prior's device; ``settings`` are the run's ``prompts``.

    Raises:
        PromptError: the prior cannot serve the prompt.
    """
    by_prior = {} if prior is None else fronts.prior_figures(gaussians, prompt, prior, settings)
    return {**plain.plain_figures(gaussians), **by_prior}
