"""FSD is DDIM: with weight 1, steps of s_t - s_t' and one noise, image-space FSD samples (FSD, arXiv 2405.10988).

With z = x0 + s_t eps FSD's step x0' = x0 - (s_t - s_t') (eps_cfg - eps) is z' = z + (s_t' - s_t) eps_cfg, which is
DDIM's (arXiv 2010.02502, eq. 13). So FSD from x0 = 0 must follow diffusers' DDIMScheduler (eta 0) from
x_T = sigma_T eps at the same timesteps, and it does, up to rounding. SDS with the same steps but fresh noise in each
does not. The differences are those of x_t after every step, on an exact prior and on a trained one. In the float64 run
on the trained prior the network computes in float32, and everything around it in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.disk.paths import may_be_path
from gsdistill.distillation.base import Distillation, State
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.sds import SDS
from gsdistill.laboratory.demos.base import Demonstration, Outcome
from gsdistill.laboratory.descent import Descent, Setup, descend, independent
from gsdistill.laboratory.plots import COLOURS, draw_sheet, new_figure
from gsdistill.laboratory.worlds.shapes_set import ShapesSet
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

__all__ = ["Ddim", "sample_by_ddim"]

Levels = dict[str, Float[Tensor, "S B C h w"]]


@dataclass(frozen=True)
class Ddim(Demonstration):
    """Settings of the demonstration."""

    prompt: str = "a red chair"  # an object of the shapes world
    prior: str = field(default="shapes", metadata=may_be_path())  # the trained prior, a diffusion model of that world
    guidance_scale: float = bounded(3.0, low=0)  # omega, of DDIM, FSD and SDS
    steps: int = bounded(50, low=2, high=1000)  # of DDIM, FSD and SDS
    samples: int = bounded(4, low=1)  # each from another side and another noise
    seed: int = bounded(0, low=0)  # of all noise

    def run(self) -> Outcome:
        """Sample by DDIM, FSD and SDS, in both precisions, on both priors."""
        trained = load_prior(self.prior, settings=ModelSettings("float32"))
        priors = {"exact": ShapesSet().densities(self.prompt).prior, self.prior: trained}
        figures: dict[str, Any] = {}
        pictures: dict[str, Levels] = {}
        for name, prior in priors.items():
            for dtype in (torch.float64, torch.float32):
                pictures[name] = self._levels(prior, dtype)
                label = f"{name}_{str(dtype).removeprefix('torch.')}"
                figures[label] = {rival: _differences(pictures[name], rival) for rival in ("fsd", "sds")}
        return Outcome(figures, lambda: self._draw(figures, pictures, priors))

    def _levels(self, prior: Prior, dtype: torch.dtype) -> Levels:
        """x_t after each step of DDIM, FSD and SDS; that of the last two is x0 with FSD's noise added again."""
        stride = len(prior.schedule) // self.steps
        times = Ramp((self.steps - 1) * stride / len(prior.schedule), 0.0)
        omega = Ramp(self.guidance_scale, self.guidance_scale)
        fsd = FSD(guidance_scale=omega, timestep=times, noise="fixed", background="same", weighting="uniform")
        low, high = Ramp(0.0, 0.0), Ramp(times.start, times.start)
        sds = SDS(guidance_scale=omega, t_min=low, t_max=high, timesteps="linear-anneal", weighting="uniform")
        setup = Setup(prior, prior.encode_text(self.prompt, ""), orbit(self.samples, prior.image_size))
        state = independent(fsd, prior, range(self.seed, self.seed + self.samples))
        eps = state["noise"].to(dtype)
        how = Descent(steps=self.steps, optimiser="ddim", times=times, kept=self.steps)

        def clean(method: Distillation, memory: State) -> Float[Tensor, "S B C h w"]:
            generator = torch.Generator().manual_seed(self.seed)
            return descend(method, setup, torch.zeros_like(eps), how, generator, memory).points[1:]

        after = [(self.steps - 2 - step) * stride for step in range(self.steps - 1)]
        alphas, sigmas = (
            torch.cat([levels[after], torch.tensor([last])]).to(dtype)[:, None, None, None, None]
            for levels, last in ((prior.schedule.alphas, 1.0), (prior.schedule.sigmas, 0.0))
        )
        levels = {"ddim": sample_by_ddim(setup, eps, self.guidance_scale, self.steps)}
        levels["fsd"] = alphas * clean(fsd, state) + sigmas * eps
        levels["sds"] = alphas * clean(sds, {}) + sigmas * eps
        return levels

    def _draw(self, figures: dict[str, Any], pictures: dict[str, Levels], priors: dict[str, Prior]) -> Any:
        figure = new_figure(9.6, 4.6)
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
        for name, style in zip(priors, ("--", "-"), strict=True):
            for dtype, colour in (("float64", "fsd"), ("float32", "sds")):
                curve = figures[f"{name}_{dtype}"]["fsd"]["max_abs_by_step"]
                label = f"FSD, {name} prior, {dtype}"
                left.plot(range(1, self.steps + 1), curve, style, color=COLOURS[colour], label=label)
            curve = figures[f"{name}_float64"]["sds"]["max_abs_by_step"]
            label = f"SDS, {name} prior, float64"
            left.plot(range(1, self.steps + 1), curve, style, color=COLOURS["light"], label=label)
        left.set(yscale="log", ylim=(1e-17, 1e2), xlabel="step", ylabel="absolute")
        left.set_title("largest difference of x_t from diffusers' DDIM")
        left.legend(loc="center right", bbox_to_anchor=(1.0, 0.42))
        rows = [pictures[name][kind][-1] for name in priors for kind in ("ddim", "fsd", "sds")]
        owners = [name for name in priors for _ in range(3)]
        images = [priors[name].decode(row) for row, name in zip(rows, owners, strict=True)]
        labels = [f"{kind}, {name}" for name in priors for kind in ("DDIM", "FSD", "SDS")]
        draw_sheet(right, torch.cat([image.float() for image in images]), self.samples, labels, "sample")
        right.set_title("x0 at the end")
        return figure


