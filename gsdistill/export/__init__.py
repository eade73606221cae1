"""Writers: one file per format, picked by its name, and the pictures and videos of a finished scene."""

INTERFACE = "Writer"
GROUP = "gsdistill.writers"
NOT_LISTED = ("command", "formats", "pictures", "settings")
