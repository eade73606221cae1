"""How different the samples of SDS and FSD are from seed to seed, and how many modes they reach.

Four ways from mid grey, with different noise for each sample:
    sds             fresh noise, t uniform; Adam, as in practice
    sds_annealed    fresh noise, t falls from 0.98 T to 0; Adam
    sds_same_steps  fresh noise, t falls, weight 1 and steps of s_t - s_t': FSD except for the noise
    fsd             one noise per sample for the whole run, the same t, weight and steps (FSD, arXiv 2405.10988)
on two priors. The exact prior has the pictures of the prompt's object from all sides, and each view is a mode. The
trained prior gets no prompt and one camera, and each object of its world is a mode. A sample reaches a mode of the
first if it is nearer than half the least distance between modes; one of the second, if no object is nearer and less
than ``tolerance`` of it is missing (see coverage.py). Intervals are bootstraps over the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.disk.paths import may_be_path
from gsdistill.distillation.base import Distillation
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.sds import SDS
from gsdistill.laboratory.coverage import differences, mean_difference, nearest_objects
from gsdistill.laboratory.demos.base import Demonstration, Outcome
from gsdistill.laboratory.descent import Descent, Setup, descend, independent, repeated
from gsdistill.laboratory.plots import COLOURS, draw_sheet, new_figure
from gsdistill.laboratory.worlds.shapes_set import ShapesSet
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

__all__ = ["Diversity"]

WAYS = {"sds": "SDS", "sds_annealed": "SDS, t falls", "sds_same_steps": "SDS, FSD's steps", "fsd": "FSD"}
SHOWN = 16  # samples per row of the picture

Images = dict[str, Float[Tensor, "N H W 3"]]


@dataclass(frozen=True)
class Diversity(Demonstration):
    """Settings of the demonstration."""

    prompt: str = "a blue chair"  # of the exact prior
    prior: str = field(default="shapes", metadata=may_be_path())  # the trained one, a model of the shapes world
    prior_prompt: str = ""  # the prompt of the trained prior; empty: any object of its world
    guidance_scale: float = bounded(1.0, low=0)  # omega; it has no effect without a prompt
    seeds: int = bounded(64, low=2)  # samples of each way
    steps: int = bounded(40, low=2)  # of each descent
    rate: Ramp = bounded(Ramp(0.1, 0.02), above=0)  # of Adam
    tolerance: float = bounded(0.6, above=0, high=1)  # share of an object that may be missing in a sample that shows it
    seed: int = bounded(0, low=0)  # the first of the seeds

    def run(self) -> Outcome:
        """Sample with every way on both priors."""
        exact, trained = self._exact(), self._trained()
        figures = {
            "exact": self._judge(exact, self._views(exact)),
            self.prior: self._judge(trained, self._objects(trained)),
        }
        return Outcome(figures, lambda: _draw({"exact": exact, self.prior: trained}, figures))

    def _exact(self) -> Images:
        prior = ShapesSet().densities(self.prompt).prior
        return self._sample(Setup(prior, prior.encode_text("", ""), orbit(self.seeds, prior.image_size)))

    def _trained(self) -> Images:
        prior = load_prior(self.prior)
        text = prior.encode_text(self.prior_prompt or self.prompt, "")
        text = text if self.prior_prompt else EncodedPrompt(text.negative, text.negative)
        return self._sample(Setup(prior, text, repeated(orbit(1, prior.image_size), self.seeds)))

    def _ways(self) -> dict[str, tuple[Distillation, Descent]]:
        omega, falling = Ramp(self.guidance_scale, self.guidance_scale), Ramp(0.98, 0.0)
        sds = SDS(guidance_scale=omega)
        annealed = replace(sds, timesteps="linear-anneal", t_min=Ramp(0.0, 0.0))
        fsd = FSD(guidance_scale=omega, timestep=falling, noise="fixed", background="same", weighting="uniform")
        adam, ddim = Descent(self.steps, "adam", self.rate, kept=1), Descent(self.steps, "ddim", times=falling, kept=1)
        pairs = ((sds, adam), (annealed, adam), (replace(annealed, weighting="uniform"), ddim), (fsd, ddim))
        return dict(zip(WAYS, pairs, strict=True))

    def _sample(self, setup: Setup) -> Images:
        images = {}
        for name, (method, how) in self._ways().items():
            state = independent(method, setup.prior, range(self.seed, self.seed + self.seeds))
            generator = torch.Generator().manual_seed(self.seed)
            start = torch.zeros(self.seeds, *setup.prior.latent_shape)
            images[name] = setup.prior.decode(descend(method, setup, start, how, generator, state).end)
        return images

    def _judge(self, images: Images, modes: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The figures of each way, with those of ``modes`` added."""
        figures = {}
        for name, samples in images.items():
            mean, low, high = mean_difference(differences(samples, samples), self.seed)
            figures[name] = {"mean_pairwise_difference": mean, "interval_95": [low, high], **modes[name]}
        return figures

    def _views(self, images: Images) -> dict[str, dict[str, Any]]:
        """How many pictures of the exact prior the samples of each way reach."""
        modes = ShapesSet().densities(self.prompt).modes
        apart = differences(modes, modes)
        radius = 0.5 * float(apart[apart > 1e-6].min())
        rows = {}
        for name, samples in images.items():
            distance, nearest = differences(samples, modes).min(1)
            at = distance < radius
            rows[name] = {
                "modes": len(modes),
                "modes_reached": len(set(nearest[at].tolist())),
                "at_a_mode": int(at.sum()),
            }
        return rows

    def _objects(self, images: Images) -> dict[str, dict[str, Any]]:
        """How many objects the samples of each way show."""
        rows = {}
        for name, samples in images.items():
            names, missing = nearest_objects(samples, orbit(1, samples.shape[1]))
            at = [label for label, share in zip(names, missing.tolist(), strict=True) if share < self.tolerance]
            rows[name] = {"modes_reached": len(set(at)), "at_a_mode": len(at), "median_missed": float(missing.median())}
        return rows


def _draw(images: dict[str, Images], figures: dict[str, Any]) -> Any:
    figure = new_figure(10.5, 5.4)
    grid = figure.subplots(2, 2, width_ratios=[1, 3.1])
    for (bars, pictures), (prior, ways) in zip(grid, images.items(), strict=True):
        rows = [figures[prior][name] for name in WAYS]
        means = [row["mean_pairwise_difference"] for row in rows]
        ends = torch.tensor([row["interval_95"] for row in rows]).T - torch.tensor(means)
        colours = [COLOURS["fsd"] if name == "fsd" else COLOURS["sds"] for name in WAYS]
        bars.barh(range(len(WAYS)), means, xerr=ends.abs().numpy(), color=colours, alpha=0.8, height=0.6)
        labels = [f"{label}\n{row['modes_reached']} modes" for label, row in zip(WAYS.values(), rows, strict=True)]
        bars.set_yticks(range(len(WAYS)), labels)
        bars.set(xlabel="RMS between two samples, 95 % interval")
        bars.invert_yaxis()
        shown = min(SHOWN, len(ways["fsd"]))
        draw_sheet(pictures, torch.cat([ways[name][:shown] for name in WAYS]), shown, list(WAYS.values()), "sample")
        pictures.set_title(f"{prior} prior")
    return figure
