"""A Point-E of a few hundred random numbers, in the layout of the shipped one and in OpenAI's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gsdistill.disk.places import data_path
from gsdistill.disk.write import write_json
from gsdistill.point_e import model as module
from gsdistill.point_e.card import BaseCard, Card, UpsamplerCard
from gsdistill.point_e.sampler import Sampling
from gsdistill.point_e.transformer import Size, TextPointDiffusionTransformer, UpsamplePointDiffusionTransformer
from gsdistill.settings.config import to_dict

SMALL = Size(width=8, layers=1, heads=2, outputs=12)
FAST = Sampling(steps=3, sigma_max=20.0, s_churn=1.0, guidance_scale=2.0)
CARD = Card(
    "tiny",
    world="shapes",
    base=BaseCard(SMALL, text_width=6, points=9, timesteps=64, sampling=FAST),
    upsampler=UpsamplerCard(
        SMALL,
        grid_tokens=2,
        grid_width=4,
        points=14,
        timesteps=64,
        sampling=replace(FAST, s_churn=0.0, guidance_scale=0.0),
    ),
)


def networks() -> tuple[TextPointDiffusionTransformer, UpsamplePointDiffusionTransformer]:
    torch.manual_seed(0)
    return TextPointDiffusionTransformer(SMALL, 6), UpsamplePointDiffusionTransformer(SMALL, 2, 4)


def write_text(folder: Path, width: int = 6) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    shutil.copytree(data_path("assets", "shapes-prior") / "tokenizer", folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=24, projection_dim=width, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder / "text_encoder")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``own`` and ``published``."""
    root = tmp_path_factory.mktemp("point-e")
    base, upsampler = (network.state_dict() for network in networks())
    write_text(root / "own")
    write_json(root / "own" / "config.json", to_dict(CARD))
    save_file(base, root / "own" / "base.safetensors")
    save_file(upsampler, root / "own" / "upsampler.safetensors")
    write_text(root / "published")
    torch.save(base, root / "published" / module.BASE_FILE)
    torch.save(upsampler, root / "published" / module.UPSAMPLER_FILE)
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A folder of our own layout, to be spoilt."""
    return Path(shutil.copytree(made / "own", tmp_path / "own"))


@pytest.fixture
def published(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with OpenAI's file names; the published sizes are the tiny ones here."""
    monkeypatch.setattr(module, "OPENAI", replace(CARD, name="openai", world=None, front="-y"))
    return Path(shutil.copytree(made / "published", tmp_path / "published"))
