"""Why no gradient is finite: whether the model itself answers finite pictures with numbers that are not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras, to_device
from gsdistill.prior.base import Prior, Query
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.representation.base import Representation
from gsdistill.scene.cameras import orbit

__all__ = ["model_fault"]

TIMES = (0.02, 0.5, 0.98)  # of the schedule
BRANCHES = ("positive", "negative")
WHOLE = "its weights are broken, or those of a LoRA that was added: get the files again"


@torch.no_grad()
def model_fault(scene: Representation, prior: Prior, text: EncodedPrompt, views: int, size: int) -> str | None:
    """What is wrong with the prior and what to do, if its answers to a few pictures of the scene are not finite.

    ``views`` pictures, whole groups of the prior's, of ``size`` pixels. None where the pictures are not finite
    themselves, or all answers are.
    """
    cameras = to_device(orbit(views, size), scene.device)
    images = scene.render(cameras, torch.full((views, 3), 0.5, device=scene.device)).images
    if not images.isfinite().all():
        return None
    evaluations, broken = prior.evaluations, None
    for part, answer in _answers(prior, text, cameras, images):
        if not answer.isfinite().all():
            broken = part
            break
    prior.evaluations = evaluations
    if broken is None:
        return None
    half = str(getattr(prior, "products", torch.float32)).removeprefix("torch.")  # the precision, of a real network
    advice = WHOLE if half == "float32" else f"{half} is too narrow for it, or {WHOLE}; try model.precision float32"
    return f"the {broken} of the prior {prior.name} answers what is finite with numbers that are not: {advice}"


def _answers(
    prior: Prior, text: EncodedPrompt, cameras: Cameras, images: Float[Tensor, "B H W 3"]
) -> Iterator[tuple[str, Tensor]]:
    """What each part of the prior makes of finite input, by the part's name."""
    condition = prior.condition(text, cameras)
    for branch in BRANCHES:
        yield "text encoder", condition.branches[branch].tokens
    latents = prior.encode(images)
    yield "autoencoder", latents
    generator = torch.Generator().manual_seed(0)
    for time in TIMES:
        t = torch.full((len(images),), prior.schedule.index(time), device=latents.device)
        noisy = prior.schedule.add_noise(latents, torch.randn(latents.shape, generator=generator).to(latents), t)
        for answer in prior.predict_noise([Query(noisy, t, branch) for branch in BRANCHES], condition):
            yield "network", answer
