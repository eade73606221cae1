"""Distillation as an object that one iterates: a representation, a prior and a method, one step after the other.

A step draws cameras and backgrounds, renders, encodes, asks the method for the gradient of the latents, sends it back
through encoder and renderer together with the gradient of the penalties, and lets the representation follow it, grow
and prune. The caller or the listeners decide what is logged and saved, and when to stop. All random numbers come from
one generator.

The loop does not wait for an accelerator: uploads go through pinned memory, and whether a gradient was finite is a
tensor on the device that masks every update. Only every tenth step waits, to read how many steps were skipped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from gsdistill.core.errors import ConfigError, UserError
from gsdistill.core.structs import Cameras, Guidance, Render, Views, to_device
from gsdistill.disk.read import brief
from gsdistill.distillation.base import Distillation, Moment, State, surrogate_loss
from gsdistill.distillation.surface_noise import corners
from gsdistill.prior.base import ASKING, Prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.representation.base import Representation, unfit
from gsdistill.training.cause import model_fault
from gsdistill.training.clock import Clock
from gsdistill.training.listener import Listener, blame
from gsdistill.training.pictures import shown
from gsdistill.training.views import ViewSettings, draw_views

__all__ = ["Distiller", "Diverged", "Stage", "Step", "Term"]

# A loss that is added to the method's: a function of the render, its cameras and the progress of the stage (0..1).
Term: TypeAlias = Callable[[Render, Cameras, float], Float[Tensor, ""]]
MAX_SKIPPED = 50  # a run stops when more steps than this were skipped for a non-finite gradient
MAX_SKIPPED_SHARE = 0.5  # a run whose skipped steps are a larger share of all steps has failed at its end
CHECK_EVERY = 10  # steps between two looks at the number of skipped steps, each of which waits for the device


class Diverged(UserError):
    """Too many steps were skipped, because their gradients were not finite."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with its own method, views and settings."""

    method: Distillation
    views: ViewSettings
    iterations: int
    settings: Any = None  # of the representation, see Representation.begin; None: those it was made with


@dataclass(frozen=True)
class Step:
    """What one step did."""

    number: int  # 1 for the first
    loss: Float[Tensor, ""]  # surrogate plus penalties and terms, detached
    figures: Mapping[str, Tensor]  # scalars of the method for the log
    evaluations: int  # samples that went through the network in this step
    count: int  # parts of the representation after the step, such as Gaussians
    finite: Bool[Tensor, ""]  # whether the representation was updated
    images: Float[Tensor, "B H W 3"]  # the rendered views, 0..1 up to SH overshoot, detached


