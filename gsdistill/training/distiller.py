"""Distillation as an object that one iterates: a representation, a prior and a method, one step after the other.

One step: draw cameras and backgrounds, render, encode, ask the method for the gradient of the latents, send it back
through encoder and renderer with the penalties, and let the representation follow it, grow and prune. The caller
who iterates, or listeners, decide what is logged and saved, and when to stop. All randomness comes from one generator.

On an accelerator a step never waits for the device: uploads go through pinned memory, and whether a gradient was finite
stays a tensor on the device, with which every update is masked.
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
from gsdistill.prior.base import ASKING, Prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.representation.base import Representation, unfit
from gsdistill.training.cause import model_fault
from gsdistill.training.clock import Clock
from gsdistill.training.listener import Listener, named
from gsdistill.training.views import ViewSettings, draw_views

__all__ = ["Distiller", "Diverged", "Stage", "Step", "Term"]

# One more loss on what was rendered: of the render, its cameras and the progress of the stage (0..1), a scalar.
Term: TypeAlias = Callable[[Render, Cameras, float], Float[Tensor, ""]]
MAX_SKIPPED = 50  # steps with a non-finite gradient, after which a run does not go on as it is
MOST_OF_ALL = 0.5  # share of the steps of a run with such a gradient, above which its end is no success
ASK_EVERY = 10  # steps between looks at their number, for each of which the program waits for the device


class Diverged(UserError):
    """Too many steps had a non-finite gradient."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with a method, views and settings of its own."""

    method: Distillation
    views: ViewSettings
    iterations: int
    settings: Any = None  # of the representation, see Representation.begin; None: those that it was made with


@dataclass(frozen=True)
class Step:
    """What one step did."""

    number: int  # 1 for the first
    loss: Float[Tensor, ""]  # surrogate plus penalties
    figures: Mapping[str, Tensor]  # the method's own
    evaluations: int  # samples through the network in this step
    count: int  # parts of the representation after the step
    finite: Bool[Tensor, ""]  # whether the representation was updated
    images: Float[Tensor, "B H W 3"]  # the rendered views, detached


