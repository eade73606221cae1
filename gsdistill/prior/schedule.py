"""Noise schedules: x_t = alpha_t x0 + sigma_t eps for t = 0 .. T-1.

Variance preserving (DDPM): alpha_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t). Rectified flow (arXiv 2209.03003):
alpha_t = 1 - sigma_t. The ratio s_t = sigma_t / alpha_t is the noise level of the variance-exploding view, in which
x_t / alpha_t = x0 + s_t eps.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["NoiseSchedule"]

FAINTEST = 1e-4  # the least alpha, that of pure noise


@dataclass(frozen=True)
class NoiseSchedule:
    """Signal and noise levels of T timesteps, in float64 to keep ratios near t = 0 exact; alpha is at least 1e-4."""

    alphas: Float[Tensor, "T"]
    sigmas: Float[Tensor, "T"]

    @staticmethod
    def from_cumulative_alphas(alphas_cumprod: Float[Tensor, "T"]) -> NoiseSchedule:
        """Variance-preserving levels from abar_t in 0..1, as diffusers' schedulers hold them."""
        cumulative = alphas_cumprod.double().clamp_min(FAINTEST**2)
        return NoiseSchedule(cumulative.sqrt(), (1.0 - cumulative).sqrt())

    @staticmethod
    def from_flow(sigmas: Float[Tensor, "T"]) -> NoiseSchedule:
        """Rectified-flow levels, alpha + sigma = 1, from sigma_t in 0..1, rising with t.

        The last level is usually pure noise. A method reaches it if its range of t ends at T-1, or if it clips t + d to
        T-1; and x0, the DDIM step, CFG rescale and the weight ``snr`` divide by alpha. So alpha is 1e-4 there, not 0.
        """
        noise = sigmas.double().clamp_max(1.0 - FAINTEST)
        return NoiseSchedule(1.0 - noise, noise)

    def __len__(self) -> int:
        return self.alphas.shape[0]

    def index(self, fraction: float) -> int:
        """The timestep, 0 .. T-1, at a fraction (0..1) of the schedule, truncated as the released programs do."""
        return min(max(int(fraction * len(self) + 1e-6), 0), len(self) - 1)  # 0.57 * 1000 is below 570

    def at(
        self, t: Int[Tensor, "B"], like: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """alpha_t and sigma_t, in a shape that multiplies ``like``, and in its type and on its device."""
        picked = (levels[t.to(levels.device)][:, None, None, None] for levels in (self.alphas, self.sigmas))
        alpha, sigma = (level.to(like) for level in picked)
        return alpha, sigma

    def add_noise(
        self, x0: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"], t: Int[Tensor, "B"]
    ) -> Float[Tensor, "B C h w"]:
        """x_t = alpha_t x0 + sigma_t eps."""
        alpha, sigma = self.at(t, x0)
        return alpha * x0 + sigma * eps

    def ddim_step(
        self,
        x_t: Float[Tensor, "B C h w"],
        eps: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        to: Int[Tensor, "B"],
    ) -> Float[Tensor, "B C h w"]:
        """From noise level t to ``to``, up or down, along the predicted noise (DDIM, arXiv 2010.02502, eq. 12)."""
        alpha, sigma = self.at(t, x_t)
        return self.add_noise((x_t - sigma * eps) / alpha, eps, to)
