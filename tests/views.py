"""Latents as views of renders, for tests of methods."""

from __future__ import annotations

import torch

from gsdistill.core.structs import Cameras, Views


def views_of(latents: torch.Tensor, cameras: Cameras, alpha: float | torch.Tensor = 1.0) -> Views:
    """Views whose opacity is ``alpha``, everywhere or by place."""
    return Views(latents, torch.as_tensor(alpha).to(latents).expand_as(latents[:, :1]), cameras)
