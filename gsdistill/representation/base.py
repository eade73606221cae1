"""The contract of a 3D representation: how cameras see it, how it follows a gradient, and what a checkpoint keeps.

A step of a run renders it, differentiates a loss of the pictures, and calls ``update`` and ``adapt``, in this order. A
representation knows nothing of priors and methods, and nothing else knows which renderer draws it.
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
    """Something that cameras can see and a gradient can change.

    A class that ``--representation`` names is called as ``Mine(initial, settings, iterations, device)``: with the
    Gaussians that a run starts from, the SceneSettings and the number of steps of its first stage, and the device.
    """

    device: torch.device  # of all its tensors; cameras and backgrounds arrive on it
    grown = 0  # parts added so far
    pruned = 0  # parts removed so far

    def begin(self, settings: Any, iterations: int, anew: bool) -> None:  # noqa: B027
        """Enter another stage of ``iterations`` steps: progress and steps count from its beginning.

        ``settings`` are those of the class, or None for those that it was made with. ``anew``: the method changes, so
        moments of the old method's gradients must be forgotten.
        """

    @abstractmethod
    def __len__(self) -> int:
        """The number of its parts, such as the Gaussians of a splat."""

    @abstractmethod
    def render(self, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
        """Draw what the B cameras see, differentiably, before one background colour per view, 0..1."""

    def penalty(self, render: Render, cameras: Cameras, progress: float) -> Float[Tensor, ""]:
        """The term added to the loss of the cameras' ``render`` at ``progress`` (0..1) of the stage.

        It is 0 unless overridden.
        """
        return render.images.new_zeros(())

    @abstractmethod
    def update(self, progress: float) -> Bool[Tensor, ""]:
        """Follow the gradients at ``progress`` (0..1) of the stage and forget them.

        Returns whether all were finite; if not, nothing has changed.
        """

    def adapt(self, render: Render, good: Bool[Tensor, ""], done: int, generator: torch.Generator) -> None:  # noqa: B027
        """Grow and prune after ``done`` steps of the stage.

        The last step drew ``render``; if it was not ``good``, it was skipped.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides how the run continues, by name."""

    @abstractmethod
    def misfit(self, state: Mapping[str, Tensor]) -> str | None:
        """The name of a tensor that ``state`` lacks, should not have, or has in another shape or type.

        None if it can be restored. Nothing changes.
        """

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a :meth:`state` that has no :meth:`misfit`; it is copied to the device."""

    @abstractmethod
    def splat(self) -> Gaussians:
        """The scene as it is now, with its render options; it may share memory with the representation."""

    def splats(self) -> list[Gaussians]:
        """Every scene, if there are several; the first is :meth:`splat`."""
        return [self.splat()]


def unfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The names that only one of the two has, and then those whose tensors differ in shape or type."""
    both = sorted(state.keys() & wanted.keys())
    other = [n for n in both if (state[n].shape, state[n].dtype) != (wanted[n].shape, wanted[n].dtype)]
    return [*sorted(state.keys() ^ wanted.keys()), *other]
