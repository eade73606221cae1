"""Karras sampling of a noise-predicting network (https://arxiv.org/abs/2206.00364, algorithm 2), as Point-E uses it.

Letters: x = x0 + sigma n is the noisy cloud, n standard normal. The network was trained on sqrt(a) x0 + sqrt(1 - a) n
for the T cumulative alphas a of its schedule: the same cloud divided by sqrt(sigma^2 + 1), with a = 1 / (sigma^2 + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.core.ranges import bounded

__all__ = ["Denoiser", "Sampling", "cumulative_alphas", "denoiser", "guided", "karras_sigmas", "sample", "timestep"]

Denoiser = Callable[[Float[Tensor, "B C N"], float], Float[Tensor, "B C N"]]  # x and sigma -> the expected x0
Noise = Callable[[Float[Tensor, "B C N"], Float[Tensor, "B"]], Float[Tensor, "B O N"]]
Schedule = Literal["cosine", "linear"]

_RHO = 7.0


@dataclass(frozen=True)
class Sampling:
    """How one of the models is sampled."""

    steps: int = bounded(64, low=1, high=1000)  # noise levels; all but the last take two network evaluations
    sigma_min: float = bounded(1e-3, above=0)
    sigma_max: float = bounded(120.0, above=0)
    s_churn: float = bounded(3.0, low=0)  # noise added over all steps; 0: a deterministic path
    guidance_scale: float = bounded(3.0, low=0)  # 0 and 1: no guidance


def cumulative_alphas(schedule: Schedule, steps: int = 1024) -> NDArray[np.float64]:
    """The T = ``steps`` cumulative products of 1 - beta, from near 1 down to near 0.

    ``cosine``: in proportion to cos^2((t + 0.008) / 1.008 * pi / 2), t in 0..1, betas at most 0.999
    (https://arxiv.org/abs/2102.09672, equation 17). ``linear``: betas from 1e-4 to 0.02, times 1000 / T
    (https://arxiv.org/abs/2006.11239).
    """
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, steps) * (1000.0 / steps)
    else:
        level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2.0) ** 2
        betas = np.minimum(1.0 - level[1:] / level[:-1], 0.999)
    return np.cumprod(1.0 - betas, dtype=np.float64)


def timestep(sigma: float, alphas: NDArray[np.float64]) -> float:
    """The fractional timestep whose cumulative alpha is 1 / (sigma^2 + 1), by linear interpolation.

    Below the first noise level it is 0, above the last one T - 1.
    """
    return float(np.interp(1.0 / (sigma**2 + 1.0), alphas[::-1], np.arange(len(alphas), dtype=np.float64)[::-1]))


def karras_sigmas(sampling: Sampling) -> NDArray[np.float64]:
    """``steps`` noise levels from sigma_max down to sigma_min, in equal steps of sigma^(1/7), then 0."""
    ramp = np.linspace(0.0, 1.0, sampling.steps)
    high, low = sampling.sigma_max ** (1.0 / _RHO), sampling.sigma_min ** (1.0 / _RHO)
    return np.append((high + ramp * (low - high)) ** _RHO, 0.0)


def denoiser(noise: Noise, alphas: NDArray[np.float64]) -> Denoiser:
    """Return a denoiser from a network ``noise(x / sqrt(sigma^2 + 1), timesteps)``; its x0 is clipped to -1..1.

    Output channels beyond those of x are dropped.
    """

    def denoise(x: Float[Tensor, "B C N"], sigma: float) -> Float[Tensor, "B C N"]:
        t = x.new_full((len(x),), timestep(sigma, alphas))
        predicted = noise(x / math.sqrt(sigma**2 + 1.0), t)[:, : x.shape[1]]
        return (x - sigma * predicted).clamp(-1.0, 1.0)

    return denoise


def guided(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Return the denoiser x0_u + scale (x0_c - x0_u); scales 0 and 1 mean no guidance, x0_c alone.

    This is Point-E's convention: its upsampler was published with the scale 0.
    """
    if scale in (0.0, 1.0):
        return conditional

    def denoise(x: Float[Tensor, "B C N"], sigma: float) -> Float[Tensor, "B C N"]:
        without = unconditional(x, sigma)
        return without + scale * (conditional(x, sigma) - without)

    return denoise


def sample(
    denoise: Denoiser, shape: tuple[int, int, int], sampling: Sampling, generator: torch.Generator, device: torch.device
) -> Float[Tensor, "B C N"]:
    """Draw x0 of ``shape`` on ``device`` by Heun's method down the noise levels; the last step is Euler's.

    With ``s_churn`` each step first raises the noise to (1 + gamma) sigma, gamma = min(s_churn / steps, sqrt(2) - 1).
    Noise is drawn on the generator's device.
    """

    def normal() -> Float[Tensor, "B C N"]:
        return torch.randn(shape, generator=generator, device=generator.device).to(device)

    sigmas = karras_sigmas(sampling)
    gamma = min(sampling.s_churn / sampling.steps, math.sqrt(2.0) - 1.0)
    x = float(sigmas[0]) * normal()
    for sigma, below in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        if gamma > 0.0:
            higher = sigma * (1.0 + gamma)
            x = x + math.sqrt(higher**2 - sigma**2) * normal()
            sigma = higher
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (below - sigma) * slope
        if below > 0.0:
            slope = 0.5 * (slope + (ahead - denoise(ahead, below)) / below)
            ahead = x + (below - sigma) * slope
        x = ahead
    return x
