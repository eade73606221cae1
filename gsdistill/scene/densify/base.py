"""The contract of a densifier, which changes the number of Gaussians during a run, and the budget that all keep.

Settings, a :class:`Densification`, make the object with the running state, a :class:`Densifier`. Whenever the number is
above the budget, the least important Gaussians are removed. Importance is the area that a Gaussian shows, times one
plus the number of views that saw it since the last refinement, if the densifier counts them.

Every decision is a function of the scene and the statistics. Random numbers come from the run's generator, so that the
same run gives the same scene and the global random state does not change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Parameter

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Gaussians, Render
from gsdistill.scene.extent import shown_area

__all__ = ["Densification", "Densifier", "DensifyReport", "Stepped", "importance", "without_haze"]


@runtime_checkable
class Stepped(Protocol):
    """What a densifier needs of an optimiser, and torch's have: its parameter, and its state by parameter."""

    param_groups: list[dict[str, Any]]
    state: Any


@dataclass(frozen=True, kw_only=True)
class Densification(ABC):
    """When the number of Gaussians changes, and its budget; subclasses are final frozen dataclasses.

    Times are fractions of the stage, lengths are world units.
    """

    enabled: bool = False  # off: the initialiser's number of Gaussians stays
    start: float = bounded(0.1, low=0, high=1)  # no refinement up to here
    stop: float = bounded(0.7, low=0, high=1)  # the last refinement is not after here
    every: float = bounded(0.1, above=0, high=1)  # between refinements
    # Gaussians more transparent than this are removed when the run ends, even if densify is not enabled
    final_opacity: float = bounded(0.0, low=0, below=1)
    budget: int = bounded(5_000, low=1)  # most Gaussians, after every step

    def __post_init__(self) -> None:
        if self.start > self.stop:
            raise ConfigError(f"densify.start = {self.start} lies after densify.stop = {self.stop}")

    @abstractmethod
    def begin(self, iterations: int) -> Densifier:
        """Return the running state for a stage of ``iterations`` steps; it is the caller who heeds ``enabled``."""


@dataclass(frozen=True)
class DensifyReport:
    """What one refinement did to the number of Gaussians."""

    n_before: int
    n_grown: int  # added
    n_pruned: int  # removed by the densifier's own criteria
    n_budget: int  # removed to keep the budget

    @property
    def n_after(self) -> int:
        """Number of Gaussians afterwards."""
        return self.n_before + self.n_grown - self.n_pruned - self.n_budget


class Densifier(ABC):
    """Changes parameters and their Adam states together.

    Per step: backward, optimise, :meth:`observe`, :meth:`refine`, :meth:`disturb`. Only a refinement that is due may
    wait for the device.

    ``params`` has the keys means, quats, scales, opacities and sh (log scales, logit opacities, as in Gaussians) and is
    changed in place: its values may be new Parameters afterwards, which the optimisers hold too, one per key with one
    parameter group each.
    """

    STATISTICS: ClassVar[Mapping[str, torch.dtype]] = {}  # names and types of the tensors in ``state``

    def __init__(self, settings: Densification, iterations: int) -> None:
        """Prepare for a stage of ``iterations`` steps."""
        self.first, self.last = settings.start * iterations, settings.stop * iterations
        self.period = max(1, round(settings.every * iterations))
        self.budget = settings.budget
        self.state: dict[str, Tensor] = {}  # statistics, one number per Gaussian each

    def observe(self, render: Render, good: Bool[Tensor, ""]) -> None:  # noqa: B027
        """Record a step's render after backward; a step that was not ``good`` was skipped, and leaves no trace."""

    @abstractmethod
    def refine(
        self, params: dict[str, Parameter], optimizers: Mapping[str, Stepped], done: int, generator: torch.Generator
    ) -> DensifyReport | None:
        """Grow and prune if that is due after ``done`` steps of the stage (1, 2, ...), and keep the budget in any case.

        A refinement that would leave no Gaussian adds and removes none. Returns None if none was due and the budget
        removed nothing.
        """

    def disturb(self, params: Mapping[str, Parameter], rate: float, generator: torch.Generator) -> None:  # noqa: B027
        """Move Gaussians at random; does nothing unless a subclass overrides it.

        ``rate`` is the learning rate of the means in this step, world units.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the running statistics, one number per Gaussian each, for a checkpoint."""
        return {name: value.clone() for name, value in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from :meth:`state_dict`; the tensors must be on the device of the parameters."""
        self.state |= {name: value.clone() for name, value in state.items()}

    def _due(self, done: int) -> bool:
        return self.first < done <= self.last and done % self.period == 0

    def _keep_budget(self, params: dict[str, Parameter], optimizers: dict[str, Any]) -> int:
        from gsplat.strategy.ops import remove

        surplus = len(params["means"]) - self.budget
        if surplus <= 0:
            return 0
        order = importance(params, self._seen(params)).argsort(stable=True)
        mask = torch.zeros_like(order, dtype=torch.bool)
        mask[order[:surplus]] = True
        remove(params, optimizers, self.state, mask)
        return surplus

    def _seen(self, params: dict[str, Parameter]) -> Tensor:
        means = params["means"]
        return self.state.get("seen", torch.zeros(len(means), dtype=torch.long, device=means.device))


def without_haze(gaussians: Gaussians, settings: Densification) -> Gaussians:
    """Return the scene without the Gaussians more transparent than ``final_opacity``; the most opaque one always stays.

    Gaussians that the opacity penalty faded are invisible in training views but show as specks before a bright
    background.
    """
    opacities = gaussians.opacities.detach().sigmoid()
    keep = (opacities >= settings.final_opacity) | (opacities == opacities.max())
    return gaussians.each(lambda value: value.detach()[keep])


def importance(params: Mapping[str, Tensor], seen: Tensor) -> Float[Tensor, "N"]:
    """Return the :func:`shown_area` of every Gaussian, times one plus the number of views [N] that saw it."""
    return shown_area(params["opacities"].detach(), params["scales"].detach()) * (1 + seen)
