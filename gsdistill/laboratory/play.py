"""Free play: points or pictures descend along the gradient of any method on any prior.

On a point world the figure is a map of p(x | y) and p(x) with the trajectories of the samples, which start around p(x).
Elsewhere it is a sheet with a column for each sample and a row for each of five moments. There the samples start from
zero latents (mid grey where latents are pixels), and a prior that takes cameras sees each from another side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core import device
from gsdistill.core.ranges import bounded
from gsdistill.disk.paths import may_be_path
from gsdistill.disk.places import data_path
from gsdistill.distillation.base import Distillation
from gsdistill.laboratory.coverage import differences
from gsdistill.laboratory.demos.base import Demonstration, Outcome
from gsdistill.laboratory.descent import Descent, Setup, Trajectory, descend
from gsdistill.laboratory.plots import COLOURS, draw_densities, draw_sheet, draw_way, map_key, new_figure
from gsdistill.laboratory.worlds.base import AnalyticWorld, Densities
from gsdistill.models import catalogue
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings, encode_with_endings
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.config import merge, name_of, named
from gsdistill.settings.registry import load
from gsdistill.settings.yaml import load_yaml

__all__ = ["Play", "fill"]

METHOD: Any = named(partial(load, "gsdistill.distillation", kind="method"), "ssd")
WORLD: Any = named(partial(load, "gsdistill.laboratory.worlds", kind="world"), "trap")
MOMENTS = 5  # rows of a sheet


@dataclass(frozen=True)
class Play(Demonstration):
    """Settings of free play."""

    method: Distillation = METHOD  # how to distil: a name of `gsdistill list methods`
    # analytic: the exact prior of --world; else a name of `gsdistill list priors`, a folder or a hub id
    prior: str = field(default="analytic", metadata=may_be_path())
    world: AnalyticWorld = WORLD  # of the analytic prior: a name of `gsdistill list worlds`
    prompt: str = "a red chair"  # what to make; point worlds ignore it
    negative_prompt: str = ""  # what to avoid
    samples: int = bounded(8, low=2, high=4096)  # points or pictures
    seed: int = bounded(0, low=0)  # of all noise
    device: str = "auto"  # auto, cpu, or an NVIDIA GPU by its name in torch
    descent: Descent = field(default_factory=Descent)

    def run(self) -> Outcome:
        """Let the samples descend, and measure where they end."""
        target = device.choose(self.device)
        device.prepare(target)
        densities = self.world.densities(self.prompt) if self.prior == "analytic" else None
        prior = densities.prior if densities else load_prior(_name(self.prior), target)
        texts, endings = (self.prompt, self.negative_prompt, PromptSettings()), self.method.endings()
        text = encode_with_endings(prior.encode_text, *texts, endings)
        setup = Setup(prior, text, orbit(self.samples, prior.image_size))
        generator = torch.Generator().manual_seed(self.seed)
        trajectory = descend(self.method, setup, self._start(prior, densities, generator), self.descent, generator)
        figures = {"network_evaluations": prior.evaluations, "steps": self.descent.steps, "samples": self.samples}
        if densities and densities.plane:
            return Outcome(figures | _judge_points(trajectory, densities), lambda: self._map(trajectory, densities))
        moments = _moments(len(trajectory.points))
        images = torch.stack([prior.decode(latents).cpu() for latents in trajectory.points[moments]])
        rows = [f"step {trajectory.steps[moment]}" for moment in moments]
        return Outcome(figures | _judge_images(trajectory, images[-1], densities), lambda: self._sheet(images, rows))

    def _start(self, prior: Prior, densities: Densities | None, generator: torch.Generator) -> Float[Tensor, "B C h w"]:
        shape = (self.samples, *prior.latent_shape)
        if densities is None:
            return torch.zeros(shape, device=device.choose(self.device))
        if not densities.plane:
            return torch.zeros(shape)
        centre, spread = _middle(densities)
        return centre.view(1, 2, 1, 1) + 2.0 * spread * torch.randn(shape, generator=generator, dtype=torch.float64)

    @property
    def _title(self) -> str:
        return f"{name_of(self.method)}, {self.descent.steps} steps of {self.descent.optimiser}"

    def _map(self, trajectory: Trajectory, densities: Densities) -> Any:
        centre, spread = _middle(densities)
        places = trajectory.points.flatten(2).cpu()
        reach = max(float((places - centre).abs().max()), 3 * spread) * 1.08
        figure = new_figure(5.6, 5.9)
        axes = figure.subplots()
        draw_densities(axes, densities, *((float(c) - reach, float(c) + reach) for c in centre))
        for sample in range(places.shape[1]):
            draw_way(axes, places[:, sample], COLOURS["sds"], alpha=0.7)
        axes.set_title(f"{self._title} on the world {name_of(self.world)}")
        figure.legend(handles=map_key(), loc="outside lower center", ncols=4)
        return figure

    def _sheet(self, images: Float[Tensor, "R B H W 3"], rows: list[str]) -> Any:
        columns = min(images.shape[1], 16)
        figure = new_figure(max(4.0, 0.8 * columns + 1.2), 0.8 * len(images) + 0.9)
        axes = figure.subplots()
        draw_sheet(axes, images[:, :columns].flatten(0, 1), columns, rows, "sample")
        figure.suptitle(f"{self._title} on the prior {self.prior}\n'{self.prompt}'", fontsize=10, wrap=True)
        return figure


def fill(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``chosen`` over the method's settings in the recipe for the chosen prior, if there is such a recipe."""
    prior, method = chosen.get("prior", "analytic"), chosen.get("method", "ssd")
    recipe = catalogue.recipe(_name(prior), method) if isinstance(method, str) and prior != "analytic" else None
    basis = {"method": load_yaml(data_path("configs", f"{recipe}.yaml"))["method"]} if recipe else {}
    return merge(basis, chosen)


