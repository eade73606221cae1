"""Growing and pruning Gaussians during a run, as gsplat's ``DefaultStrategy`` does, under a hard budget.

Statistics: for every view of every step in which a Gaussian is visible, the norm of the loss gradient of its projected
mean is taken in units of half an image and times the number of views (so that a loss that is a mean over views does not
weaken with their number), and averaged since the last refinement. They are gathered here: gsplat asks the device which
Gaussians a view sees, and waits for the answer. A refinement duplicates the Gaussians whose average exceeds
``grow_grad2d`` and whose largest standard deviation is at most ``grow_scale3d``, splits in two those that are larger,
and removes the transparent and the oversized. Then the budget removes the least important: opacity times
(s1 s2 s3)^(2/3) times one plus the number of views in which the Gaussian was seen since the last refinement.
Source: B. Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023, section 5; gsplat.

Every decision is a function of the statistics; only the places of split halves are random, and their seed is drawn from
the run's generator, so that the same run gives the same scene and the global random numbers stay as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import pad

from gsdistill.config import bounded
from gsdistill.errors import ConfigError
from gsdistill.structs import Gaussians, Render

__all__ = ["Densifier", "DensifyReport", "DensifySettings", "importance", "without_haze"]

_SEEDING = threading.Lock()


@runtime_checkable
class Stepped(Protocol):
    """What is asked of an optimiser, which torch's have too: its parameter, and what it remembers by parameter."""

    param_groups: list[dict[str, Any]]
    state: Any


@dataclass(frozen=True)
class DensifySettings:
    """When and how the number of Gaussians changes. Times are fractions of the run, lengths are world units."""

    enabled: bool = False  # off: the initialiser's number of Gaussians stays
    start: float = bounded(0.1, low=0, high=1)  # no refinement up to here
    stop: float = bounded(0.7, low=0, high=1)  # the last refinement is not after here
    every: float = bounded(0.1, above=0, high=1)  # between refinements
    # average screen gradient above which a Gaussian grows; it scales with the method's gradient: reconstruction takes
    # 0.0002, DreamGaussian 0.01. SDS on the shapes prior has a median of 0.5 and a ninth decile of 1.1 to 1.9.
    grow_grad2d: float = bounded(1.5, above=0)
    grow_scale3d: float = bounded(0.05, above=0)  # a growing Gaussian up to this deviation is duplicated, else split
    prune_opacity: float = bounded(0.01, above=0, below=0.5)  # more transparent ones are removed
    prune_scale3d: float = bounded(0.5, above=0)  # ones with a larger standard deviation are removed
    reset_every: float = bounded(0.0, low=0, high=1)  # between resets of opacities to 2 prune_opacity; 0 is never
    final_opacity: float = bounded(
        0.0, low=0, below=1
    )  # when the run ends, more transparent ones go; even if not enabled
    budget: int = bounded(5_000, low=1)  # most Gaussians, after every step

    def __post_init__(self) -> None:
        if self.start > self.stop:
            raise ConfigError(f"densify.start = {self.start} lies after densify.stop = {self.stop}")


@dataclass(frozen=True)
class DensifyReport:
    """What one refinement did to the number of Gaussians."""

    n_before: int
    n_grown: int  # duplicated or split, each is one more
    n_pruned: int  # transparent or too large
    n_budget: int  # removed to keep the budget

    @property
    def n_after(self) -> int:
        """Number of Gaussians afterwards."""
        return self.n_before + self.n_grown - self.n_pruned - self.n_budget


