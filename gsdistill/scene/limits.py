"""How small, wide, opaque and transparent a Gaussian is taken to be at most: what float32 can hold and tell apart."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["NARROWEST", "OPAQUE", "WIDEST", "logits"]

NARROWEST, WIDEST = -20.0, 20.0  # logarithms of standard deviations whose exponential and its logarithm are finite
OPAQUE = 20.0  # a logit beyond any byte of opacity, and far from what its exponential can hold


def logits(alphas: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Return the logits of opacities 0..1 in float64; of what is quite transparent or opaque -20 and 20, beyond NaN."""
    exact = np.asarray(alphas, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(exact) - np.log1p(-exact)
    return np.where(np.isinf(logits), np.copysign(OPAQUE, logits), logits)
