"""Growing where the screen gradient is large, and pruning, as gsplat's ``DefaultStrategy`` does, under a hard budget.

Statistics: for every view of every step in which a Gaussian is visible, the norm of the loss gradient of its projected
mean is taken in units of half an image and times the number of views (so that a loss that is a mean over views does not
weaken with their number), and averaged since the last refinement. With ``together`` the gradients of a step's views are
added before the norm is taken, not times their number, and a step counts once, as in GaussianDreamer. Statistics are
gathered here because gsplat's code waits for the device to say which Gaussians a view sees. A refinement duplicates the
Gaussians whose average exceeds ``grow_grad2d`` and whose largest standard deviation is at most ``grow_scale3d``, splits
in two those that are larger, and removes the transparent and the oversized; then the budget is kept.
Source: B. Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023, section 5; gsplat.

Only the places of split halves are random, and their seed is drawn from the run's generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import pad

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Render
from gsdistill.core.threads import Turn
from gsdistill.scene.densify.base import Densification, Densifier, DensifyReport, Stepped

__all__ = ["Gradient"]

_SEEDING = Turn()


@dataclass(frozen=True, kw_only=True)
class Gradient(Densification):
    """When and how the number of Gaussians changes. Times are fractions of the stage, lengths world units."""

    # average screen gradient above which a Gaussian grows; it scales with the method's gradient: reconstruction takes
    # 0.0002, DreamGaussian 0.01. SDS on the shapes prior has a median of 0.5 and a ninth decile of 1.1 to 1.9.
    grow_grad2d: float = bounded(1.5, above=0)
    together: bool = False  # add the screen gradients of a step's views before their norm is taken; else each counts
    grow_scale3d: float = bounded(0.05, above=0)  # a growing Gaussian up to this deviation is duplicated, else split
    prune_opacity: float = bounded(0.01, above=0, below=0.5)  # more transparent ones are removed
    prune_scale3d: float = bounded(0.5, above=0)  # ones with a larger standard deviation are removed
    reset_every: float = bounded(0.0, low=0, high=1)  # between resets of opacities to 2 prune_opacity; 0 is never

    def begin(self, iterations: int) -> Densifier:
        """Return the running state, with the statistics of every Gaussian."""
        return _ByGradient(self, iterations)


class _ByGradient(Densifier):
    STATISTICS: ClassVar = {"grad2d": torch.float32, "count": torch.float32, "seen": torch.int64}

    def __init__(self, settings: Gradient, iterations: int) -> None:
        super().__init__(settings, iterations)
        self.settings = settings
        self.reset_period = max(1, round(settings.reset_every * iterations)) if settings.reset_every else 0

    @torch.no_grad()
    def observe(self, render: Render, good: Bool[Tensor, ""]) -> None:
        """Add the statistics of all views, unless the step was not ``good``.

        Raises:
            ValueError: the render has no screen gradient because backward has not run.
        """
        if render.screen.grad is None:
            raise ValueError("the render has no screen gradient; call observe after backward")
        _, height, width, _ = render.images.shape
        gradients, seen = render.screen.grad, render.radii > 0
        if self.settings.together:
            gradients, seen = gradients.sum(0, keepdim=True), seen.any(0, keepdim=True)
        x, y = (gradients * (0.5 * len(gradients))).unbind(-1)
        visible = seen & good
        steepness = torch.where(visible, torch.hypot(x * width, y * height), 0.0)
        sums = {"grad2d": steepness.sum(0), "count": visible.sum(0).float(), "seen": visible.sum(0)}
        for name, value in sums.items():
            self.state[name] = self.state[name] + value if name in self.state else value

    @torch.no_grad()
    def refine(
        self, params: dict[str, Parameter], optimizers: Mapping[str, Stepped], done: int, generator: torch.Generator
    ) -> DensifyReport | None:
        """See the base; opacities are reset too if that is due."""
        optimizers, n_before, due = dict(optimizers), len(params["means"]), self._due(done)
        grown, pruned = self._grow_and_prune(params, optimizers, generator) if due else (0, 0)
        removed = self._keep_budget(params, optimizers)
        if due:
            self.state["seen"] = torch.zeros_like(self._seen(params))
        if self.reset_period and done <= self.last and done % self.reset_period == 0:
            self._reset_opacities(params, optimizers)
        return DensifyReport(n_before, grown, pruned, removed) if due or removed else None

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

    def _reset_opacities(self, params: dict[str, Parameter], optimizers: dict[str, Any]) -> None:
        from gsplat.strategy.ops import reset_opa

        reset_opa(params, optimizers, self.state, 2.0 * self.settings.prune_opacity)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global random state, from which gsplat places split halves, and restore it afterwards.

    All threads share that state, so only one of them at a time is inside such a block.
    """
    with _SEEDING:
        if device.type == "cpu":
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                yield
        else:
            module = torch.get_device_module(device)
            current = getattr(module, "device", nullcontext)  # MPS has one device and no such context
            with torch.random.fork_rng(devices=[device], device_type=device.type), current(device):
                module.manual_seed(seed)
                yield
