"""Latents that descend along a method's gradient, with no scene and no renderer in between.

    x' = x - rate g          (``sgd``; ``adam`` divides g by its running size; ``ddim`` has rate s_t - s_t')

with s_t = sigma_t / alpha_t. Over the run t falls by ``times``; t' is the t of the next step, and s_t' = 0 after the
last. With weight 1 the rate of ``ddim`` turns FSD into DDIM sampling (FSD, arXiv 2405.10988). The method sees the
latents as opaque renders, of a ball if it asks for a surface.

This is not a run of ``training``. A run draws new views in each step, its progress stays below 1, and its loss is a
mean over all views. Here nothing is random but the method's own noise, progress reaches 1 in the last step, and each
sample has its own state of the method and the whole of its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, Views, to_device
from gsdistill.distillation.base import Distillation, Moment, State
from gsdistill.distillation.surface_noise import ball
from gsdistill.prior.base import Prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.settings.ramp import Ramp

__all__ = ["Descent", "Setup", "Trajectory", "ddim_rates", "descend", "independent", "repeated"]


@dataclass(frozen=True)
class Descent:
    """How latents follow the gradient."""

    steps: int = bounded(300, low=1)  # of the descent
    optimiser: Literal["adam", "sgd", "ddim"] = "adam"  # ddim: sgd with rate s_t - s_t', for methods of weight 1
    rate: Ramp = bounded(Ramp(0.05, 0.005), above=0)  # of adam and sgd
    times: Ramp = bounded(Ramp(0.98, 0.0), low=0, high=1)  # of ddim: t as a fraction of the prior's schedule
    draws: int = bounded(1, low=1)  # gradients averaged for each sample and step, each with its own noise
    kept: int = bounded(200, low=1)  # points of the way that are recorded, besides the start


@dataclass(frozen=True)
class Setup:
    """What all gradients of a descent share; one camera for each of B samples."""

    prior: Prior
    text: EncodedPrompt
    cameras: Cameras


@dataclass(frozen=True)
class Trajectory:
    """The way of B samples: S recorded points, the start first and the end last."""

    points: Float[Tensor, "S B C h w"]
    steps: tuple[int, ...]  # of each point, 0 at the start

    @property
    def end(self) -> Float[Tensor, "B C h w"]:
        """Where the samples arrived."""
        return self.points[-1]


def descend(
    method: Distillation,
    setup: Setup,
    start: Float[Tensor, "B C h w"],
    how: Descent,
    generator: torch.Generator,
    state: State | None = None,
) -> Trajectory:
    """Let the samples descend from ``start``, in whose precision (float32 or float64) everything is computed.

    Args:
        method: the method whose gradient they follow.
        setup: the prior, its prompt and its cameras.
        start: one latent for each camera.
        how: steps and step sizes.
        generator: source of all noise.
        state: of the method, one row per sample, as :func:`independent` makes it; none: one state for all samples.

    Raises:
        ConfigError: the steps are so large that a latent is not finite, or the prior sees groups of views.
    """
    if setup.prior.view_group > 1:
        raise ConfigError(
            f"the prior {setup.prior.name} sees {setup.prior.view_group} views together, but each sample is one view"
        )
    state = to_device(method.init_state(setup.prior, generator) if state is None else state, start.device)
    condition = setup.prior.condition(setup.text, cameras := repeated(setup.cameras, how.draws))
    surface = ball(cameras, (start.shape[-2], start.shape[-1])) if "surface" in method.NEEDS else None
    x = start.clone()
    optimiser = torch.optim.Adam([x], betas=(0.9, 0.99)) if how.optimiser == "adam" else torch.optim.SGD([x])
    rates = ddim_rates(setup.prior.schedule, how.times, how.steps) if how.optimiser == "ddim" else None
    recorded = {round(place * how.steps / how.kept) for place in range(how.kept + 1)} | {0, how.steps}
    points = [start.clone()]
    for step in range(how.steps):
        progress = step / max(how.steps - 1, 1)
        latents = x.repeat_interleave(how.draws, 0)
        views = Views(latents, torch.ones_like(latents[:, :1]), cameras)
        moment = Moment(setup.prior, views, condition, progress, generator, surface=surface)
        guidance, state = method.clipped(moment, state)
        x.grad = guidance.gradient.unflatten(0, (len(x), how.draws)).mean(1)
        optimiser.param_groups[0]["lr"] = how.rate(progress) if rates is None else rates[step]
        optimiser.step()
        if not bool(x.isfinite().all()):
            raise ConfigError(f"rate = {how.rate}: at step {step + 1} a sample is not finite; lower the rate")
        if step + 1 in recorded:
            points.append(x.clone())
    return Trajectory(torch.stack(points), tuple(sorted(recorded)))


def ddim_rates(schedule: NoiseSchedule, times: Ramp, steps: int) -> list[float]:
    """The rate s_t - s_t' of each of ``steps`` steps, in which t falls by ``times``; s_t for the last step."""
    ratios = schedule.sigmas / schedule.alphas
    levels = [float(ratios[schedule.index(times(step / max(steps - 1, 1)))]) for step in range(steps)] + [0.0]
    return [here - after for here, after in pairwise(levels)]


def independent(method: Distillation, prior: Prior, seeds: range) -> State:
    """One state per seed, stacked: what a method draws once per run is drawn once per sample.

    This serves methods whose state is noise of the latents' shape. The sample of a seed does not depend on the others.
    """
    states = [method.init_state(prior, torch.Generator().manual_seed(seed)) for seed in seeds]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def repeated(cameras: Cameras, times: int) -> Cameras:
    """Each camera ``times`` times in a row."""
    return cameras.pick(torch.arange(len(cameras)).repeat_interleave(times))
