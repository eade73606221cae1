"""FSD: Flow Score Distillation (arXiv 2405.10988).

    g = w(t) (eps_cfg(x_t) - eps(c)),   x_t = alpha_t x0 + sigma_t eps(c)

eps(c) is a function of the camera c, fixed at the start of the run (``world-map``, see worldmap.py; ``fixed`` is one
noise for all cameras), and t falls with progress, the same for all views. In image space with a constant eps, uniform
weight and steps of size s_t - s_t' it is DDIM sampling:
    x0' = x0 + (s_t' - s_t) (eps_cfg - eps),   z = x0 + s_t eps
so with the weight ``pf-ode`` and t falling by one a step, plain steps of size 1 are DDIM's.
Where the render is empty (pooled opacity below 1/2) the noise is that of the background, one for the run or fresh.
``sqrt_beta`` mixes fresh noise in: eps = sqrt_beta eps(c) + sqrt(1 - sqrt_beta^2) fresh; 1 is FSD, 0 has SDS's noise.
``refresh`` g makes of the flow a stochastic one (CFD, arXiv 2501.05445): before each step the noise of cameras and
background becomes sqrt(1 - g) old + sqrt(g) new. The released program refreshes the two copies of a sheet's ends apart
from each other, so that its sheet does not stay periodic; here it does.
A step costs two network evaluations a view in one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance, send
from gsdistill.distillation import worldmap
from gsdistill.distillation.base import Distillation, Moment, State, Weighting
from gsdistill.prior.base import Prior
from gsdistill.settings.ramp import Ramp

__all__ = ["FSD", "draw_like", "refreshed"]


@dataclass(frozen=True)
class FSD(Distillation):
    """The published settings for latent priors."""

    # omega; SDS's value, since FSD has no released program
    guidance_scale: Ramp = bounded(Ramp(100.0, 100.0), low=0)
    # t as a fraction of the prior's schedule, one for all views
    timestep: Ramp = bounded(Ramp(0.98, 0.02), low=0, high=1)
    # eps(c): a window of a sheet around the object, or one noise for all cameras
    noise: Literal["world-map", "fixed"] = "world-map"
    # theta, degrees of azimuth (and elevation) that one window of the sheet covers
    field: float = bounded(180.0, low=10, high=180)
    # noise where the render is empty: one for the run, fresh at every step, or eps(c) as elsewhere
    background: Literal["fixed", "fresh", "same"] = "fixed"
    # share of eps(c) in the noise
    sqrt_beta: float = bounded(1.0, low=0, high=1)
    # g: the share of its variance that eps(c) draws anew in each step
    refresh: Ramp = bounded(Ramp(0.0, 0.0), low=0, high=1)
    # w(t)
    weighting: Weighting = "sds"

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """Draw the sheet (or the one noise) and the background's noise."""
        shape = prior.latent_shape
        if self.noise == "fixed":
            sheet = torch.randn(shape, generator=generator, device=generator.device)
        else:
            sheet = worldmap.draw(shape, self.field, generator)
        return {"noise": sheet, "background": torch.randn(shape, generator=generator, device=generator.device)}

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One FSD gradient, see the module."""
        t = moment.same_timestep(moment.schedule.index(self.timestep(moment.progress)))
        state = self._refreshed(moment, state)
        eps = self._noise(moment, state)
        noise = moment.prior.noise(moment.schedule.add_noise(moment.x0, eps, t), t, moment.condition)
        g = moment.weight(self.weighting, t) * (noise.guided(self.guidance_scale(moment.progress)) - eps)
        return moment.answer(g, t), state

    def _refreshed(self, moment: Moment, state: State) -> State:
        if not (rate := self.refresh(moment.progress)):
            return state
        sheet, generator = state["noise"], moment.generator
        if self.noise == "fixed":
            new = draw_like(sheet, generator)
        else:
            new = worldmap.draw_again(sheet.shape, moment.prior.latent_shape[2], generator, sheet.dtype)
        behind = state["background"]
        return {
            "noise": refreshed(sheet, send(new, sheet), rate),
            "background": refreshed(behind, send(draw_like(behind, generator), behind), rate),
        }

    def _noise(self, moment: Moment, state: State) -> Float[Tensor, "B C h w"]:
        x0, views = moment.x0, moment.views
        if self.noise == "fixed":
            eps = state["noise"].to(x0).expand(x0.shape)
        else:
            eps = worldmap.crop(state["noise"], moment.prior.latent_shape, views.cameras).to(x0)
        if self.background != "same":
            behind = moment.draw_noise() if self.background == "fresh" else state["background"].to(x0)
            eps = torch.where(views.alphas < 0.5, behind, eps)
        if self.sqrt_beta < 1:
            eps = self.sqrt_beta * eps + (1 - self.sqrt_beta**2) ** 0.5 * moment.draw_noise()
        return eps


def draw_like(old: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape and type of ``old``, on the generator's device."""
    return torch.randn(old.shape, generator=generator, device=generator.device, dtype=old.dtype)


def refreshed(old: Tensor, new: Tensor, rate: float) -> Tensor:
    """sqrt(1 - g) old + sqrt(g) new, which keeps the variance."""
    return (1 - rate) ** 0.5 * old + rate**0.5 * new
