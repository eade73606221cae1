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

Denoiser = Callable[[Float[Tensor, "B C N"], float], Float[Tensor, "B C N"]]  # x at sigma -> the x0 expected there
Noise = Callable[[Float[Tensor, "B C N"], Float[Tensor, "B"]], Float[Tensor, "B O N"]]
Schedule = Literal["cosine", "linear"]

_RHO = 7.0


@dataclass(frozen=True)
class Sampling:
    """How one of the models is sampled."""

    steps: int = bounded(64, low=1, high=1000)  # noise levels; all but the last take two network evaluations
    sigma_min: float = bounded(1e-3, above=0)
    sigma_max: float = bounded(120.0, above=0)
    s_churn: float = bounded(3.0, low=0)  # noise put back over the whole run: 0 is an ordinary differential equation
    guidance_scale: float = bounded(3.0, low=0)  # 0 and 1: none


def cumulative_alphas(schedule: Schedule, steps: int = 1024) -> NDArray[np.float64]:
    """The T = ``steps`` cumulative products of 1 - beta, falling.

    ``cosine``: of cos^2((t + 0.008) / 1.008 * pi / 2), betas at most 0.999 (https://arxiv.org/abs/2102.09672, equation
    17). ``linear``: betas from 1e-4 to 0.02, times 1000 / T (https://arxiv.org/abs/2006.11239).
    """
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, steps) * (1000.0 / steps)
    else:
        level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2.0) ** 2
        betas = np.minimum(1.0 - level[1:] / level[:-1], 0.999)
    return np.cumprod(1.0 - betas, dtype=np.float64)


def timestep(sigma: float, alphas: NDArray[np.float64]) -> float:
    """The fractional timestep whose cumulative alpha is 1 / (sigma^2 + 1): linear between its two neighbours.

    Below the first noise level it is 0, above the last one T - 1.
    """
    falling = np.arange(len(alphas), dtype=np.float64)
    return float(np.interp(1.0 / (sigma**2 + 1.0), alphas[::-1], falling[::-1]))


def karras_sigmas(sampling: Sampling) -> NDArray[np.float64]:
    """The noise levels from sigma_max down to sigma_min, even in sigma^(1/7), and 0 as the last."""
    ramp = np.linspace(0.0, 1.0, sampling.steps)
    high, low = sampling.sigma_max ** (1.0 / _RHO), sampling.sigma_min ** (1.0 / _RHO)
    return np.append((high + ramp * (low - high)) ** _RHO, 0.0)


def denoiser(noise: Noise, alphas: NDArray[np.float64]) -> Denoiser:
    """Turn a network ``noise(x / sqrt(sigma^2 + 1), timesteps)`` into a denoiser, whose x0 is clipped to -1..1.

    Output channels beyond those of x are dropped.
    """

    def denoise(x: Float[Tensor, "B C N"], sigma: float) -> Float[Tensor, "B C N"]:
        t = x.new_full((len(x),), timestep(sigma, alphas))
        predicted = noise(x / math.sqrt(sigma**2 + 1.0), t)[:, : x.shape[1]]
        return (x - sigma * predicted).clamp(-1.0, 1.0)

    return denoise


def guided(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Mix what two denoisers expect: x0_u + scale (x0_c - x0_u). Scales 0 and 1 mean no guidance: x0_c alone.

    Point-E's convention; 0 for "none" is its upsampler's published setting.
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
    """Draw x0 of ``shape``: Heun's method down the noise levels, the last step Euler's.

    With ``s_churn`` each step first adds noise up to (1 + gamma) sigma, gamma = min(s_churn / steps, sqrt(2) - 1).
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
