"""CSD: Classifier Score Distillation (arXiv 2310.19415, eq. 6, and its released program).

    g = w(t) omega h,   h = eps_c - eps_u,   t ~ U(t_min T, t_max T)

The guidance direction alone: neither the mode-seeking term eps_c nor the noise of SDS. It is SSD with M = 0.
The program has three terms, whose factors change over the run, and Perp-Neg's part P of h with a factor of its own:

    g = w(t) omega (cond eps_c + uncond eps_u + null eps_empty + perp P)

Its DeepFloyd stage begins with eps_c - eps_empty and ends with eps_c - eps_u, and divides g by its norm over all views
(``normalise``); its Stable Diffusion stage ends with eps_c - (eps_u + eps_empty) / 2. configs/csd-if.yaml and
csd-sd-refine.yaml hold the stages. With the default factors 1, -1, 0 and 1 this is the first line. ``clip`` acts after
the norm, in the program before it; its stages have no clip. It asks for eps_empty where the factor is 0, too.
A step costs two network evaluations a view, three where null is not 0, in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.prior.base import Query, combine
from gsdistill.settings.ramp import Ramp

__all__ = ["CSD"]


@dataclass(frozen=True)
class CSD(Distillation):
    """The paper's form, with SSD's settings at M = 0. The released stages have omega 1 and factors of their own."""

    # omega, a plain factor here; Adam does not feel it, penalties are weighed against it
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.98), low=0, high=1)
    # w(t)
    weighting: Weighting = "sds"
    # factor of eps_c, the prompt's noise
    cond_scale: Ramp = Ramp(1.0, 1.0)
    # factor of eps_u, the noise of the negative prompt
    uncond_scale: Ramp = Ramp(-1.0, -1.0)
    # factor of eps_empty, the noise of no words
    null_scale: Ramp = Ramp(0.0, 0.0)
    # factor of Perp-Neg's part of h
    perpneg_scale: Ramp = Ramp(1.0, 1.0)
    # divide g by its norm over all views, so that it has length 1
    normalise: bool = False

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One CSD gradient, see the module."""
        t = moment.draw_timesteps(self.t_min, self.t_max)
        x_t = moment.schedule.add_noise(moment.x0, moment.draw_noise(), t)
        scales = (self.cond_scale, self.uncond_scale, self.null_scale, self.perpneg_scale)
        cond, uncond, null, perp = (scale(moment.progress) for scale in scales)
        names = [*moment.condition.guiding, *(["empty"] if null else [])]
        answers = moment.prior.predict_noise([Query(x_t, t, name) for name in names], moment.condition)
        eps = dict(zip(names, answers, strict=True))
        noise = combine(eps, moment.condition)
        # P = h - (eps_c - eps_u). So sorted, the defaults give h to the last bit.
        terms = perp * noise.direction + (cond - perp) * noise.conditional + (uncond + perp) * noise.unconditional
        if null:
            terms = terms + null * eps["empty"]
        g = moment.weight(self.weighting, t) * self.guidance_scale(moment.progress) * terms
        if self.normalise:
            g = g / (g.norm() + 1e-8)
        return moment.answer(g, t), state
