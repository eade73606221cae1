"""Find out whether the prior's model is why no gradient is finite: it answers finite pictures with NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras, to_device
from gsdistill.prior.base import Prior, Query
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.representation.base import Representation
from gsdistill.scene.viewpoints import orbit

__all__ = ["model_fault"]

TIMES = (0.02, 0.5, 0.98)  # fractions of the schedule
BRANCHES = ("positive", "negative")
BROKEN = "its weights are broken, or those of a LoRA that was added: get the files again"


@torch.no_grad()
def model_fault(scene: Representation, prior: Prior, text: EncodedPrompt, views: int, size: int) -> str | None:
    """Say what is wrong with the prior and what to do, if it answers a few finite pictures of the scene with NaN.

    The scene is rendered in ``views`` pictures of ``size`` x ``size`` pixels; ``views`` is a multiple of the views that
    the prior sees together. Returns None if the pictures are not finite, or if every answer is finite.
    """
    cameras = to_device(orbit(views, size), scene.device)
    images = scene.render(cameras, torch.full((views, 3), 0.5, device=scene.device)).images
    if not images.isfinite().all():
        return None
    evaluations, answers = prior.evaluations, _answers(prior, text, cameras, images)
    broken = next((part for part, answer in answers if not answer.isfinite().all()), None)
    prior.evaluations = evaluations  # those made here are no part of the run
    if broken is None:
        return None
    dtype = str(getattr(prior, "products", torch.float32)).removeprefix("torch.")  # only pretrained priors have it
    advice = BROKEN if dtype == "float32" else f"{dtype} is too narrow for it, or {BROKEN}; try model.precision float32"
    return f"the {broken} of the prior {prior.name} answers finite numbers with NaN or infinity: {advice}"


def _answers(
    prior: Prior, text: EncodedPrompt, cameras: Cameras, images: Float[Tensor, "B H W 3"]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each part of the prior, and what that part makes of finite input."""
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
