"""SSD: Stable Score Distillation (arXiv 2312.09305). No program was released; the paper is the source.

The estimator of SDS is three terms: mode-disengaging h, mode-seeking eps_c, variance-reducing -eps. Early noise levels
(t > M) follow h alone; late ones the mode, with the noise taken out by projection and the norm of h given to it:
    t > M:    E = h                                                      (CSD's term)
    t <= M:   r = <eps_c, eps> / <eps, eps>                              (eq. 8)
              E' = eps_c - r eps                                         (eq. 9)
              E = |h| / |E'| E',  norms per sample; 0 where E' vanishes
    g = w(t) omega E,   t ~ U(t_min T, t_max T)
A step costs two network evaluations a view in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times, dot
from gsdistill.distillation.sds import projection
from gsdistill.prior.base import Noise
from gsdistill.settings.ramp import Ramp

__all__ = ["SSD", "mode_seeking"]


@dataclass(frozen=True)
class SSD(Distillation):
    """The published settings."""

    # omega, a plain factor of E
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # M: up to this fraction of the prior's schedule the mode is sought, above it h leads; 0 is CSD
    mode_seeking_until: Ramp = bounded(Ramp(0.2, 0.2), low=0, high=1)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.98), low=0, high=1)
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One SSD gradient, see the module."""
        t, eps = moment.draw_timesteps(self.t_min, self.t_max), moment.draw_noise()
        noise = moment.prior.noise(moment.schedule.add_noise(moment.x0, eps, t), t, moment.condition)
        until = moment.schedule.index(self.mode_seeking_until(moment.progress))
        late = (t <= until).to(eps.device)[:, None, None, None] & (until > 0)
        E = torch.where(late, mode_seeking(noise, eps), noise.direction)
        g = moment.weight(self.weighting, t) * self.guidance_scale(moment.progress) * E
        return moment.answer(g, t, {"mode_seeking": late.float().mean()}), state


def mode_seeking(noise: Noise, eps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """E of the late noise levels: eps_c without its part along eps, scaled to the norm of h."""
    eps_c = noise.conditional
    rest = eps_c - projection(eps_c, eps) * eps
    size, h = (dot(x, x).sqrt() for x in (rest, noise.direction))
    there = size > 8 * torch.finfo(rest.dtype).eps * dot(eps_c, eps_c).sqrt()  # more than what rounding leaves
    return torch.where(there, h / torch.where(there, size, 1.0), 0.0) * rest
