"""Backgrounds of training views: one file each; the file name is the background's name."""

INTERFACE = "Background"
GROUP = "gsdistill.backgrounds"
