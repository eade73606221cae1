"""Latents as views of opaque renders, for tests of methods."""

from __future__ import annotations

import torch

from gsdistill.structs import Cameras, Views


def views_of(latents: torch.Tensor, cameras: Cameras, alpha: float = 1.0) -> Views:
    """Views whose opacity is everywhere ``alpha``."""
    return Views(latents, torch.full_like(latents[:, :1], alpha), cameras)
