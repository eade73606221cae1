"""Densifiers: one file each, picked by its name.

A file holds one frozen dataclass, a :class:`gsdistill.scene.densify.base.Densification`.
"""

INTERFACE = "Densification"
GROUP = "gsdistill.densifiers"
