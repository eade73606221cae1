"""What a run can optimise, one file each: anything that cameras can see and a gradient can change."""

INTERFACE = "Representation"
GROUP = "gsdistill.representations"
MADE_WITH = ("initial", "settings", "iterations", "device")  # arguments of the class, which is no settings class
NOT_LISTED = ("optimizer", "particles", "regularizers")
