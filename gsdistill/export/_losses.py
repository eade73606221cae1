"""Sentences for the user about what a packed format does not store exactly."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Gaussians
from gsdistill.scene.limits import NARROWEST, WIDEST

__all__ = ["cut_off", "displaced"]

SHARE = 0.5  # a displacement by this share of a Gaussian's largest deviation is visible, ...
LEAST = 2e-3  # ... unless it is less than this share of the median distance from the middle


def displaced(gaussians: Gaussians, stored: Float[Tensor, "N 3"]) -> list[str]:
    """A sentence about the Gaussians whose ``stored`` means are off by more than half their deviation, if there are."""
    means = gaussians.means.double()
    aside = (means - stored.double()).norm(dim=1)
    size = gaussians.scales.double().clamp(NARROWEST, WIDEST).exp().amax(dim=1)
    away = (means - means.median(dim=0).values).norm(dim=1).median()
    off = (aside > SHARE * size) & (aside > LEAST * away)
    if not off.any():
        return []
    some, most = f"{int(off.sum()):,} of {len(gaussians):,} Gaussians", f"{float(aside[off].max()):.2g}"
    return [f"positions of {some} are rounded by up to {most}, more than half their deviation; .ply and .glb keep all"]


def cut_off(what: str, values: Float[Tensor, "N ..."], low: float, high: float) -> list[str]:
    """A sentence about the Gaussians with ``values``, named ``what``, outside of ``low`` .. ``high``, if there are."""
    beyond = int(((values < low) | (values > high)).flatten(1).any(dim=1).sum())
    if not beyond:
        return []
    return [f"{what} of {beyond:,} of {len(values):,} Gaussians are cut off to {low:.4g} .. {high:.4g}"]
