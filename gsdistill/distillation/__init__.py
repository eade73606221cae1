"""Score-distillation methods, one per file; the file name is the method's name."""

INTERFACE = "Distillation"
NOT_LISTED = ("worldmap",)
