"""Writers of splats, one file per format (the file name is the format's name), and pictures and films of a scene."""

INTERFACE = "Writer"
GROUP = "gsdistill.writers"
NOT_LISTED = ("command", "formats", "pictures", "settings")
