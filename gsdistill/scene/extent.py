"""Where a scene lies, and how much every Gaussian of it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Gaussians

__all__ = ["UnitBall", "shown_area", "weighted_quantile"]


@dataclass(frozen=True)
class UnitBall:
    """A ball of a scene that is drawn or measured as the unit ball: x becomes (x - centre) / radius."""

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)  # world units, as the radius
    radius: float = 1.0

    def inside(self, gaussians: Gaussians) -> Gaussians:
        """The splat moved and scaled so that this ball is the unit ball; computed in float64."""
        exact = gaussians.means.double()
        return replace(
            gaussians,
            means=((exact - exact.new_tensor(self.centre)) / self.radius).to(gaussians.means),
            scales=(gaussians.scales.double() - math.log(self.radius)).to(gaussians.scales),
            options=gaussians.options.elsewhere(),
        )

    def to_world(self, points: Float[Tensor, "M 3"]) -> Float[Tensor, "M 3"]:
        """Points given in the unit ball, in world units, float64."""
        exact = points.double()
        return exact * self.radius + exact.new_tensor(self.centre)


def shown_area(opacities: Float[Tensor, "N"], scales: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """How much every Gaussian shows: opacity times (s1 s2 s3)^(2/3), as the area of an equally large ball grows.

    ``opacities`` are logits and ``scales`` logarithms, as in a scene.
    """
    return opacities.sigmoid() * torch.exp(2.0 * scales.mean(dim=-1))


def weighted_quantile(values: Float[Tensor, "N"], weights: Float[Tensor, "N"], share: float) -> Float[Tensor, ""]:
    """The least value at or below which ``share`` (0..1) of the weights lies; does not wait for an accelerator."""
    ordered, order = values.sort()
    summed = weights[order].cumsum(0)
    return ordered[torch.searchsorted(summed, share * summed[-1]).clamp_max(len(values) - 1)]