class Distiller:
    """``for step in Distiller(representation, prior, method, text, views, iterations, generator): ...``.

    Between steps a run is ``consistent``, so that a checkpoint can be written. A step that fails before it changes the
    representation undoes what it did; one that fails later leaves ``consistent`` False, and the run cannot go on.

    The stages of ``then`` follow the first; ``done`` and ``iterations`` count the steps of all stages, and ``stage``,
    ``method`` and ``views`` belong to the next step. Methods and penalties see the progress of their stage, 0..1. A
    stage of another method draws a new state of the method and resets the optimisers, as a new run from the present
    splat would. A stage of the same method keeps both, unless its settings give the state another form.
    """

    def __init__(
        self,
        representation: Representation,
        prior: Prior,
        method: Distillation,
        text: EncodedPrompt,
        views: ViewSettings,
        iterations: int,
        generator: torch.Generator,
        terms: Sequence[Term] = (),
        then: Sequence[Stage] = (),
    ) -> None:
        """Prepare the stages, the first of ``iterations`` steps; the schedule of ``prior`` moves to the run's device.

        Every random number comes from ``generator``, beginning with the first method's state. ``terms`` are added to
        the loss of every step.
        """
        self.representation, self.prior, self.text, self.generator = representation, prior, text, generator
        self.stages = (Stage(method, views, iterations), *then)
        self._ends = list(accumulate(stage.iterations for stage in self.stages))
        self.iterations, self._place = self._ends[-1], 0
        self.terms: list[Term] = list(terms)
        self.clock = Clock(representation.device)  # seconds by phase of a step
        self.method_state: State = to_device(method.init_state(prior, generator), representation.device)
        # what is learned behind the scene, if anything
        self.learned = views.background.begin(None, generator, representation.device)
        self._skipped: Int[Tensor, ""] = torch.zeros((), dtype=torch.long, device=representation.device)
        self.done = 0  # finished steps, skipped ones included
        self.evaluations = 0  # samples that went through the network
        self.forgiven = 0  # skipped steps that do not count against the run: they had other settings than now
        self.consistent = True
        self._stopped = False
        self._like = torch.zeros((), device=representation.device)  # the device and type of cameras and backgrounds
        prior.schedule = to_device(prior.schedule, representation.device)  # methods index it with timesteps there

    @property
    def stage(self) -> Stage:
        """The stage of the next step; the last stage when no step is left."""
        return self.stages[self._place]

    @property
    def method(self) -> Distillation:
        """The stage's method."""
        return self.stage.method

    @property
    def views(self) -> ViewSettings:
        """What a step of the stage looks at."""
        return self.stage.views

    @property
    def skipped(self) -> int:
        """The number of steps that changed nothing, because their gradient was not finite; waits for the device."""
        return int(self._skipped)

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._skipped.fill_(count)

    @property
    def over(self) -> bool:
        """Whether all steps are made, or :meth:`stop` was called."""
        return self._stopped or self.done >= self.iterations

    def seek(self, done: int) -> None:
        """Go to the step after ``done`` others, and begin its stage if that is another than now."""
        place = min(bisect_right(self._ends, done), len(self._ends) - 1)
        if place != self._place:
            self._begin(place)
        self.done = done

    def stop(self) -> None:
        """End the iteration after the present step; a new iteration goes on from there."""
        self._stopped = True

    def __iter__(self) -> Iterator[Step]:
        """Make the steps that are left and yield each; raises what :meth:`step` does."""
        self._stopped = False
        if self.done:
            self._check_skipped()
        while not self.over:
            yield self.step()

    def run(self, listeners: Sequence[Listener] = ()) -> None:
        """Make the steps that are left; call all listeners, in their order, after each step and at the end.

        Raises:
            ConfigError: ``listeners`` is not a list of listeners.
            gsdistill.training.listener.ListenerFailed: a listener raised an error. A UserError, and one of memory,
                files or the device, passes unchanged, as does what :meth:`step` raises.
        """
        if isinstance(listeners, Listener) or not all(isinstance(one, Listener) for one in listeners):
            raise ConfigError("run takes a list of Listeners, as in run([mine])")
        for step in self:
            for listener in listeners:
                with blame(listener, self.done):
                    listener.on_step(step, self)
        for listener in listeners:
            with blame(listener, self.done):
                listener.on_end(self)

    def step(self) -> Step:
        """Make one step.

        Raises:
            UserError: no step is left, or the step before failed while it changed the representation.
            ConfigError: a term did not return a tensor with one number.
            Diverged: more than 50 steps were skipped, which every tenth step and the last one check, or at the end
                more than half of all steps.
        """
        if not self.consistent:
            raise UserError("the step before failed while it changed the scene: this run cannot go on")
        if self.done >= self.iterations:
            raise UserError(f"all {self.iterations} steps are made; there is no other")
        first, before = self._ends[self._place] - self.stage.iterations, self.method_state
        progress = (self.done - first) / self.stage.iterations
        with self._undo_on_error():
            out, loss, guidance = self._differentiate(progress)
        self.consistent = False
        with self.clock("optimise"):
            finite = self.representation.update(progress)
            if self.learned:
                self.learned.update(progress, finite)
            self.method_state = {key: torch.where(finite, new, before[key]) for key, new in self.method_state.items()}
        with self.clock("densify"):
            self.done += 1
            self._skipped += ~finite
            self.representation.adapt(out, finite, self.done - first, self.generator)
        self.seek(self.done)
        self.consistent = True
        self._check_skipped()
        return Step(
            self.done, loss.detach(), guidance.figures, guidance.evaluations, len(self.representation), finite,
            out.images.detach(),
        )  # fmt: skip

    def _begin(self, place: int) -> None:
        """Begin a stage."""
        before, self._place = self.method, place
        state = to_device(self.method.init_state(self.prior, self.generator), self.representation.device)
        anew = type(self.method) is not type(before) or bool(unfit(state, self.method_state))
        if anew:
            self.method_state = state
        self.representation.begin(self.stage.settings, self.stage.iterations, anew)
        self.learned = self.views.background.begin(self.learned, self.generator, self.representation.device)

    def fault(self) -> str | None:
        """Say what is wrong with the prior's model and what to do, if it is the reason why no gradient is finite."""
        return model_fault(self.representation, self.prior, self.text, self.views.count, self.views.resolution)

    @contextmanager
    def _undo_on_error(self) -> Iterator[None]:
        """If the block fails, restore what it changed: the generator, the method's state, the count of evaluations."""
        generator, state, evaluations = self.generator.get_state(), self.method_state, self.evaluations
        try:
            yield
        except BaseException:
            self.generator.set_state(generator)
            self.method_state, self.evaluations = state, evaluations
            raise

    def _differentiate(self, progress: float) -> tuple[Render, Float[Tensor, ""], Guidance]:
        """Render views, ask the method, and set the gradient of every parameter."""
        clock, views = self.clock, self.views
        with clock("render"):
            cameras, backgrounds = draw_views(views, progress, self.generator, self._like)
            out = self.representation.render(cameras, backgrounds[:, :3])
            if self.learned:
                out = self.learned.behind(out, cameras, backgrounds[:, 3])
            seen, eyes = shown(out, cameras, views.pictures, self.generator)
        with clock("encode"):
            latents = self.prior.encode(seen.images)
        with ASKING, clock("network"):
            size = (latents.shape[-2], latents.shape[-1])
            alphas = _pooled(seen.alphas, size)
            depth = surface = None
            if "depth" in self.method.NEEDS:
                depth = _pooled(seen.depths, size) / alphas.clamp_min(torch.finfo(alphas.dtype).tiny)
            if "surface" in self.method.NEEDS:
                surface = corners(seen.depths, seen.alphas, eyes, size)
            told, condition = Views(latents.detach(), alphas, eyes), self.prior.condition(self.text, eyes)
            moment = Moment(self.prior, told, condition, progress, self.generator, depth, surface)
            guidance, self.method_state = self.method.clipped(moment, self.method_state)
        self.evaluations += guidance.evaluations
        with clock("encode backward"):
            clock.split(seen.images, "render backward")
            loss = surrogate_loss(latents, guidance.gradient) + self.representation.penalty(out, cameras, progress)
            for term in self.terms:
                value = term(out, cameras, progress)
                if not isinstance(value, Tensor) or value.numel() != 1:
                    raise ConfigError(f"the term {term!r} returned {brief(value)}, not a tensor with one number")
                loss = loss + value.sum()
            loss.backward()
        return out, loss, guidance

    def _check_skipped(self) -> None:
        """Raise Diverged if too many steps were skipped."""
        ended = self.done == self.iterations
        if not ended and self.done % CHECK_EVERY:
            return
        most = min(MAX_SKIPPED, MAX_SKIPPED_SHARE * self.iterations) if ended else MAX_SKIPPED
        if self.skipped - self.forgiven > most:
            advice = "--resume --accept-changes goes on with a lower method.guidance_scale or lower optim rates"
            counts = f"{self.skipped} of {self.done} steps had a gradient that is not finite"
            raise Diverged(f"{counts}; {self.fault() or advice}")


def _pooled(values: Float[Tensor, "B H W 1"], size: tuple[int, int]) -> Float[Tensor, "B 1 h w"]:
    """The mean of ``values`` over the pixels of each latent, detached."""
    return adaptive_avg_pool2d(values.detach().permute(0, 3, 1, 2), size)
