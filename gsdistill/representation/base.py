"""The contract of a 3D representation: what cameras see of it, how it follows a gradient, and what is kept of it.

A step of a run renders it, differentiates a loss of what was seen, and asks it for ``update`` and ``adapt``, in that
order. Priors and methods are unknown to it, and it is the only one that knows which renderer draws it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.core.structs import Cameras, Gaussians, Render

__all__ = ["Representation", "unfit"]


class Representation(ABC):
    """Something that cameras see and a gradient changes.

    One that ``--representation`` names is made by ``Mine(initial, settings, iterations, device)``: the Gaussians that a
    run starts from, the SceneSettings and the steps of its first stage, and where it computes.
    """

    device: torch.device  # of all its tensors; cameras and backgrounds come there
    grown = 0  # parts that were added on the way
    pruned = 0  # parts that were removed

    def begin(self, settings: Any, iterations: int, anew: bool) -> None:  # noqa: B027
        """Enter another stage of a run, of so many steps: progress and steps count from its beginning.

        ``settings`` are those that the leaf takes, None for those that it was made with; ``anew`` is whether moments
        of gradients of another method are to be forgotten.
        """

    @abstractmethod
    def __len__(self) -> int:
        """How many parts it has, as the Gaussians of a splat."""

    @abstractmethod
    def render(self, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
        """What the cameras see, differentiably, before one colour a view, 0..1."""

    def penalty(self, render: Render, progress: float) -> Float[Tensor, ""]:
        """What is added to the loss of a render at ``progress`` (0..1) of the stage: nothing, unless a leaf says so."""
        return render.images.new_zeros(())

    @abstractmethod
    def update(self, progress: float) -> Bool[Tensor, ""]:
        """Follow the gradients and forget them; where one is not finite nothing changes, and the answer is False."""

    def adapt(self, render: Render, good: Bool[Tensor, ""], done: int, generator: torch.Generator) -> None:  # noqa: B027
        """Grow and prune after ``done`` steps of the stage; the last saw ``render`` and was ``good`` or left out."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides how it goes on, by name."""

    @abstractmethod
    def misfit(self, state: Mapping[str, Tensor]) -> str | None:
        """The name of a tensor that is missing in ``state``, is not of a state of such a representation, or has another
        form there; None where it can be restored. Nothing changes.
        """

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a :meth:`state`, which is copied to the device; one without a :meth:`misfit`."""

    @abstractmethod
    def splat(self) -> Gaussians:
        """The scene as it is now, with the options it is drawn with; it may share memory with the representation."""


def unfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The names that only one of them has, and then those of tensors of another shape or type than is wanted."""
    both = sorted(state.keys() & wanted.keys())
    other = [n for n in both if (state[n].shape, state[n].dtype) != (wanted[n].shape, wanted[n].dtype)]
    return [*sorted(state.keys() ^ wanted.keys()), *other]
