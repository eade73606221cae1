"""gsdistill: text to 3D Gaussian splats by score distillation."""

__version__ = "0.1.0"
