"""How families read texts: by CLIP, or by a language model that is loaded for one call."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from gsdistill.core.errors import ModelNotFound
from gsdistill.models.load import load_model, load_part
from gsdistill.prior.families.base import Origin, Pretrained

__all__ = ["load_reader", "read_by_clip"]


def load_reader(kinds: tuple[Any, Any], origin: Origin, last: str = "") -> tuple[Any, Any]:
    """Load the tokenizer and the encoder of a language model that overflows in float16; ``kinds`` are their classes.

    They are the parts ``tokenizer<last>`` and ``text_encoder<last>``. The encoder's precision is float32 on a CPU,
    bfloat16 elsewhere.

    Raises:
        ModelNotFound: one of them cannot be loaded, or a package that reads the tokenizer is missing.
    """
    words = origin.folder / f"tokenizer{last}"
    missing = [name for name in ("sentencepiece", "google.protobuf") if not _installed(name)]
    if missing and not (words / "tokenizer.json").is_file() and any(words.glob("*.model")):
        raise ModelNotFound(f"{words} holds a SentencePiece model; to read it, `pip install sentencepiece protobuf`")
    precision = torch.float32 if origin.device.type == "cpu" else torch.bfloat16
    return (
        load_part(kinds[0].from_pretrained, origin.folder, words.name),
        load_model(kinds[1], origin.folder, f"text_encoder{last}", precision, origin.device),
    )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # google.protobuf without google
        return False


def read_by_clip(prior: Pretrained, kind: Any, last: str, texts: Sequence[str], cut: bool = False) -> Any:
    """The output of the folder's ``text_encoder<last>``, of class ``kind``, for ``texts``, with all hidden states.

    Raises:
        PromptError: a text is longer than the encoder reads, and ``cut`` is not set.
    """
    from transformers import CLIPTokenizer

    part = f"text_encoder{last}"
    tokenizer = load_part(CLIPTokenizer.from_pretrained, prior.folder, f"tokenizer{last}")
    encoder = prior.with_lora(load_model(kind, prior.folder, part, torch.float32, prior.device), part)
    limit = encoder.config.max_position_embeddings
    if not cut:
        prior.check_length(tokenizer, texts, limit)
    options = {"padding": "max_length", "truncation": cut, "max_length": limit, "return_tensors": "pt"}
    return encoder(tokenizer(list(texts), **options).input_ids.to(prior.device), output_hidden_states=True)
