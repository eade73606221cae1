"""What ball, box and sphere share: grey, translucent Gaussians of one size, uniform in a body.

Each of N Gaussians has an equal share of the body's volume (or area). A ball (or disc) of that size has the radius r_N,
and the standard deviation is ``scale`` times r_N, so that neighbours overlap equally for every N. With ``spacing: rms``
it is ``scale`` times the root of the mean square of the distances to the three nearest others instead, as the programs
that follow 3D Gaussian Splatting begin (DreamGaussian, threestudio-3dgs); on average that is 1.2 r_N inside a ball.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Gaussians
from gsdistill.scene.init.base import NEIGHBOURS, Spacing, distances, round_gaussians

__all__ = ["UniformSettings", "directions"]


@dataclass(frozen=True, kw_only=True)
class UniformSettings:
    """Settings of grey Gaussians of one size."""

    count: int = bounded(600, low=1, high=10_000_000)  # number of Gaussians
    opacity: float = bounded(0.2, above=0, below=1)  # of each Gaussian, a probability
    scale: float = bounded(0.77, above=0)  # standard deviation over the radius of a Gaussian's share of the body
    # what the standard deviation is relative to; own: that radius; rms: the distances to the three nearest, the root of
    # their mean square
    spacing: Spacing = "own"
    color: float = bounded(0.5, low=0, high=1)  # grey value of all Gaussians
    sh_degree: int = bounded(0, low=0, high=3)  # degree of the view-dependent colour, which starts at zero

    def __post_init__(self) -> None:
        if self.spacing == "rms" and self.count <= NEIGHBOURS:
            raise ConfigError(f"init.count = {self.count} is too few for init.spacing = rms, which needs at least 4")

    def grey(self, means: Float[Tensor, "N 3"], deviation: float) -> Gaussians:
        """Return grey Gaussians at ``means``, all of one standard deviation (world units) unless ``spacing`` is rms."""
        deviations, colors = torch.full((len(means),), deviation), torch.full((len(means), 3), self.color)
        if self.spacing == "rms":
            deviations = self.scale * distances(means, self.spacing)
        return round_gaussians(means, deviations, self.opacity, colors, self.sh_degree)


def directions(count: int, generator: torch.Generator) -> Float[Tensor, "{count} 3"]:
    """Draw ``count`` uniform unit vectors."""
    return normalize(torch.randn(count, 3, generator=generator), dim=-1)