def sample_by_ddim(
    setup: Setup, eps: Float[Tensor, "B C h w"], guidance_scale: float, steps: int
) -> Float[Tensor, "{steps} B C h w"]:
    """Return x_t after each step of diffusers' DDIMScheduler from x_T = sigma_T eps, in the precision of ``eps``."""
    from diffusers import DDIMScheduler

    prior, schedule = setup.prior, setup.prior.schedule
    options = {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "leading", "steps_offset": 0}
    scheduler: Any = DDIMScheduler(num_train_timesteps=len(schedule), prediction_type="epsilon", **options)
    scheduler.alphas_cumprod = schedule.alphas.square().to(eps)
    scheduler.final_alpha_cumprod = torch.ones((), dtype=eps.dtype)
    scheduler.set_timesteps(steps)
    condition = prior.condition(setup.text, setup.cameras)
    x = schedule.sigmas[int(scheduler.timesteps[0])].to(eps) * eps
    levels = []
    for t in scheduler.timesteps:
        noise = prior.noise(x, t.expand(len(x)), condition).guided(guidance_scale)
        x = scheduler.step(noise, int(t), x, eta=0.0).prev_sample
        levels.append(x)
    return torch.stack(levels)


def _differences(levels: Levels, rival: str) -> dict[str, Any]:
    """Largest absolute differences from DDIM, over all steps and after each, and that relative to DDIM's values."""
    away = (levels[rival] - levels["ddim"]).abs().flatten(1).amax(1)
    size = levels["ddim"].abs().flatten(1).amax(1)
    return {
        "max_abs": float(away.max()),
        "max_relative": float((away / size).max()),
        "max_abs_at_the_end": float(away[-1]),
        "max_abs_by_step": away.tolist(),
    }
