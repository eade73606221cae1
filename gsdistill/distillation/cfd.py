"""CFD: Consistent Flow Distillation (arXiv 2501.05445, and its released program), FSD with noise on the surface.

    g = w(t) (eps_cfg(x_t) - eps(theta, c)),   x_t = alpha_t x0 + sigma_t eps(theta, c),   w = sigma_t / alpha_t

eps(theta, c) is what the camera c sees of white noise that is fixed in space, at the surface that the scene theta has
now (surface_noise.py): views of one place share their noise, where FSD's sheet only follows the camera's angles. A
pixel that shows no surface has the noise of the background, one for the run or fresh. t falls by pieces of lines, the
same for all views. Before each step the noise becomes sqrt(1 - g) old + sqrt(g) new (``refresh``).
The settings are those of stage 1 with Stable Diffusion. With MVDream they are: guidance 50, refresh 1e-4, fresh
background, timesteps [0, 0.98], [0.5, 0.596], [1, 0.308].
Differences to the program: its guidance eps_c + 70 h is 71 here; it refreshes a fixed background twice a step; it adds
a loss of pictures, 0.01 |render - decoded|^2. On an accelerator the textures are refreshed there, from a seed that the
run's generator draws, so that a run on a CPU and one on a GPU differ.
A step costs two network evaluations a view in one call, and the drawing of its surface. Textures of R = texels times
the latents' size have 24 R^2 C numbers, which a checkpoint holds: 0.8 GB in float16 for Stable Diffusion at 512 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance, send
from gsdistill.distillation import surface_noise
from gsdistill.distillation.base import Distillation, Moment, State, Weighting
from gsdistill.distillation.fsd import draw_like, refreshed
from gsdistill.prior.base import Prior
from gsdistill.settings.ramp import Ramp

__all__ = ["CFD"]


@dataclass(frozen=True)
class CFD(Distillation):
    """The released settings for latent priors."""

    NEEDS = ("surface",)

    # omega, the published 70 in this project's definition
    guidance_scale: Ramp = bounded(Ramp(71.0, 71.0), low=0)
    # pairs of progress and t as a fraction of the prior's schedule, with straight lines between them
    timesteps: tuple[tuple[float, float], ...] = bounded(
        ((0.0, 0.98), (0.1, 0.692), (0.5, 0.404), (1.0, 0.212)), low=0, high=1
    )
    # texels of a texture along the edge for each pixel of a latent; a smaller number is faster, 8 serves small priors
    texels: int = bounded(32, low=1)
    # the type that textures are kept in, half the size of the published float32
    precision: Literal["float16", "float32"] = "float16"
    # noise where no surface is: one for the run, or fresh at every step
    background: Literal["fixed", "fresh"] = "fixed"
    # g: the share of its variance that the noise draws anew in each step
    refresh: Ramp = bounded(Ramp(0.01, 0.0001, until=0.4, begin=0.2), low=0, high=1)
    # w(t)
    weighting: Weighting = "snr"

    def __post_init__(self) -> None:
        if not self.timesteps or any(before >= after for (before, _), (after, _) in pairwise(self.timesteps)):
            raise ConfigError(f"method.timesteps = {list(map(list, self.timesteps))}: the progress of a pair must rise")

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """Draw the textures and the background's noise."""
        kind, shape = getattr(torch, self.precision), prior.latent_shape
        behind = torch.randn(shape, generator=generator, device=generator.device)
        return {"textures": surface_noise.draw(shape, self.texels, generator, kind), "background": behind}

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One CFD gradient, see the module."""
        t = moment.same_timestep(moment.schedule.index(self._share(moment.progress)))
        state = self._refreshed(moment, state)
        eps, covered = self._noise(moment, state)
        noise = moment.prior.noise(moment.schedule.add_noise(moment.x0, eps, t), t, moment.condition)
        g = moment.weight(self.weighting, t) * (noise.guided(self.guidance_scale(moment.progress)) - eps)
        return moment.answer(g, t, {"covered": covered}), state

    def _share(self, progress: float) -> float:
        for (begin, first), (end, last) in pairwise(self.timesteps):
            if progress < end:
                return first + (last - first) * max(progress - begin, 0.0) / (end - begin)
        return self.timesteps[-1][1]

    def _refreshed(self, moment: Moment, state: State) -> State:
        if not (rate := self.refresh(moment.progress)):
            return state
        old, behind, generator = state["textures"], state["background"], moment.generator
        background = refreshed(behind, send(draw_like(behind, generator), behind), rate)
        if generator.device != old.device:
            seed = torch.randint(1 << 62, (1,), generator=generator, device=generator.device)
            generator = torch.Generator(old.device).manual_seed(int(seed))
        new = torch.empty_like(old)
        for before, after in zip(old.flatten(0, 1), new.flatten(0, 1), strict=True):
            exact = before.float()
            after.copy_(refreshed(exact, draw_like(exact, generator), rate))
        return {"textures": new, "background": background}

    def _noise(self, moment: Moment, state: State) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, ""]]:
        """The noise of each view, and the share of pixels that have that of a surface."""
        x0 = moment.x0
        if moment.surface is None:
            raise ConfigError("cfd needs the surface that the views show, and it was not given")
        on_surface, count = surface_noise.sample(state["textures"].to(x0.device), moment.surface)
        behind = moment.draw_noise() if self.background == "fresh" else state["background"].to(x0)
        return torch.where(count > 0, on_surface.to(x0), behind), (count > 0).float().mean()
