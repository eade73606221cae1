"""The two networks: the published names and shapes, attention by its definition, no order among points."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from gsdistill.point_e.transformer import (
    CHANNELS,
    Attention,
    Size,
    TextPointDiffusionTransformer,
    UpsamplePointDiffusionTransformer,
    timestep_embedding,
)
from gsdistill.point_e.weights import fill

PUBLISHED = json.loads((Path(__file__).parent / "parameters.json").read_text())
SMALL = Size(width=16, layers=2, heads=2, outputs=12)


def published():
    return {
        "base40M-textvec": TextPointDiffusionTransformer(Size()),
        "upsample": UpsamplePointDiffusionTransformer(Size()),
    }


def small(kind: str):
    torch.manual_seed(0)
    made = {
        "base": lambda: TextPointDiffusionTransformer(SMALL, 10),
        "up": lambda: UpsamplePointDiffusionTransformer(SMALL, 3, 8),
    }
    return made[kind]().double().requires_grad_(False)


def told(kind: str, batch: int = 2) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 10).double() if kind == "base" else torch.rand(batch, CHANNELS, 5).double()


@pytest.mark.slow
def test_parameters_have_the_published_names_and_shapes_and_load_strictly():
    for name, model in published().items():
        shapes = PUBLISHED[name]
        assert {key: list(value.shape) for key, value in model.state_dict().items()} == shapes
        torch.manual_seed(3)
        weights = {key: torch.randn(shape) for key, shape in shapes.items()}
        fill(model, weights, Path("weights.pt"))
        assert all(bool((model.state_dict()[key] == value).all()) for key, value in weights.items())


def test_attention_is_a_softmax_of_scaled_products_head_by_head():
    torch.manual_seed(0)
    layer = Attention(12, 3).double()
    x = torch.randn(2, 5, 12).double()
    out = torch.zeros(2, 5, 12).double()
    for b in range(2):
        mixed = x[b] @ layer.c_qkv.weight.T + layer.c_qkv.bias
        for head in range(3):
            q, k, v = (mixed[:, 12 * head + 4 * part : 12 * head + 4 * part + 4] for part in range(3))
            scores = torch.exp(q @ k.T / 2.0)
            out[b, :, 4 * head : 4 * head + 4] = scores @ v / scores.sum(1, keepdim=True)
    expected = out @ layer.c_proj.weight.T + layer.c_proj.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_the_timestep_embedding_is_its_formula():
    got = timestep_embedding(torch.tensor([0.0, 3.25, 1023.0]), 8)
    for row, t in zip(got, (0.0, 3.25, 1023.0), strict=True):
        angles = [t / 10_000 ** (k / 4) for k in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row.tolist() == pytest.approx(expected, abs=2e-4 if t > 100 else 1e-6)  # float32 angles


@pytest.mark.parametrize("kind", ["base", "up"])
def test_points_are_a_set(kind):
    model, x = small(kind), torch.randn(2, CHANNELS, 7).double()
    t, order = torch.tensor([3.0, 500.0]).double(), torch.randperm(7)
    out = model(x, t, told(kind))
    assert out.shape == (2, 12, 7)
    torch.testing.assert_close(model(x[:, :, order], t, told(kind)), out[:, :, order], rtol=1e-10, atol=1e-10)


def test_coarse_points_are_a_set_too():
    model, x, t = small("up"), torch.randn(2, CHANNELS, 7).double(), torch.tensor([3.0, 500.0]).double()
    coarse = told("up")
    torch.testing.assert_close(
        model(x, t, coarse[:, :, torch.randperm(5)]), model(x, t, coarse), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("kind", ["base", "up"])
def test_every_condition_matters_and_no_cloud_sees_another(kind):
    model, x, t, c = small(kind), torch.randn(2, CHANNELS, 7).double(), torch.tensor([3.0, 500.0]).double(), told(kind)
    out = model(x, t, c)
    assert float((model(x, t + 1.0, c) - out).abs().max()) > 1e-4
    assert float((model(x, t, c + 0.5) - out).abs().max()) > 1e-4
    one = model(x[:1], t[:1], c[:1])
    torch.testing.assert_close(one, out[:1], rtol=1e-10, atol=1e-10)


def test_a_text_enters_as_the_scaled_embedding_in_one_token():
    """The base with text e is the trunk told clip_embed(sqrt(D) e); no text is zeros, whose token is the bias."""
    model, x, t = small("base"), torch.randn(2, CHANNELS, 7).double(), torch.tensor([3.0, 500.0]).double()
    text = told("base")
    token = text * math.sqrt(10) @ model.clip_embed.weight.T + model.clip_embed.bias
    torch.testing.assert_close(model(x, t, text), model.attend(x, t, token[:, None]))
    none = model.clip_embed.bias.expand(2, 1, -1)
    torch.testing.assert_close(model(x, t, torch.zeros_like(text)), model.attend(x, t, none))


def test_coarse_values_enter_scaled_behind_empty_picture_tokens():
    model, x, t = small("up"), torch.randn(2, CHANNELS, 7).double(), torch.tensor([3.0, 500.0]).double()
    coarse = torch.cat([torch.rand(2, 3, 5) - 0.5, 255.0 * torch.rand(2, 3, 5)], 1).double()
    scaled = torch.cat([2.0 * coarse[:, :3], coarse[:, 3:] / 127.5 - 1.0], 1).transpose(1, 2)
    points = scaled @ model.cond_point_proj.weight.T + model.cond_point_proj.bias
    norm, linear = model.clip_embed[0], model.clip_embed[1]
    picture = (linear.weight @ norm.bias + linear.bias).expand(2, 3, -1)  # zeros normalised are the norm's bias
    expected = model.attend(x, t, torch.cat([picture, points], 1))
    torch.testing.assert_close(model(x, t, coarse), expected, rtol=1e-6, atol=1e-6)
