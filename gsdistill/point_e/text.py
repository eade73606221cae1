"""The text half of Point-E: a prompt to one CLIP embedding of length 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gsdistill.core.errors import BadFile, ModelNotFound, PromptError
from gsdistill.core.failing import failing_as
from gsdistill.models.hub import is_offline
from gsdistill.models.load import check_finite

__all__ = ["HUB_CLIP", "TextEncoder"]

HUB_CLIP = "openai/clip-vit-large-patch14"


class TextEncoder:
    """A CLIP text model with its projection, from a folder with ``text_encoder`` and ``tokenizer`` or from the hub."""

    def __init__(self, folder: Path | None, width: int, device: torch.device) -> None:
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        self._where = str(folder or HUB_CLIP)
        self._offline, self._device = folder is not None or is_offline(), device
        self._tokenizer = self._load(CLIPTokenizer.from_pretrained, "tokenizer" if folder else "")
        options = {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
        loader = partial(CLIPTextModelWithProjection.from_pretrained, **options)
        model, info = self._load(loader, "text_encoder" if folder else "")
        if info["missing_keys"] or info["mismatched_keys"]:
            lacking = min(map(str, info["missing_keys"] or info["mismatched_keys"]))
            raise BadFile(
                f"the text encoder in {self._where} lacks '{lacking}' in the shape that its config.json gives"
            )
        self._model = model.to(device).eval().requires_grad_(False)
        check_finite(self._model.state_dict(), f"the text encoder in {self._where}")
        if model.config.projection_dim != width:
            raise BadFile(
                f"the text encoder in {self._where} makes {model.config.projection_dim} numbers, "
                f"where the base model reads {width}"
            )

    def __call__(self, prompt: str) -> Float[Tensor, "1 D"]:
        """Return the embedding of ``prompt``, of length 1.

        Raises:
            PromptError: it has more tokens than the text encoder has positions.
            BadFile: tokenizer and text encoder do not fit each other.
        """
        with failing_as(BadFile, f"{self._where}: its tokenizer and text encoder do not fit each other"):
            limit = self._model.config.max_position_embeddings
            count = len(self._tokenizer(prompt, truncation=False).input_ids)
            if count > limit:
                raise PromptError(f"the prompt '{prompt}' has {count} tokens, Point-E reads {limit} at most")
            ids = self._tokenizer(prompt, padding="max_length", max_length=limit, return_tensors="pt").input_ids
            with torch.no_grad():
                return normalize(self._model(ids.to(self._device)).text_embeds.float(), dim=-1)

    def _load(self, loader: Callable[..., Any], part: str) -> Any:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        hint = (
            " It is fetched once from the Hugging Face hub; a folder with text_encoder and tokenizer needs no network."
        )
        advice = "" if Path(self._where).is_dir() else hint
        with failing_as(ModelNotFound, f"cannot load the text encoder {self._where}", advice):
            return loader(self._where, subfolder=part, local_files_only=self._offline)
