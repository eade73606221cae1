"""The three terms of SDS against t, and what to subtract from eps_c (SSD, arXiv 2312.09305, Fig. 19-22).

The x0 are ray-cast pictures of the prompt's object, one per camera. Each is noised ``draws`` times to every t. Shown
are the norms of h, eps_c and eps; the correlation <eps_c, eps> / (|eps_c| |eps|); and
    r = <eps_c, eps> / <eps, eps> per sample (eq. 8)   against   c* = tr Cov(eps_c, eps) / d (eq. 7),
with d numbers in a latent. c* is a Monte-Carlo estimate: the covariance over the draws of one x0, averaged over the x0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.disk.paths import may_be_path
from gsdistill.distillation.base import dot
from gsdistill.distillation.sds import projection
from gsdistill.laboratory.demos.base import Demonstration, Outcome
from gsdistill.laboratory.descent import Setup, repeated
from gsdistill.laboratory.plots import COLOURS, new_figure
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.base import world_named

__all__ = ["Terms", "optimum"]

BAND = (0.05, 0.95)  # quantiles over the samples that the bands show


@dataclass(frozen=True)
class Terms(Demonstration):
    """Settings of the demonstration."""

    prompt: str = "a red chair"  # an object of the shapes world
    prior: str = field(default="shapes", metadata=may_be_path())  # a diffusion model of that world
    views: int = bounded(6, low=2)  # pictures of the object, one per camera
    draws: int = bounded(8, low=2)  # of eps, for each picture and t
    levels: int = bounded(21, low=2)  # values of t, from 0.02 T to 0.98 T
    seed: int = bounded(0, low=0)  # of all noise

    def run(self) -> Outcome:
        """Measure the terms at every level of noise."""
        prior = load_prior(self.prior, settings=ModelSettings("float32"))
        cameras = orbit(self.views, prior.image_size)
        world, grey = world_named("shapes"), torch.full((self.views, 3), 0.5)
        images, _ = world.pictures(world.parse(self.prompt), cameras, grey, supersample=2)
        x0 = prior.encode(images).repeat_interleave(self.draws, 0)
        setup = Setup(prior, prior.encode_text(self.prompt, ""), repeated(cameras, self.draws))
        generator = torch.Generator().manual_seed(self.seed)
        low, high = prior.schedule.index(0.02), prior.schedule.index(0.98)
        times = torch.linspace(low, high, self.levels).round().long().tolist()
        rows = [self._measure(setup, x0, t, generator) for t in times]
        curves = {name: [row[name] for row in rows] for name in rows[0]}
        return Outcome(_summary(times, curves), lambda: _draw(times, curves))

    def _measure(
        self, setup: Setup, x0: Float[Tensor, "B C h w"], t: int, generator: torch.Generator
    ) -> dict[str, float]:
        prior = setup.prior
        eps, level = torch.randn(x0.shape, generator=generator), torch.full((len(x0),), t)
        noise = prior.noise(prior.schedule.add_noise(x0, eps, level), level, prior.condition(setup.text, setup.cameras))
        norms = {"h": noise.direction, "eps_c": noise.conditional, "eps": eps}
        sizes = {name: dot(term, term).sqrt().flatten() for name, term in norms.items()}
        r = projection(noise.conditional, eps).flatten()
        correlation = dot(noise.conditional, eps).flatten() / (sizes["eps_c"] * sizes["eps"])
        row = {f"norm_{name}": float(size.mean()) for name, size in sizes.items()}
        row |= {"correlation": float(correlation.mean()), "r": float(r.mean()), "r_deviation": float(r.std())}
        row |= {f"r_{name}": float(r.quantile(q)) for name, q in zip(("low", "high"), BAND, strict=True)}
        each = optimum(noise.conditional, eps, self.draws)
        return row | {"c_star": float(each.mean()), "c_star_error": float(each.std()) / len(each) ** 0.5}


def optimum(eps_c: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"], draws: int) -> Float[Tensor, "V"]:
    """c* = tr Cov(eps_c, eps) / d of each of V x0, unbiased, from its ``draws`` consecutive samples (B = V draws)."""
    a, b = (x.flatten(1).unflatten(0, (-1, draws)) for x in (eps_c, eps))
    trace_of_covariance = ((a - a.mean(1, keepdim=True)) * (b - b.mean(1, keepdim=True))).sum((1, 2)) / (draws - 1)
    return trace_of_covariance / a.shape[2]


def _summary(times: list[int], curves: dict[str, list[float]]) -> dict[str, Any]:
    def largest(name: str, other: str) -> float:
        return max(abs(a - b) for a, b in zip(curves[name], curves[other], strict=True))

    shares = [c / h for c, h in zip(curves["norm_eps_c"], curves["norm_h"], strict=True)]
    return {
        "correlation_lowest_and_highest_t": [curves["correlation"][0], curves["correlation"][-1]],
        "norm_eps_c_over_norm_h_least_and_most": [min(shares), max(shares)],
        "largest_distance_of_mean_r_from_c_star": largest("r", "c_star"),
        "widest_band_of_r": largest("r_high", "r_low"),
        "t": times,
        "curves": curves,
    }


def _draw(times: list[int], curves: dict[str, list[float]]) -> Any:
    figure = new_figure(10.5, 3.2)
    norms, correlation, ratio = figure.subplots(1, 3)
    labels = (("eps_c", "eps_c", "fsd", "-"), ("eps", "eps", "dark", ":"), ("h", "h = eps_c - eps_u", "sds", "-"))
    for name, label, colour, style in labels:
        norms.plot(times, curves[f"norm_{name}"], style, color=COLOURS[colour], label=label)
    norms.set(yscale="log", title="norms of the terms", xlabel="timestep t", ylabel="norm")
    correlation.plot(times, curves["correlation"], color=COLOURS["fsd"])
    least = min(*curves["correlation"], *curves["r_low"]) - 0.01
    correlation.set(ylim=(least, 1.01), title="correlation of eps_c with eps", xlabel="timestep t")
    low, high = (curves[name] for name in ("r_low", "r_high"))
    ratio.fill_between(times, low, high, color=COLOURS["sds"], alpha=0.3, linewidth=0, label="r, 5 to 95 %")
    ratio.plot(times, curves["r"], color=COLOURS["sds"], label="r, mean")
    stars = {"color": COLOURS["dark"], "fmt": ".", "markersize": 4, "linewidth": 0.8}
    ratio.errorbar(times, curves["c_star"], curves["c_star_error"], label="c* and its standard error", **stars)
    ratio.set(ylim=(least, 1.01), title="what to subtract: r against the optimum c*", xlabel="timestep t")
    norms.legend(loc="center right")
    ratio.legend(loc="lower right")
    return figure
