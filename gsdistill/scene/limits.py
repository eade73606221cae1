"""The limits of a Gaussian's size and opacity: what float32 can hold and tell apart."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["NARROWEST", "OPAQUE", "WIDEST", "logits"]

NARROWEST, WIDEST = -20.0, 20.0  # logarithms of standard deviations whose exponential and its logarithm are finite
OPAQUE = 20.0  # a logit beyond any byte of opacity, and far from what its exponential can hold


def logits(alphas: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Return the logits of opacities, float64: -20 for 0, 20 for 1, and NaN outside of 0..1."""
    exact = np.asarray(alphas, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(exact) - np.log1p(-exact)
    return np.where(np.isinf(logits), np.copysign(OPAQUE, logits), logits)
