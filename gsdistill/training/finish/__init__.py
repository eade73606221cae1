"""Finishes: a last stage of a run after its method, one file each; the file name is the finish's name."""

INTERFACE = "Finish"
