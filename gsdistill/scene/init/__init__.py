"""Initialisers: one file each, picked by its name.

A file holds one frozen dataclass, an :class:`gsdistill.scene.init.base.Initialiser`.
"""

INTERFACE = "Initialiser"
GROUP = "gsdistill.initialisers"
NOT_LISTED = ("uniform",)
