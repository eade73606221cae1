"""The contract of an initialiser: from a prompt and a random generator to the Gaussians that a run starts from."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.structs import SH_C0, Gaussians

__all__ = ["Initialiser", "round_gaussians"]


class Initialiser(ABC):
    """Settings of one way to start; subclasses are final frozen dataclasses."""

    @abstractmethod
    def create(self, prompt: str, generator: torch.Generator) -> Gaussians:
        """Return float32 Gaussians on the CPU, inside the unit ball; the same generator state gives the same values."""


def round_gaussians(
    means: Float[Tensor, "N 3"],
    deviations: Float[Tensor, "N"],
    opacity: float,
    colors: Float[Tensor, "N 3"],
    sh_degree: int,
) -> Gaussians:
    """Return isotropic, unrotated Gaussians of one opacity (a probability) whose colours do not depend on the view."""
    count = len(means)
    sh = torch.zeros(count, (sh_degree + 1) ** 2, 3)
    sh[:, 0] = (colors - 0.5) / SH_C0
    return Gaussians(
        means=means.float(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=deviations.float().log()[:, None].repeat(1, 3),
        opacities=torch.full((count,), opacity).logit(),
        sh=sh,
    )
