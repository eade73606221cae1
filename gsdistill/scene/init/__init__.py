"""Initialisers: one file each, picked by its name. A file holds one frozen dataclass, an :class:`Initialiser`."""

INTERFACE = "Initialiser"
NOT_LISTED = ("uniform",)
