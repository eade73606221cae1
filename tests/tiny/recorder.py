"""What a pipeline of diffusers predicts in one step of its own, guidance included."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline


def guided_noise(
    pipeline: DiffusionPipeline, latents: torch.Tensor, t: int, scale: float, texts: dict[str, str | None]
) -> torch.Tensor:
    """The noise that the pipeline finds in ``latents`` at ``t``: what it hands to its scheduler, converted there.

    ``texts``: prompt and negative_prompt as the pipeline takes them, for all rows.
    """
    scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    found = []

    def step(output: torch.Tensor, time: int, sample: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        assert (int(time), return_dict) == (t, False) and torch.equal(sample, latents)
        found.append(output)
        return (sample,)

    scheduler.step = step
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        **texts, latents=latents, timesteps=[t], guidance_scale=scale, num_images_per_prompt=len(latents),
        output_type="latent",
    )  # fmt: skip
    (output,) = found
    if scheduler.config.prediction_type == "epsilon":
        return output
    level = scheduler.alphas_cumprod[t]
    return level.sqrt() * output + (1 - level).sqrt() * latents
