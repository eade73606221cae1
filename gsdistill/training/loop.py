"""The optimisation loop: a generator of step records. The caller decides what to log, when to save and when to stop.

One step: draw cameras and backgrounds, render, encode, ask the method for the gradient of the latents, send it back
through encoder and renderer with the penalties, step Adam, grow and prune. All randomness comes from one generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import adaptive_avg_pool2d

from gsdistill.config import Ramp, bounded
from gsdistill.distillation.base import Distillation, Moment, State, surrogate_loss
from gsdistill.errors import UserError
from gsdistill.prior.base import Prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.renderer.base import RenderOptions, render
from gsdistill.scene.cameras import CameraSettings, sample
from gsdistill.scene.densify import Densifier, DensifySettings
from gsdistill.structs import Gaussians, Render, Views, to_device
from gsdistill.training.clock import Clock
from gsdistill.training.regularizers import RegularizerSettings, penalty

__all__ = ["Background", "Diverged", "OptimSettings", "Optimisation", "Plan", "StepRecord", "start", "steps"]

Background = Literal["mixed", "random", "grey", "white", "black"]
KEYS = ("means", "quats", "scales", "opacities", "sh")
MAX_SKIPPED = 50  # steps with a non-finite gradient, after which a run is beyond help


class Diverged(UserError):
    """Too many steps had a non-finite gradient."""


@dataclass(frozen=True)
class OptimSettings:
    """Adam's learning rates, each a schedule over the run."""

    means: Ramp = bounded(Ramp(0.01, 0.001), low=0)  # relative to the extent of the initial scene
    scales: Ramp = bounded(Ramp(0.012, 0.0036), low=0)  # of the logarithm
    quats: Ramp = bounded(Ramp(0.01, 0.003), low=0)
    opacities: Ramp = bounded(Ramp(0.05, 0.015), low=0)  # of the logit
    sh: Ramp = bounded(Ramp(0.04, 0.012), low=0)
    betas: tuple[float, float] = bounded((0.9, 0.99), low=0, below=1)  # decay of Adam's two moments


@dataclass(frozen=True)
class Plan:
    """The loop's share of a run's settings."""

    iterations: int
    views: int
    resolution: int
    background: Background
    cameras: CameraSettings
    renderer: RenderOptions
    regularizers: RegularizerSettings
    optim: OptimSettings


@dataclass
class Optimisation:
    """All that changes during a run; what a checkpoint holds."""

    params: dict[str, Parameter]
    optimizers: dict[str, torch.optim.Adam]
    densifier: Densifier
    method_state: State
    generator: torch.Generator
    extent: float  # radius of the initial scene, world units
    done: int = 0  # finished steps
    evaluations: int = 0  # samples that went through the network
    skipped: int = 0  # of them, without an update since the gradient was not finite
    seconds: dict[str, float] = field(default_factory=dict)  # by phase

    def gaussians(self) -> Gaussians:
        """The scene, sharing the parameters."""
        return Gaussians(*(self.params[key] for key in KEYS))


@dataclass(frozen=True)
class StepRecord:
    """What one step did."""

    step: int  # 1 for the first
    loss: Float[Tensor, ""]  # surrogate plus penalties
    figures: Mapping[str, Tensor]  # the method's own
    evaluations: int  # samples through the network in this step
    count: int  # Gaussians after the step
    finite: bool  # whether the parameters were updated
    images: Float[Tensor, "B H W 3"]  # the rendered views, detached


def start(
    initial: Gaussians,
    method: Distillation,
    prior: Prior,
    plan: Plan,
    densify: DensifySettings,
    generator: torch.Generator,
    device: torch.device,
) -> Optimisation:
    """Make parameters and optimisers from an initial scene."""
    params = {key: Parameter(getattr(initial, key).detach().to(device).clone()) for key in KEYS}
    optimizers = {
        key: torch.optim.Adam([value], lr=1.0, betas=plan.optim.betas, eps=1e-15, fused=True)
        for key, value in params.items()
    }
    extent = float(initial.means.norm(dim=-1).max())
    densifier = Densifier(densify, plan.iterations)
    state = to_device(method.init_state(prior, generator), device)
    return Optimisation(params, optimizers, densifier, state, generator, extent)


def steps(
    run: Optimisation, method: Distillation, prior: Prior, text: EncodedPrompt, plan: Plan
) -> Iterator[StepRecord]:
    """Carry ``run`` to the end of the plan, one record a step; ``run`` is whole whenever a record is yielded.

    Raises:
        Diverged: more than 50 steps had a non-finite gradient.
    """
    clock = Clock(run.params["means"].device, run.seconds)
    while run.done < plan.iterations:
        progress = run.done / plan.iterations
        cameras = sample(plan.cameras, plan.views, plan.resolution, run.generator)
        backgrounds = draw_backgrounds(plan.background, plan.views, run.generator)
        with clock("render"):
            cameras = to_device(cameras, run.params["means"].device)
            out = render(run.gaussians(), cameras, backgrounds.to(run.params["means"].device), plan.renderer)
        with clock("encode"):
            latents = prior.encode(out.images)
        with clock("network"):
            alphas = adaptive_avg_pool2d(
                out.alphas.detach().permute(0, 3, 1, 2), (latents.shape[-2], latents.shape[-1])
            )
            views = Views(latents.detach(), alphas, cameras)
            moment = Moment(prior, views, prior.condition(text, cameras), progress, run.generator)
            guidance, run.method_state = method.gradient(moment, run.method_state)
        run.evaluations += guidance.evaluations
        with clock("backward"):
            loss = surrogate_loss(latents, guidance.gradient)
            loss = loss + penalty(plan.regularizers, progress, run.gaussians(), out)
            finite = _backward(run, loss)
        with clock("optimise"):
            if finite:
                _update(run, plan.optim, progress)
        with clock("densify"):
            _densify(run, out, finite)
        yield StepRecord(
            run.done, loss.detach(), guidance.figures, guidance.evaluations, len(run.params["means"]), finite,
            out.images.detach(),
        )  # fmt: skip


def draw_backgrounds(kind: Background, count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
    """One colour a view: ``mixed`` is mid grey for half of the draws, and any colour for the others."""
    fixed = {"grey": 0.5, "white": 1.0, "black": 0.0}
    if kind in fixed:
        return torch.full((count, 3), fixed[kind])
    colors = torch.rand(count, 3, generator=generator)
    if kind == "random":
        return colors
    grey = torch.rand(count, 1, generator=generator) < 0.5
    return torch.where(grey, torch.full_like(colors, 0.5), colors)


def _backward(run: Optimisation, loss: Float[Tensor, ""]) -> bool:
    """Fill the gradients; say whether all are finite."""
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return all(math.isfinite(float(p.grad.sum())) for p in run.params.values() if p.grad is not None)


def _update(run: Optimisation, settings: OptimSettings, progress: float) -> None:
    for key, optimizer in run.optimizers.items():
        rate = getattr(settings, key)(progress)
        optimizer.param_groups[0]["lr"] = rate * run.extent if key == "means" else rate
        optimizer.step()


def _densify(run: Optimisation, out: Render, finite: bool) -> None:
    """Count the step, and grow and prune where it was a good one."""
    run.done += 1
    if finite:
        run.densifier.observe(run.params, run.optimizers, out)
        run.densifier.refine(run.params, run.optimizers, run.done, run.generator)
        return
    run.skipped += 1
    if run.skipped > MAX_SKIPPED:
        raise Diverged(
            f"{run.skipped} of {run.done} steps had a gradient that is not finite; start again (--overwrite) with a "
            "lower method.guidance_scale or lower optim rates"
        )
