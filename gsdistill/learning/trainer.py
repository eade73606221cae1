"""The training of a network as an object that one iterates: one step of gradient descent after the other.

A step draws the pieces of its batch, sums the gradient of their mean loss over pieces and processes, clips it, lets the
optimisers follow it, and averages the weights. If the gradient is not finite, no weight changes, and the step counts as
skipped. All random numbers are seeded with (seed, step, shard). So a checkpoint holds no generator, and a training that
was stopped and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.failing import failing_as
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import to_device
from gsdistill.disk.write import atomic_path
from gsdistill.learning.ema import Average
from gsdistill.learning.precision import Name, Precision
from gsdistill.learning.processes import add_up, broadcast, count, largest, leader_first, rank
from gsdistill.learning.stream import Key, Stream
from gsdistill.settings.ramp import Ramp
from gsdistill.training.distiller import MAX_SKIPPED, MAX_SKIPPED_SHARE, Diverged

__all__ = ["Loss", "Step", "Trainer", "TrainerSettings"]

B = TypeVar("B")
# The mean loss of a piece: a function of the network (called like the model), the piece (on the model's device) and the
# progress of the training (0..1). Torch's default generators are seeded with the piece's key before each call.
Loss: TypeAlias = Callable[[Callable[..., Any], B, float], Float[Tensor, ""]]
_COUNTERS = ("done", "skipped", "in_a_row", "seconds", "history", "recent")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Settings that every training has; programs add their own in a subclass."""

    steps: int = bounded(10_000, low=1)  # optimiser steps, where no minutes are given
    minutes: float | None = bounded(None, above=0)  # end after this time instead, over all runs from one checkpoint
    shards: int = bounded(1, low=1)  # pieces of a step's batch, a multiple of the processes
    lr: float = bounded(1e-3, above=0)  # peak learning rate
    warmup: int = bounded(200, low=1)  # steps in which the rate rises
    decay_from: float = bounded(0.5, low=0, below=1)  # share of the run after which the rate falls by a cosine
    floor: float = bounded(0.02, low=0, high=1)  # what is left of the rate at the end, as a share
    clip: float = bounded(1.0, above=0)  # largest norm of the gradient
    ema: float = bounded(0.999, low=0, below=1)  # decay of the weights' moving average
    precision: Name = "auto"  # what the network multiplies in
    workers: int = bounded(0, low=0)  # processes that draw batches ahead
    log_every: int = bounded(100, low=1)  # steps between lines of the log
    save_every: float = bounded(300.0, above=0)  # seconds between checkpoints
    stop_after: int | None = bounded(None, low=1)  # stop at this step with a checkpoint, to go on another time
    seed: int = bounded(0, low=0)


@dataclass(frozen=True)
class Step:
    """What one step did."""

    number: int  # 1 for the first
    loss: float  # mean over the whole batch
    finite: bool  # whether loss and gradient were finite; if not, no weight has changed


