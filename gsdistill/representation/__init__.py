"""What a run optimises: one file each; whatever cameras can look at and a gradient can change."""

INTERFACE = "Representation"
NOT_LISTED = ("adam", "regularizers")
