"""Where CDS comes to rest on Gaussian data, by formula and by experiment, for several kinds of noise and schedules.

With the prompt the data is N(mu, tau^2), without it N(mu_u, tau_u^2). With s the noise-to-signal ratio the guided noise
at z = x0 + s eps* is linear, e(z, s) = a_s z - b_s with
    a_s = s omega / (tau^2 + s^2) + s (1 - omega) / (tau_u^2 + s^2),   b_s likewise with mu and mu_u on top,
and so is CDS's gradient (Consistent3D, arXiv 2401.09050; see distillation/cds.py):
    g = P (x0 + s_t eps*) - Q,   P = a_t - a_n + a_n a_t (s_t - s_n),   Q = b_t - b_n + a_n b_t (s_t - s_n).
The attractor is where g vanishes on average over t:   x0 = (E[Q] - E[P s_t] eps*) / E[P].   Without guidance it is
mu - s eps*, s an average of s_t, so the fixed noise stays in the result unless t falls to the low end. Antithetic and
fresh noise have mean 0. Guidance adds an overshoot away from mu_u, E[Q] / E[P] - mu, which no choice of noise removes,
but low levels of noise do. The schedules are those of two shipped configs, without clipping; in the last fifth of the
run they stay at their end values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.disk.places import data_path
from gsdistill.distillation.cds import CDS
from gsdistill.laboratory.demos.base import Demonstration, Outcome
from gsdistill.laboratory.descent import Descent, Setup, Trajectory, descend, independent
from gsdistill.laboratory.plots import COLOURS, draw_densities, map_key, new_figure
from gsdistill.laboratory.worlds.gaussian import Gaussian
from gsdistill.prior.base import Prior
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.config import from_dict
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.yaml import load_yaml

__all__ = ["Attractor", "at_rest"]

SCHEDULES = {"published": "cds-consistent3d", "shrinking": "shapes-cds"}
Case = tuple[str, str, float]  # schedule, kind of noise, omega


@dataclass(frozen=True)
class Attractor(Demonstration):
    """Settings of the demonstration."""

    samples: int = bounded(12, low=2)  # each with its own eps* and start
    steps: int = bounded(1500, low=1)  # of each descent
    rate: Ramp = bounded(Ramp(0.5, 0.02), above=0)  # of plain gradient descent; divided by omega^2, as P grows with it
    guidance_scale: float = bounded(7.5, low=0)  # omega of the guided runs; the others have 1
    seed: int = bounded(0, low=0)  # of all noise
    world: Gaussian = field(default_factory=Gaussian)

    def run(self) -> Outcome:
        """Let CDS come to rest in every case, and compare its ends with the formula."""
        kinds = [("fixed", 1.0), ("antithetic", 1.0), ("fresh", 1.0), ("antithetic", self.guidance_scale)]
        cases: list[Case] = [(schedule, noise, omega) for schedule in SCHEDULES for noise, omega in kinds]
        prior = self.world.densities("").prior
        ways, figures = {}, {}
        for case in cases:
            method = self._method(case)
            state = independent(method, prior, range(self.seed, self.seed + self.samples))
            ways[case] = (self._descend(method, prior, state), self._attractor(method, prior, state["noise"]))
            figures[f"{case[0]}, {case[1]}, omega {case[2]:g}"] = self._judge(*ways[case])
        return Outcome(figures, lambda: self._draw(ways))

    def _method(self, case: Case) -> CDS:
        schedule, noise, omega = case
        settings = {**load_yaml(data_path("configs", f"{SCHEDULES[schedule]}.yaml"))["method"], "noise": noise}
        settings.pop("name")
        method = from_dict(CDS, {**settings, "guidance_scale": omega, "clip": 0}, "method")
        early = {name: replace(getattr(method, name), until=0.8) for name in ("near", "gap", "spread")}
        return replace(method, **early)

    def _descend(self, method: CDS, prior: Prior, state: Any) -> Trajectory:
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randn(self.samples, 2, 1, 1, generator=generator, dtype=torch.float64)
        setup = Setup(prior, prior.encode_text("", ""), orbit(self.samples, 8))
        steepness = max(method.guidance_scale.end, 1.0) ** 2
        rate = replace(self.rate, start=self.rate.start / steepness, end=self.rate.end / steepness)
        return descend(method, setup, start, Descent(self.steps, "sgd", rate), generator, state)

    def _attractor(self, method: CDS, prior: Prior, eps: Float[Tensor, "B 2 1 1"]) -> Float[Tensor, "B 2"]:
        index = prior.schedule.index
        near, gap = max(index(method.near.end), index(method.near_min)), index(method.gap.end)
        times = (near + gap + torch.arange(index(method.spread.end))).clamp_max(index(method.t_max))
        mean_noise = eps.flatten(1).double() * (method.noise == "fixed")
        return at_rest(self.world, prior, method.guidance_scale.end, near, times, mean_noise)

    def _judge(self, trajectory: Trajectory, predicted: Float[Tensor, "B 2"]) -> dict[str, float]:
        mean, end = torch.tensor(self.world.mean, dtype=torch.float64), trajectory.end.flatten(1)
        return {
            "distance_of_end_from_mu": _mean_length(end - mean),
            "distance_of_attractor_from_mu": _mean_length(predicted - mean),
            "distance_of_end_from_attractor": _mean_length(end - predicted),
            "overshoot_of_mean_end": _share(end.mean(0) - mean, mean - torch.tensor(self.world.broad_mean)),
            "overshoot_of_attractor": _share(predicted.mean(0) - mean, mean - torch.tensor(self.world.broad_mean)),
        }

    def _draw(self, ways: dict[Case, tuple[Trajectory, Tensor]]) -> Any:
        figure = new_figure(10.5, 5.4)
        ring = {"marker": "s", "linestyle": "", "markersize": 9, "markerfacecolor": "none", "color": COLOURS["fsd"]}
        densities = self.world.densities("")
        for axes, (case, (trajectory, predicted)) in zip(figure.subplots(2, 4).flat, ways.items(), strict=True):
            draw_densities(axes, densities, (-1.6, 3.6), (-1.7, 2.7))
            places = trajectory.points[:, :, :, 0, 0].double()
            for sample in range(places.shape[1]):
                axes.plot(*places[:, sample].T.numpy(), color=COLOURS["light"], linewidth=0.5, alpha=0.6)
            marks = (
                axes.plot(*self.world.mean, "k+", markersize=10, label="mu")
                + axes.plot(*self.world.broad_mean, "kx", markersize=6, label="mu_u")
                + axes.plot(*places[-1].T.numpy(), "o", markersize=4, color=COLOURS["sds"], label="end")
                + axes.plot(*predicted.T.numpy(), **ring, label="predicted attractor")
            )
            axes.set_title(f"{case[1]} noise, omega {case[2]:g}")
            away = _mean_length(places[-1] - torch.tensor(self.world.mean))
            axes.set(xlabel=f"from mu to the end: {away:.2f}", ylabel="", xticks=[], yticks=[])
            if case[1] == "fixed":
                axes.set_ylabel(f"{case[0]} schedule", fontsize=11)
        figure.legend(handles=[*map_key(ends=False), *marks], loc="outside lower center", ncols=6)
        return figure


def at_rest(
    world: Gaussian, prior: Prior, omega: float, near: int, times: Int[Tensor, "T"], eps: Float[Tensor, "B 2"]
) -> Float[Tensor, "B 2"]:
    """CDS's attractor for noise ``eps``, n = ``near`` and t uniform over ``times``, see the module; float64."""
    ratios = (prior.schedule.sigmas / prior.schedule.alphas).double()
    s_t, s_n = ratios[times], ratios[near]
    mean, broad = (torch.tensor(point, dtype=torch.float64) for point in (world.mean, world.broad_mean))

    def line(s: Tensor) -> tuple[Tensor, Tensor]:
        narrow = s * omega / (world.deviation**2 + s**2)
        wide = s * (1 - omega) / (world.broad_deviation**2 + s**2)
        return narrow + wide, narrow[..., None] * mean + wide[..., None] * broad

    (a_t, b_t), (a_n, b_n) = line(s_t), line(s_n)
    P = a_t - a_n + a_n * a_t * (s_t - s_n)
    Q = b_t - b_n + (a_n * (s_t - s_n))[:, None] * b_t
    return (Q.mean(0) - (P * s_t).mean() * eps) / P.mean()


def _mean_length(vectors: Float[Tensor, "B 2"]) -> float:
    return float(vectors.norm(dim=1).mean())


def _share(vector: Float[Tensor, "2"], of: Float[Tensor, "2"]) -> float:
    """The component of ``vector`` along ``of``, as a share of the length of ``of``."""
    return float((vector @ of.to(vector)) / (of @ of))