def _name(prior: str) -> str:
    """The name of the prior that ``auto`` stands for on this machine; any other name as it is."""
    return catalogue.choose_prior(prior, device.choose("auto"))[0]


def _middle(densities: Densities) -> tuple[Float[Tensor, "D"], float]:
    """Mean of p(x), and the root of its mean variance over all dimensions."""
    p = densities.unconditional
    mean = p.weights @ p.means
    variance = p.weights @ ((p.means - mean).square().sum(1) / p.means.shape[1] + p.deviations.square())
    return mean, float(variance.sqrt())


def _moments(count: int) -> list[int]:
    return [round(row * (count - 1) / (MOMENTS - 1)) for row in range(MOMENTS)]


def _judge_points(trajectory: Trajectory, densities: Densities) -> dict[str, Any]:
    end = trajectory.end.flatten(1)
    log = densities.conditional.log_density(end)
    nearest = torch.cdist(end, densities.conditional.means).min(1)
    return {
        "starts": trajectory.points[0].flatten(1).tolist(),
        "ends": end.tolist(),
        "log_density_given_the_prompt": log.tolist(),
        "nearest_conditional_mode": nearest.indices.tolist(),
        "distance_to_it": nearest.values.tolist(),
    }


def _judge_images(
    trajectory: Trajectory, images: Float[Tensor, "B H W 3"], densities: Densities | None
) -> dict[str, Any]:
    table = differences(images, images)
    figures = {
        "mean_pairwise_difference": float(table.sum() / (len(table) * (len(table) - 1))),
        "latent_mean": float(trajectory.end.mean()),
        "latent_deviation": float(trajectory.end.std()),
    }
    if densities is None:
        return figures
    nearest = differences(images, densities.modes).min(1)
    return figures | {"nearest_picture": nearest.indices.tolist(), "difference_from_it": nearest.values.tolist()}
