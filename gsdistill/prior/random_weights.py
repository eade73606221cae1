"""Published architectures with random weights: the sizes and shapes of the real model without a download.

``architectures/<name>`` is the model's folder in the diffusers layout, with its published configs alone. The class of
the model's family serves it, so that what is measured is what runs; only weights are drawn as the modules initialise
them, and embeddings of texts are random. It makes no pictures: it is for measuring speed and memory, which do not
depend on the values of weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.core.structs import Embedding
from gsdistill.models.card import ModelCard
from gsdistill.models.locate import other_vae
from gsdistill.models.pipelines import family_of
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.families.base import Origin
from gsdistill.prior.loading import leaf_of

__all__ = ["ALIASES", "architecture", "architectures", "random_prior", "random_prior_of"]

FOLDER = Path(__file__).with_name("architectures")
ALIASES = {"if": "deepfloyd-if"}
TOKENS = 77  # of a text, in all these families


def architectures() -> list[str]:
    """The names of all architectures, sorted; cards.yaml has them too."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def architecture(name: str) -> str:
    """The full name of the architecture ``name``, which may be an alias.

    Raises:
        ConfigError: there is no such architecture.
    """
    full, known = ALIASES.get(name, name), architectures()
    if full not in known:
        hint = did_you_mean(name, [*known, *ALIASES])
        raise ConfigError(f"random_weights = '{name}' is no architecture.{hint} Available: {', '.join(known)}")
    return full


def random_prior(name: str, device: torch.device, settings: ModelSettings = ModelSettings()) -> Prior:
    """The published architecture ``name`` (or its alias) on ``device``, in the precision of ``settings``.

    Weights and embeddings are the same every time on one device.

    Raises:
        ConfigError: there is no such architecture, or a setting has no meaning for random weights.
    """
    name = architecture(name)
    for setting in ("revision", "config"):
        if value := getattr(settings, setting):
            raise ConfigError(f"model.{setting} = '{value}' is of a model's files, and random weights have none")
    return random_prior_of(FOLDER / name, name, device, settings)


def random_prior_of(folder: Path, name: str, device: torch.device, settings: ModelSettings) -> Prior:
    """The same for any folder in the diffusers layout; only its configs are read."""
    vae = other_vae(folder, settings)
    return leaf_of(family_of(folder))(Origin(folder, ModelCard(name), settings, device, _model, _embeddings, vae))


def _model(kind: Any, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A frozen network of class ``kind`` of diffusers with the weights that its modules are initialised with."""
    config = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
    generators = [] if device.type in ("cpu", "meta") else [device.index or 0]
    with torch.random.fork_rng(generators, device_type=device.type if generators else "cpu"):
        torch.manual_seed(0)
        with torch.device(device), _default_dtype(dtype):
            model = kind.from_config(config)
    return model.eval().requires_grad_(False)


def _embeddings(config: Any, texts: Sequence[str]) -> list[Embedding]:
    """Standard normal embeddings in the shape that a network of that config reads; equal texts get equal ones."""
    width = config.encoder_hid_dim or config.cross_attention_dim
    pooled = 0
    if config.addition_embed_type == "text_time":  # the pooled text and six sizes
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    embeddings = []
    for text in texts:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
        tokens = torch.randn(1, TOKENS, width, generator=generator)
        embeddings.append(Embedding(tokens, torch.randn(1, pooled, generator=generator) if pooled else None))
    return embeddings


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of ``dtype`` in the block, so that a network in half precision is never held in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