class Trainer(Generic[B]):
    """``for step in Trainer(model, loss, draw, settings): ...``, in every process at the same time.

    ``model`` is on its device already, and ``average.weights`` are its averaged weights. The learning rates of
    ``optimizers`` are their peaks; without ``optimizers``, it is AdamW with the peak ``settings.lr``.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss[B],
        draw: Callable[[Key], B],
        settings: TrainerSettings,
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> None:
        """Raises ConfigError if ``settings.shards`` is not a multiple of the number of processes."""
        if settings.shards % count():
            raise ConfigError(f"shards = {settings.shards} is no multiple of the {count()} processes")
        self.model, self.loss, self.settings = model, loss, settings
        self.stream = Stream(draw, settings.workers)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.optimizers = list(optimizers) or [torch.optim.AdamW(self.parameters, settings.lr, weight_decay=0.01)]
        self._peaks = [group["lr"] for group in self._groups()]
        broadcast(list(model.state_dict().values()))
        self.average = Average(model, settings.ema)
        self.precision = Precision(settings.precision, self.device)
        self.done = 0  # finished steps, skipped ones included
        self.skipped = 0  # steps that changed nothing, because the gradient was not finite
        self.in_a_row = 0  # skipped steps since the last one that was not
        self.seconds = 0.0  # spent in steps, over all runs from one checkpoint
        self.history: list[tuple[int, float]] = []  # a step, and the mean loss since the previous entry
        self.recent: list[float] = []  # losses since the last entry of the history
        self._stopped = False

    @property
    def progress(self) -> float:
        """The share of the training that is over, 0..1."""
        minutes = self.settings.minutes
        return min(self.seconds / 60.0 / minutes if minutes else self.done / self.settings.steps, 1.0)

    @property
    def complete(self) -> bool:
        """Whether no step is left."""
        return self.progress == 1.0

    @property
    def rate(self) -> float:
        """The learning rate of the next step, as a share of its peak, 0..1."""
        s = self.settings
        fall = Ramp(1.0, s.floor, "cosine")((self.progress - s.decay_from) / (1.0 - s.decay_from))
        return min(1.0, (self.done + 1) / s.warmup) * fall

    def stop(self) -> None:
        """End the iteration after the present step, in all processes; a new iteration goes on from there."""
        self._stopped = True

    def __iter__(self) -> Iterator[Step]:
        """Make the steps that are left and yield each.

        Raises:
            Diverged: more than 50 steps in a row were skipped, or at the end more than half of all steps.
        """
        self._stopped = False
        mine = range(rank(), self.settings.shards, count())
        batches = self.stream.batches(
            Key(self.settings.seed, step, shard) for step in itertools.count(self.done) for shard in mine
        )
        began = time.perf_counter() - self.seconds
        while not self._is_over():
            step = self._follow(self._differentiate(itertools.islice(batches, len(mine))))
            self.seconds = time.perf_counter() - began
            self._check_skipped()
            yield step

    def run(
        self,
        checkpoint: Path,
        should_stop: Callable[[], bool] = lambda: False,
        on_save: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the steps that are left, from the checkpoint on if it exists; log and save as the settings say.

        If ``should_stop`` returns True after a step, in any process, all processes stop after that step with a
        checkpoint. The leader calls ``on_save`` after each checkpoint.

        Raises:
            BadFile: as :meth:`restore`.
            Diverged: too many steps were skipped, as in an iteration.
            OutputError: the checkpoint cannot be written.
        """
        if checkpoint.exists():
            self.restore(checkpoint)
        saved = time.perf_counter()
        for step in self:
            if should_stop():
                self.stop()
            self._log(step)
            if rank() == 0 and time.perf_counter() - saved > self.settings.save_every:
                self.save(checkpoint)
                on_save()
                saved = time.perf_counter()
        with leader_first():  # no process returns before the checkpoint is written
            if rank() == 0:
                self.save(checkpoint)
                on_save()

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically; raises OutputError if it cannot be written."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state(),
            "scaler": self.precision.scaler.state_dict(),
            "stream": [self.settings.seed, self.settings.shards],
            "counters": {name: getattr(self, name) for name in _COUNTERS},
        }
        with atomic_path(path) as draft:
            torch.save(state, draft)

    def restore(self, path: Path) -> None:
        """Restore the state that :meth:`save` wrote.

        Raises:
            BadFile: the file is damaged, or of another model, other optimisers, another seed or number of shards.
        """
        with failing_as(BadFile, f"{path} is no checkpoint of this training"):
            state = torch.load(path, map_location="cpu", weights_only=True)
            stream = state["stream"]
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.average.restore(state["average"])
            self.precision.scaler.load_state_dict(state["scaler"])
            for name in _COUNTERS:
                setattr(self, name, state["counters"][name])
        if stream != [self.settings.seed, self.settings.shards]:
            raise BadFile(
                f"{path} was trained with seed {stream[0]} in {stream[1]} shards: use the same, or another path"
            )

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _is_over(self) -> bool:
        """Whether no further step is made; the answer is the same in all processes."""
        stopped, self.seconds = largest(self._stopped, self.seconds)
        return bool(stopped) or self.complete or self.done >= (self.settings.stop_after or math.inf)

    def _differentiate(self, pieces: Iterator[tuple[Key, B]]) -> Float[Tensor, ""]:
        """Set the gradient of every parameter to that of the mean loss, scaled; return the loss itself."""
        self.model.zero_grad()
        total = torch.zeros((), device=self.device)
        for key, batch in pieces:
            with torch.random.fork_rng(devices=()):  # restores the CPU's generator only
                torch.manual_seed(key.number)
                loss = self.loss(self.precision.of(self.model), to_device(batch, self.device), self.progress)
                loss = loss / self.settings.shards
                self.precision.scaler.scale(loss).backward()
            total = total + loss.detach()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        add_up([*gradients, total])
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return total

    def _follow(self, loss: Float[Tensor, ""]) -> Step:
        """Update the weights and their average, if the gradient and the loss are finite."""
        rate, scaler = self.rate, self.precision.scaler
        for group, peak in zip(self._groups(), self._peaks, strict=True):
            group["lr"] = peak * rate
        for optimizer in self.optimizers:
            scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        finite = bool((norm + loss).isfinite())  # waits for the device, once a step
        if finite:
            for optimizer in self.optimizers:
                scaler.step(optimizer)
            self.average.update(self.model)
        scaler.update()
        self.done += 1
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1
        return Step(self.done, float(loss), finite)

    def _check_skipped(self) -> None:
        if self.in_a_row > MAX_SKIPPED or (self.complete and self.skipped > MAX_SKIPPED_SHARE * self.done):
            counts = f"{self.skipped} of {self.done} steps had a gradient that is not finite, the last {self.in_a_row}"
            raise Diverged(f"{counts} in a row; try a lower lr, a lower clip, or precision float32")

    def _log(self, step: Step) -> None:
        self.recent += [step.loss] * step.finite
        if step.number % self.settings.log_every or not self.recent:
            return
        loss, self.recent = sum(self.recent) / len(self.recent), []
        self.history.append((step.number, loss))
        if rank() == 0:
            pace, skipped = self.seconds / self.done, f"  {self.skipped} skipped" if self.skipped else ""
            print(f"step {self.done}  loss {loss:.4f}  {pace:.3f} s/step  {self.progress:.1%}{skipped}", flush=True)
