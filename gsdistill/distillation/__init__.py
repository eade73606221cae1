"""Score-distillation methods, one per file; the file name is the method's name."""

INTERFACE = "Distillation"
GROUP = "gsdistill.methods"
NOT_LISTED = ("adamw", "surface_noise", "worldmap")