class Distiller:
    """``for step in Distiller(representation, prior, method, text, views, iterations, generator): ...``.

    It is ``whole``, fit for a checkpoint, between steps. A step that fails before it changes the representation leaves
    everything as it was before; one that fails later leaves ``whole`` False.

    More stages may follow the first; ``done`` and ``iterations`` count the steps of them all, ``stage``, ``method`` and
    ``views`` are those of the next step, and progress is that of its stage. A stage of another method begins with a
    state of its own and fresh optimisers, as a run from the splat so far would; one of the same method goes on with
    both, unless its state has another form.
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
        """Prepare ``iterations`` steps, and those of the stages after; methods draw their states from ``generator``."""
        self.representation, self.prior, self.text, self.generator = representation, prior, text, generator
        self.stages = (Stage(method, views, iterations), *then)
        self._ends = list(accumulate(stage.iterations for stage in self.stages))
        self.iterations, self._place = self._ends[-1], 0
        self.terms: list[Term] = list(terms)
        self.clock = Clock(representation.device)  # seconds by phase of a step
        self.method_state: State = to_device(method.init_state(prior, generator), representation.device)
        # steps without an update since the gradient was not finite, on the device
        self.bad: Int[Tensor, ""] = torch.zeros((), dtype=torch.long, device=representation.device)
        self.done = 0  # finished steps, the bad ones among them
        self.evaluations = 0  # samples that went through the network
        self.pardoned = 0  # bad steps that were made with other settings than now
        self.whole = True
        self._stopped = False
        self._like = torch.zeros((), device=representation.device)  # of what is sent there
        prior.schedule = to_device(prior.schedule, representation.device)  # where its timesteps are drawn to

    @property
    def stage(self) -> Stage:
        """The stage of the next step, and of the last one when no step is left."""
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
        """Steps without an update; waits for the device."""
        return int(self.bad)

    @property
    def over(self) -> bool:
        """Whether all steps are made, or :meth:`stop` was called."""
        return self._stopped or self.done >= self.iterations

    def seek(self, done: int) -> None:
        """Stand after ``done`` steps; their stage begins as it would after the one that was."""
        place = min(bisect_right(self._ends, done), len(self._ends) - 1)
        if place != self._place:
            self._begin(place)
        self.done = done

    def stop(self) -> None:
        """Make no more steps for now; iterating again continues."""
        self._stopped = True

    def __iter__(self) -> Iterator[Step]:
        """The steps that are left; raises what :meth:`step` does."""
        self._stopped = False
        if self.done:
            self._check_skipped()
        while not self.over:
            yield self.step()

    def run(self, listeners: Sequence[Listener] = ()) -> None:
        """Make the steps that are left, and tell the listeners of each in their order, and of the end.

        Raises:
            ConfigError: it is no list of listeners. ListenerFailed: one of them broke. What it says to a user itself,
                and what tells of memory, files or the device, is raised as it is; so is what :meth:`step` raises.
        """
        if isinstance(listeners, Listener) or not all(isinstance(one, Listener) for one in listeners):
            raise ConfigError("run takes a list of Listeners, as in run([mine])")
        for step in self:
            for listener in listeners:
                with named(listener, self.done):
                    listener.on_step(step, self)
        for listener in listeners:
            with named(listener, self.done):
                listener.on_end(self)

    def step(self) -> Step:
        """One step.

        Raises:
            UserError: no step is left, or the one before was broken off while it changed the representation.
            ConfigError: a term gave no number.
            Diverged: more than 50 steps had a non-finite gradient, which every tenth step and the last look at; or at
                the end more than half of them all.
        """
        if not self.whole:
            raise UserError("the step before was broken off while the scene changed: this run cannot go on")
        if self.done >= self.iterations:
            raise UserError(f"all {self.iterations} steps are made; there is no other")
        first, before = self._ends[self._place] - self.stage.iterations, self.method_state
        progress = (self.done - first) / self.stage.iterations
        with self._undone_by_errors():
            out, loss, guidance = self._differentiate(progress)
        self.whole = False
        with self.clock("optimise"):
            finite = self.representation.update(progress)
            self.method_state = {key: torch.where(finite, new, before[key]) for key, new in self.method_state.items()}
        with self.clock("densify"):
            self.done += 1
            self.bad += ~finite
            self.representation.adapt(out, finite, self.done - first, self.generator)
        self.seek(self.done)
        self.whole = True
        self._check_skipped()
        return Step(
            self.done, loss.detach(), guidance.figures, guidance.evaluations, len(self.representation), finite,
            out.images.detach(),
        )  # fmt: skip

    def _begin(self, place: int) -> None:
        """Enter a stage."""
        before, self._place = self.method, place
        state = to_device(self.method.init_state(self.prior, self.generator), self.representation.device)
        anew = type(self.method) is not type(before) or bool(unfit(state, self.method_state))
        if anew:
            self.method_state = state
        self.representation.begin(self.stage.settings, self.stage.iterations, anew)

    def fault(self) -> str | None:
        """What is wrong with the prior's model and what to do, where that is why no gradient is finite."""
        return model_fault(self.representation, self.prior, self.text, self.views.count, self.views.resolution)

    @contextmanager
    def _undone_by_errors(self) -> Iterator[None]:
        """Put back what a part of a step that fails has changed: random numbers, the method's state, the count."""
        generator, state, evaluations = self.generator.get_state(), self.method_state, self.evaluations
        try:
            yield
        except BaseException:
            self.generator.set_state(generator)
            self.method_state, self.evaluations = state, evaluations
            raise

    def _differentiate(self, progress: float) -> tuple[Render, Float[Tensor, ""], Guidance]:
        """Render views, ask the method, and give every parameter its gradient."""
        clock, views = self.clock, self.views
        with clock("render"):
            cameras, backgrounds = draw_views(views, self.generator, self._like)
            out = self.representation.render(cameras, backgrounds)
        with clock("encode"):
            latents = self.prior.encode(out.images)
        with ASKING, clock("network"):
            size = (latents.shape[-2], latents.shape[-1])
            alphas = _pooled(out.alphas, size)
            depth = None
            if "depth" in self.method.NEEDS:
                depth = _pooled(out.depths, size) / alphas.clamp_min(torch.finfo(alphas.dtype).tiny)
            seen, condition = Views(latents.detach(), alphas, cameras), self.prior.condition(self.text, cameras)
            moment = Moment(self.prior, seen, condition, progress, self.generator, depth)
            guidance, self.method_state = self.method.gradient(moment, self.method_state)
        self.evaluations += guidance.evaluations
        with clock("encode backward"):
            clock.split(out.images, "render backward")
            loss = surrogate_loss(latents, guidance.gradient) + self.representation.penalty(out, progress)
            for term in self.terms:
                more = term(out, cameras, progress)
                if not isinstance(more, Tensor) or more.numel() != 1:
                    raise ConfigError(f"the term {term!r} returned {brief(more)}: a tensor with one number is expected")
                loss = loss + more.sum()
            loss.backward()
        return out, loss, guidance

    def _check_skipped(self) -> None:
        """Raise Diverged where too many steps changed nothing."""
        ended = self.done == self.iterations
        if not ended and self.done % ASK_EVERY:
            return
        most = min(MAX_SKIPPED, MOST_OF_ALL * self.iterations) if ended else MAX_SKIPPED
        if self.skipped - self.pardoned > most:
            advice = "--resume --accept-changes goes on with a lower method.guidance_scale or lower optim rates"
            counted = f"{self.skipped} of {self.done} steps had a gradient that is not finite"
            raise Diverged(f"{counted}; {self.fault() or advice}")


def _pooled(values: Float[Tensor, "B H W 1"], size: tuple[int, int]) -> Float[Tensor, "B 1 h w"]:
    """Means over the pixels of each latent, detached."""
    return adaptive_avg_pool2d(values.detach().permute(0, 3, 1, 2), size)
