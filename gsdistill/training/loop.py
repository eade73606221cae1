"""The optimisation loop: a generator of step records. The caller decides what to log, when to save and when to stop.

One step: draw cameras and backgrounds, render, encode, ask the method for the gradient of the latents, send it back
through encoder and renderer with the penalties, step Adam, grow and prune. All randomness comes from one generator.

On an accelerator the program runs ahead of the device: a step asks it for nothing, and what it is told goes through
pinned memory. Whether a gradient was finite is a tensor there, by which Adam and the statistics leave a step out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import adaptive_avg_pool2d

from gsdistill.config import Ramp, bounded
from gsdistill.distillation.base import Distillation, Moment, State, send, surrogate_loss
from gsdistill.errors import UserError
from gsdistill.prior.base import Prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.renderer.base import RenderOptions, render
from gsdistill.scene.cameras import CameraSettings, sample
from gsdistill.scene.densify import Densifier, DensifySettings
from gsdistill.structs import Cameras, Gaussians, Guidance, Render, Views, to_device
from gsdistill.training.adam import Adam
from gsdistill.training.cause import model_fault
from gsdistill.training.clock import Clock
from gsdistill.training.regularizers import RegularizerSettings, penalty

__all__ = ["KEYS", "Background", "Diverged", "OptimSettings", "Optimisation", "Plan", "StepRecord", "start", "steps"]

Background = Literal["mixed", "random", "grey", "white", "black"]
KEYS = ("means", "quats", "scales", "opacities", "sh")
MAX_SKIPPED = 50  # steps with a non-finite gradient, after which a run does not go on as it is
MOST_OF_ALL = 0.5  # share of the steps of a run with such a gradient, above which its end is no success
ASK_EVERY = 10  # steps between looks at their number, for each of which the program waits for the device


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
    optimizers: dict[str, Adam]
    densifier: Densifier
    method_state: State
    generator: torch.Generator
    extent: float  # radius of the initial scene, world units
    clock: Clock  # seconds by phase of a step
    bad: Int[Tensor, ""]  # steps without an update since the gradient was not finite, on the device
    done: int = 0  # finished steps, the bad ones among them
    evaluations: int = 0  # samples that went through the network
    grown: int = 0  # Gaussians that were duplicated or split, each one more
    pruned: int = 0  # Gaussians that were removed
    pardoned: int = 0  # bad steps that were made with other settings than now
    whole: bool = True  # False while a step changes parameters, and for good where that fails

    @property
    def skipped(self) -> int:
        """Steps without an update; waits for the device."""
        return int(self.bad)

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
    finite: Bool[Tensor, ""]  # whether the parameters were updated
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
    # One optimiser a key, as growing and pruning need them: over one packed tensor a step would save 0.1 ms with 5,000
    # Gaussians on a CPU, nothing with 100,000, and 12 of 15 launches on a GPU.
    optimizers = {key: Adam(value, plan.optim.betas) for key, value in params.items()}
    extent = float(initial.means.norm(dim=-1).max())
    densifier = Densifier(densify, plan.iterations)
    state = to_device(method.init_state(prior, generator), device)
    bad = torch.zeros((), dtype=torch.long, device=device)
    return Optimisation(params, optimizers, densifier, state, generator, extent, Clock(device), bad)


def steps(
    run: Optimisation, method: Distillation, prior: Prior, text: EncodedPrompt, plan: Plan
) -> Iterator[StepRecord]:
    """Carry ``run`` to the end of the plan, one record a step.

    ``run`` is whole, fit for a checkpoint, whenever a record is yielded. A step that fails before it changes a
    parameter leaves it as it was before the step; one that fails later leaves ``run.whole`` False.

    Raises:
        Diverged: more than 50 steps had a non-finite gradient, which every tenth step and the last look at; or at the
            end more than half of them all.
    """
    prior.schedule = to_device(prior.schedule, run.params["means"].device)  # where its timesteps are drawn to
    if run.done:
        _check_skipped(run, prior, text, plan)
    while run.done < plan.iterations:
        progress, state = run.done / plan.iterations, run.method_state
        with _undone_by_errors(run):
            out, loss, guidance = _differentiate(run, method, prior, text, plan, progress)
        run.whole = False
        with run.clock("optimise"):
            finite = _update(run, plan.optim, progress)
            run.method_state = {key: torch.where(finite, new, state[key]) for key, new in run.method_state.items()}
        with run.clock("densify"):
            _densify(run, out, finite)
        run.whole = True
        _check_skipped(run, prior, text, plan)
        yield StepRecord(
            run.done, loss.detach(), guidance.figures, guidance.evaluations, len(run.params["means"]), finite,
            out.images.detach(),
        )  # fmt: skip


@contextmanager
def _undone_by_errors(run: Optimisation) -> Iterator[None]:
    """Put back what a part of a step that fails has changed: random numbers, the method's state, the count."""
    generator, state, evaluations = run.generator.get_state(), run.method_state, run.evaluations
    try:
        yield
    except BaseException:
        run.generator.set_state(generator)
        run.method_state, run.evaluations = state, evaluations
        raise


