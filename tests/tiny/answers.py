"""What a prior makes of a text, images and latents, to compare two of them."""

from __future__ import annotations

import torch
from torch import Tensor

from gsdistill.prior.base import Prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit


def answers(prior: Prior) -> dict[str, Tensor]:
    """What a prior makes of a text, an image and latents."""
    cameras = orbit(4, 16)
    text = prior.encode_text("red torus", "blue", PromptSettings("none"))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, *prior.latent_shape, generator=draw)
    noise = prior.noise(x, torch.tensor([10, 500, 700, 900]), prior.condition(text, cameras))
    images = torch.rand(4, 16, 16, 3, generator=draw)
    return {
        "tokens": text.positive.tokens, "conditional": noise.conditional, "unconditional": noise.unconditional,
        "latents": prior.encode(images), "images": prior.decode(x),
    }  # fmt: skip


def same(prior: Prior, other: Prior) -> None:
    """Both answer alike, to rounding."""
    expected = answers(other)
    for name, value in answers(prior).items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")
    assert prior.prediction_type == other.prediction_type
