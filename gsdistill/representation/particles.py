"""Several scenes in one run, of which each step takes the next: the particles of VSD (arXiv 2305.16213, section 3.2).

What a method learns during the run (VSD's LoRA) it learns from all of them. ProlificDreamer's program draws the scene
of a step; here they take turns, so that each has the same number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.core.structs import Cameras, Gaussians, Render
from gsdistill.representation.base import Representation

__all__ = ["Particles", "made_of", "steps_of_each"]


def steps_of_each(iterations: int, count: int) -> list[int]:
    """How many of a stage's ``iterations`` each of ``count`` particles has; at least 1, by which schedules divide."""
    return [max(1, len(range(number, iterations, count))) for number in range(count)]


def made_of(
    make: Callable[..., Representation],
    starts: Sequence[Gaussians],
    settings: Any,
    iterations: int,
    device: torch.device,
) -> Representation:
    """A representation by ``make`` of each start, for a first stage of ``iterations`` steps; particles if several."""
    steps = steps_of_each(iterations, len(starts))
    made = [make(start, settings, count, device) for start, count in zip(starts, steps, strict=True)]
    return made[0] if len(made) == 1 else Particles(made)


class Particles(Representation):
    """Representations that take turns. Counts are those of the first one, which stands for all in records and views."""

    def __init__(self, particles: Sequence[Representation]) -> None:
        """``particles`` are on one device, each made for its :func:`steps_of_each` of the first stage."""
        self.particles, self.device, self._made = tuple(particles), particles[0].device, 0

    @property
    def _present(self) -> Representation:
        """The one whose turn it is."""
        return self.particles[self._made % len(self.particles)]

    @property
    def grown(self) -> int:
        """Parts added to the first."""
        return self.particles[0].grown

    @property
    def pruned(self) -> int:
        """Parts removed from the first."""
        return self.particles[0].pruned

    def begin(self, settings: Any, iterations: int, anew: bool) -> None:
        """See the base; the first has the first turn."""
        self._made = 0
        for particle, steps in zip(self.particles, steps_of_each(iterations, len(self.particles)), strict=True):
            particle.begin(settings, steps, anew)

    def __len__(self) -> int:
        """The parts of the first."""
        return len(self.particles[0])

    def render(self, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
        """Draw the one whose turn it is."""
        return self._present.render(cameras, backgrounds)

    def penalty(self, render: Render, cameras: Cameras, progress: float) -> Float[Tensor, ""]:
        """That of the one whose turn it is."""
        return self._present.penalty(render, cameras, progress)

    def update(self, progress: float) -> Bool[Tensor, ""]:
        """Let the one whose turn it is follow its gradients; the others have none."""
        return self._present.update(progress)

    def adapt(self, render: Render, good: Bool[Tensor, ""], done: int, generator: torch.Generator) -> None:
        """Let the one whose turn it is grow and prune after its own number of steps; then it is the next one's turn."""
        self._present.adapt(render, good, self._made // len(self.particles) + 1, generator)
        self._made += 1

    def state(self) -> dict[str, Tensor]:
        """The states of all, each under its number from 1, and the steps made in the stage."""
        states = {
            f"{n}.{name}": value for n, one in enumerate(self.particles, 1) for name, value in one.state().items()
        }
        return states | {"made": torch.tensor(self._made)}

    def misfit(self, state: Mapping[str, Tensor]) -> str | None:
        """See the base."""
        known = tuple(f"{number}." for number in range(1, len(self.particles) + 1))
        if odd := [name for name in state if name != "made" and not name.startswith(known)]:
            return odd[0]
        if "made" not in state or state["made"].shape != () or state["made"].dtype != torch.int64:
            return "made"
        found = [one.misfit(_under(state, prefix)) for one, prefix in zip(self.particles, known, strict=True)]
        return next((f"{prefix}{name}" for prefix, name in zip(known, found, strict=True) if name), None)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See the base."""
        for number, particle in enumerate(self.particles, 1):
            particle.restore(_under(state, f"{number}."))
        self._made = int(state["made"])

    def splat(self) -> Gaussians:
        """The first one's."""
        return self.particles[0].splat()

    def splats(self) -> list[Gaussians]:
        """Those of all."""
        return [particle.splat() for particle in self.particles]


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