def _differentiate(
    run: Optimisation, method: Distillation, prior: Prior, text: EncodedPrompt, plan: Plan, progress: float
) -> tuple[Render, Float[Tensor, ""], Guidance]:
    """Render views, ask the method, and give every parameter its gradient."""
    clock = run.clock
    cameras = sample(plan.cameras, plan.views, plan.resolution, run.generator)
    backgrounds = draw_backgrounds(plan.background, plan.views, run.generator)
    with clock("render"):
        cameras, backgrounds = _placed(cameras, backgrounds, run.params["means"])
        out = render(run.gaussians(), cameras, backgrounds, plan.renderer)
    with clock("encode"):
        latents = prior.encode(out.images)
    with clock("network"):
        alphas = adaptive_avg_pool2d(out.alphas.detach().permute(0, 3, 1, 2), (latents.shape[-2], latents.shape[-1]))
        views = Views(latents.detach(), alphas, cameras)
        moment = Moment(prior, views, prior.condition(text, cameras), progress, run.generator)
        guidance, run.method_state = method.gradient(moment, run.method_state)
    run.evaluations += guidance.evaluations
    with clock("encode backward"):
        clock.split(out.images, "render backward")
        loss = surrogate_loss(latents, guidance.gradient)
        loss = loss + penalty(plan.regularizers, progress, run.gaussians(), out)
        loss.backward()
    return out, loss, guidance


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


def _placed(cameras: Cameras, backgrounds: Float[Tensor, "B 3"], like: Tensor) -> tuple[Cameras, Float[Tensor, "B 3"]]:
    """Both on the device of ``like``, in one copy."""
    names = ("viewmats", "Ks", "azimuths", "elevations", "distances")
    parts = [*(getattr(cameras, name) for name in names), backgrounds]
    flat = send(torch.cat([part.flatten() for part in parts]), like)
    pieces = [piece.view(part.shape) for piece, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)]
    return replace(cameras, **dict(zip(names, pieces[:-1], strict=True))), pieces[-1]


def _update(run: Optimisation, settings: OptimSettings, progress: float) -> Bool[Tensor, ""]:
    """Step Adam and forget the gradients; where one of them is not finite nothing changes, and the answer is False.

    Nor is one whose square is not: it would stand in Adam's second moment for good, and no step would be left.
    """
    sums = [value.grad.square().sum() for value in run.params.values() if value.grad is not None]
    finite = torch.stack(sums).isfinite().all()
    found_inf = (~finite).float()
    for key, optimizer in run.optimizers.items():
        rate = getattr(settings, key)(progress)
        optimizer.step(rate * run.extent if key == "means" else rate, found_inf)
    return finite


def _densify(run: Optimisation, out: Render, finite: Bool[Tensor, ""]) -> None:
    """Count the step, observe it where it was a good one, and grow and prune."""
    run.done += 1
    run.bad += ~finite
    run.densifier.observe(out, finite)
    if report := run.densifier.refine(run.params, run.optimizers, run.done, run.generator):
        run.grown += report.n_grown
        run.pruned += report.n_pruned + report.n_budget


def _check_skipped(run: Optimisation, prior: Prior, text: EncodedPrompt, plan: Plan) -> None:
    """Raise Diverged where too many steps changed nothing."""
    ended = run.done == plan.iterations
    if not ended and run.done % ASK_EVERY:
        return
    most = min(MAX_SKIPPED, MOST_OF_ALL * plan.iterations) if ended else MAX_SKIPPED
    if run.skipped - run.pardoned > most:
        fault = model_fault(run.gaussians(), prior, text, plan.views, plan.resolution)
        advice = "--resume --accept-changes goes on with a lower method.guidance_scale or lower optim rates"
        raise Diverged(f"{run.skipped} of {run.done} steps had a gradient that is not finite; {fault or advice}")
