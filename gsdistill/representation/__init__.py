"""What a run optimises: one file each; whatever cameras can look at and a gradient can change."""

INTERFACE = "Representation"
GROUP = "gsdistill.representations"
MADE_WITH = ("initial", "settings", "iterations", "device")  # an object, not the settings of one
NOT_LISTED = ("adam", "regularizers")