class Densifier:
    """Changes parameters and their Adam states in step. Per step: backward, optimise, :meth:`observe`, :meth:`refine`.

    ``params`` has the keys means, quats, scales, opacities and sh (log scales, logit opacities, as in Gaussians) and is
    changed in place: its values are new Parameters afterwards, which the optimisers hold too, one per key with one
    parameter group each. With ``enabled`` off both methods do nothing.
    """

    def __init__(self, settings: DensifySettings, iterations: int) -> None:
        """Prepare for a run of ``iterations`` steps."""
        self.settings = settings
        self.first, self.last = settings.start * iterations, settings.stop * iterations
        self.period = max(1, round(settings.every * iterations))
        self.reset_period = max(1, round(settings.reset_every * iterations)) if settings.reset_every else 0
        self.state: dict[str, Tensor] = {}  # statistics, one number per Gaussian each

    @torch.no_grad()
    def observe(self, render: Render, good: Bool[Tensor, ""]) -> None:
        """Add the statistics of all views of a render whose loss has been differentiated; nothing where not ``good``.

        Raises:
            ValueError: the render has no screen gradient, for backward has not run.
        """
        if not self.settings.enabled:
            return
        if render.screen.grad is None:
            raise ValueError("the render has no screen gradient; call observe after backward")
        views, height, width, _ = render.images.shape
        x, y = (render.screen.grad * (0.5 * views)).unbind(-1)
        visible = (render.radii > 0) & good
        steepness = torch.where(visible, torch.hypot(x * width, y * height), 0.0)
        found = {"grad2d": steepness.sum(0), "count": visible.sum(0).float(), "seen": visible.sum(0)}
        for name, value in found.items():
            self.state[name] = self.state[name] + value if name in self.state else value

    @torch.no_grad()
    def refine(
        self, params: dict[str, Parameter], optimizers: Mapping[str, Stepped], done: int, generator: torch.Generator
    ) -> DensifyReport | None:
        """Grow, prune, keep the budget and reset opacities where due after ``done`` steps of the run (1, 2, ...).

        A refinement that would leave no Gaussian at all is put off. Returns None when nothing was due.
        """
        if not self.settings.enabled:
            return None
        optimizers, n_before = dict(optimizers), len(params["means"])
        due = self.first < done <= self.last and done % self.period == 0
        grown, pruned = self._grow_and_prune(params, optimizers, generator) if due else (0, 0)
        removed = self._keep_budget(params, optimizers)
        if due:
            self.state["seen"] = torch.zeros_like(self._seen(params))
        if self.reset_period and done <= self.last and done % self.reset_period == 0:
            self._reset_opacities(params, optimizers)
        return DensifyReport(n_before, grown, pruned, removed) if due or removed else None

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the running statistics, one number per Gaussian each, for a checkpoint."""
        return {name: value.clone() for name, value in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from :meth:`state_dict`; the tensors must be on the device of the parameters."""
        self.state |= {name: value.clone() for name, value in state.items()}

    def _grow_and_prune(
        self, params: dict[str, Parameter], optimizers: dict[str, Any], generator: torch.Generator
    ) -> tuple[int, int]:
        from gsplat.strategy.ops import duplicate, remove, split

        seed = int(torch.randint(2**62, (), generator=generator))
        if "grad2d" not in self.state or self._unfit(params).all():
            return 0, 0
        before = len(params["means"])
        steep = self.state["grad2d"] / self.state["count"].clamp_min(1) > self.settings.grow_grad2d
        small = params["scales"].exp().amax(dim=-1) <= self.settings.grow_scale3d
        duplicate(params, optimizers, self.state, steep & small)
        large = pad(steep & ~small, (0, len(params["means"]) - before))  # the copies are at the end, and stay
        with _seeded(large.device, seed):
            split(params, optimizers, self.state, large)
        grown = len(params["means"]) - before
        remove(params, optimizers, self.state, self._unfit(params))
        for name in ("grad2d", "count"):
            self.state[name].zero_()
        return grown, before + grown - len(params["means"])

    def _unfit(self, params: dict[str, Parameter]) -> Bool[Tensor, " N"]:
        """Which Gaussians are transparent or oversized."""
        transparent = params["opacities"].sigmoid() < self.settings.prune_opacity
        return transparent | (params["scales"].exp().amax(dim=-1) > self.settings.prune_scale3d)

    def _keep_budget(self, params: dict[str, Parameter], optimizers: dict[str, Any]) -> int:
        from gsplat.strategy.ops import remove

        surplus = len(params["means"]) - self.settings.budget
        if surplus <= 0:
            return 0
        order = importance(params, self._seen(params)).argsort(stable=True)
        mask = torch.zeros_like(order, dtype=torch.bool)
        mask[order[:surplus]] = True
        remove(params, optimizers, self.state, mask)
        return surplus

    def _reset_opacities(self, params: dict[str, Parameter], optimizers: dict[str, Any]) -> None:
        from gsplat.strategy.ops import reset_opa

        reset_opa(params, optimizers, self.state, 2.0 * self.settings.prune_opacity)

    def _seen(self, params: dict[str, Parameter]) -> Tensor:
        means = params["means"]
        return self.state.get("seen", torch.zeros(len(means), dtype=torch.long, device=means.device))


def without_haze(gaussians: Gaussians, settings: DensifySettings) -> Gaussians:
    """Return the scene without the Gaussians more transparent than ``final_opacity``; the most opaque one always stays.

    What the opacity penalty has faded is invisible on the training views but shows as specks on a bright background.
    """
    opacities = gaussians.opacities.detach().sigmoid()
    keep = (opacities >= settings.final_opacity) | (opacities == opacities.max())
    return Gaussians(*(getattr(gaussians, f.name).detach()[keep] for f in fields(gaussians)))


def importance(params: Mapping[str, Tensor], seen: Tensor) -> Float[Tensor, "N"]:
    """Return opacity times (s1 s2 s3)^(2/3), the area of a ball of the same volume, times 1 + views [N] that saw it."""
    area = torch.exp(2.0 * params["scales"].detach().mean(dim=-1))
    return params["opacities"].detach().sigmoid() * area * (1 + seen)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global random numbers, from which gsplat places split halves, and put them back afterwards.

    All threads have the same ones, so that one at a time is within such a block.
    """
    with _SEEDING:
        if device.type == "cpu":
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                yield
        else:
            module = torch.get_device_module(device)
            current = getattr(module, "device", nullcontext)  # of Apple's there is one
            with torch.random.fork_rng(devices=[device], device_type=device.type), current(device):
                module.manual_seed(seed)
                yield
