"""SSD's terms one by one on three modes in the plane (SSD, arXiv 2312.09305, Fig. 3).

    mode-seeking      E[w eps_c]         SDS at omega 1; its subtracted noise has mean 0
    mode-disengaging  E[w h]             CSD at omega 1
    SSD               E[w E]             omega 1, M = 0.2 T

All three have t ~ U(0.02 T, 0.98 T) and weight 1. Each step averages ``draws`` gradients, for in the plane the noise of
a single eps hides the sign of the rest. From the start, mode-seeking alone ends on the trap between the conditional
modes, and mode-disengaging alone where p(x | y) is low. SSD ends on a conditional mode, even from the trap. With weight
sigma^2 the late levels, which seek the mode, weigh so little that SSD follows h instead (``--weighting sds``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.distillation.base import Distillation, Weighting
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.ssd import SSD
from gsdistill.laboratory.demos.base import Demonstration, Outcome
from gsdistill.laboratory.descent import Descent, Setup, Trajectory, descend
from gsdistill.laboratory.plots import COLOURS, draw_densities, draw_way, map_key, new_figure
from gsdistill.laboratory.worlds.base import Densities
from gsdistill.laboratory.worlds.trap import Trap as TrapWorld
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

__all__ = ["Trap"]

ESTIMATORS = {"mode_seeking": "mode-seeking alone", "mode_disengaging": "mode-disengaging alone", "ssd": "SSD"}


@dataclass(frozen=True)
class Trap(Demonstration):
    """Settings of the demonstration."""

    start: tuple[float, float] = (0.15, -1.6)  # first start; the second is where mode-seeking ends
    steps: int = bounded(400, low=1)  # of each descent
    rate: Ramp = bounded(Ramp(0.1, 0.01), above=0)  # of plain gradient descent
    draws: int = bounded(16, low=1)  # gradients averaged in a step
    weighting: Weighting = "uniform"  # w(t)
    seed: int = bounded(0, low=0)  # of all noise
    world: TrapWorld = field(default_factory=TrapWorld)

    def run(self) -> Outcome:
        """Follow each estimator from both starts."""
        densities = self.world.densities("")
        start = torch.tensor([self.start], dtype=torch.float64)
        ways = {("start", name): self._follow(name, start, densities) for name in ESTIMATORS}
        trap = ways["start", "mode_seeking"].end.flatten(1)
        ways |= {("trap", name): self._follow(name, trap, densities) for name in ESTIMATORS}
        figures: dict[str, Any] = {"starts": {"start": list(self.start), "trap": trap[0].tolist()}}
        for (place, name), trajectory in ways.items():
            figures.setdefault(f"from_{place}", {})[name] = self._judge(trajectory.end.flatten(1), densities)
        return Outcome(figures, lambda: self._draw(ways, densities))

    def _method(self, name: str) -> Distillation:
        one = Ramp(1.0, 1.0)
        return {
            "mode_seeking": SDS(guidance_scale=one, weighting=self.weighting),
            "mode_disengaging": CSD(guidance_scale=one, weighting=self.weighting),
            "ssd": SSD(guidance_scale=one, weighting=self.weighting),
        }[name]

    def _follow(self, name: str, start: Float[Tensor, "1 2"], densities: Densities) -> Trajectory:
        prior = densities.prior
        how = Descent(steps=self.steps, optimiser="sgd", rate=self.rate, draws=self.draws, kept=self.steps)
        setup = Setup(prior, prior.encode_text("", ""), orbit(1, 8))
        generator = torch.Generator().manual_seed(self.seed)
        return descend(self._method(name), setup, start[:, :, None, None], how, generator)

    def _judge(self, end: Float[Tensor, "1 2"], densities: Densities) -> dict[str, Any]:
        """The end of an estimator, its distances from the modes, and how far its density is below theirs."""
        modes = densities.conditional.means
        drop = densities.conditional.log_density(modes).max() - densities.conditional.log_density(end)[0]
        return {
            "end": end[0].tolist(),
            "distance_to_conditional_mode": float((end - modes).norm(dim=1).min()),
            "distance_to_singular_mode": float((end - densities.unconditional.means[-1]).norm()),
            "log_density_below_the_modes": float(drop),
        }

    def _draw(self, ways: dict[tuple[str, str], Trajectory], densities: Densities) -> Any:
        figure = new_figure(9.6, 5.0)
        titles = {"start": "from the start", "trap": "from the trapping point"}
        for axes, place in zip(figure.subplots(1, 2, sharex=True, sharey=True), titles, strict=True):
            draw_densities(axes, densities, (-1.15, 1.6), (-1.8, 0.7))
            for name, label in ESTIMATORS.items():
                draw_way(axes, ways[place, name].points[:, 0, :, 0, 0], COLOURS[name], label)
            axes.set_title(titles[place])
            for x, y in densities.conditional.means.tolist():
                axes.annotate("conditional mode", (x, y + 0.42), ha="center", va="bottom", fontsize=8)
            axes.annotate("singular mode\nof p(x), dotted", (-0.12, -0.52), ha="right", va="top", fontsize=8)
        axes.legend(loc="lower right")
        figure.legend(handles=map_key(), loc="outside lower center", ncols=4)
        return figure
