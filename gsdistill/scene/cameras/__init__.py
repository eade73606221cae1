"""Laws by which the cameras of training are drawn: one file each, picked by its name.

A file holds one frozen dataclass, a :class:`gsdistill.scene.cameras.base.CameraLaw`. Cameras at places that are given,
not drawn, are made by :mod:`gsdistill.scene.viewpoints`.
"""

INTERFACE = "CameraLaw"
GROUP = "gsdistill.cameras"
