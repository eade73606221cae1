"""SDS-Bridge: SDS, then the step from a text that says what is wrong to one that does not (arXiv 2406.09417).

    first stage:   g = w(t) (eps_u + omega (eps_target - eps_u) - eps)
    second stage:  g = w'(t) s (eps_target - eps_source),   t ~ U(t_min T, t_max T),  eps fresh at every step

The texts are the prompt of the view and an ending, ``target`` or ``source``. What SDS makes is oversaturated and
smooth, and the prompt with such words is nearer to the distribution of the renders than no text is. No noise is
subtracted in the second stage, which begins at progress ``switch``. Perp-Neg has a part in the first stage alone.
These are the settings of the released program for threestudio, which puts the view's words behind the ending. Its 2-D
program has the target ", detailed high resolution, high quality, sharp", s = 40 and w' = sigma^2.
A prior of a closed world does not know the words of the default source: set ``source`` and ``target`` there.
A step costs two network evaluations a view in one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.prior.base import Query, combine
from gsdistill.settings.ramp import Ramp

__all__ = ["SDSBridge"]

FAULTS = ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"


@dataclass(frozen=True)
class SDSBridge(Distillation):
    """The released settings: 20,000 of 25,000 steps are SDS, and t reaches up to 0.98, after 5,000 steps to 0.5."""

    # what stands behind the prompt in the text of the second stage that g leads away from
    source: str = FAULTS
    # what stands behind the prompt in the text that g leads to, in both stages
    target: str = ", ."
    # progress at which the second stage begins; 1 is never
    switch: float = bounded(0.8, low=0, high=1)
    # omega of the first stage
    guidance_scale: Ramp = bounded(Ramp(100.0, 100.0), low=0)
    # s, a plain factor of the second stage
    bridge_scale: Ramp = bounded(Ramp(1.0, 1.0), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.5, "step", 0.2), low=0, high=1)
    # w(t) of the first stage
    weighting: Weighting = "sds"
    # w'(t), of the second
    bridge_weighting: Weighting = "uniform"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)
        if self.source == self.target:
            raise ConfigError(f"method.source and method.target are both '{self.source}': the second stage is nothing")

    def endings(self) -> Mapping[str, str]:
        """What stands behind the prompt in both texts."""
        return {"source": self.source, "target": self.target}

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One gradient of the stage that it is time for, see the module."""
        prior, condition, progress = moment.prior, moment.condition, moment.progress
        t, eps = moment.draw_timesteps(self.t_min, self.t_max), moment.draw_noise()
        x_t = moment.schedule.add_noise(moment.x0, eps, t)
        if self.switch <= progress and self.switch < 1:
            target, source = prior.predict_noise([Query(x_t, t, name) for name in ("target", "source")], condition)
            g = self.bridge_scale(progress) * (target - source)
            return moment.answer(moment.weight(self.bridge_weighting, t) * g, t), state
        first, *others = condition.guiding  # the target stands in for the positive text
        answers = prior.predict_noise([Query(x_t, t, name) for name in ("target", *others)], condition)
        noise = combine(dict(zip((first, *others), answers, strict=True)), condition, prior.rescale(x_t, t))
        g = noise.guided(self.guidance_scale(progress)) - eps
        return moment.answer(moment.weight(self.weighting, t) * g, t), state
