"""The text encoder of a world's prior: CLIP's (arXiv 2103.00020), computed as transformers does, without its import.

The import would take two seconds in the first run with a new prompt; encoding takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding, layer_norm, linear, scaled_dot_product_attention

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import read_json

__all__ = ["SmallText"]

MOST_TOKENS = 4096  # that a text may have


class SmallText:
    """A frozen tokenizer and text encoder. A call returns the last hidden states, after the last norm."""

    def __init__(self, folder: Path, weights: Mapping[str, Tensor], device: torch.device) -> None:
        """``folder`` has ``tokenizer`` (tokenizer.json, and a config with the padding token) and ``text_encoder``.

        Raises:
            BadFile: a file cannot be read, or the config is of another kind of encoder.
        """
        from tokenizers import Tokenizer

        path, words = folder / "text_encoder" / "config.json", folder / "tokenizer" / "tokenizer.json"
        settings = words.with_name("tokenizer_config.json")
        with failing_as(BadFile, f"{path} is not the config of a text encoder"):
            self._config = SimpleNamespace(**read_json(path))
            kind = self._config.model_type, self._config.hidden_act
            self.limit = int(self._config.max_position_embeddings)  # tokens of a text, its start and end included
        if kind != ("clip_text_model", "quick_gelu"):
            raise BadFile(f"{path}: the encoder of a world's prior is a clip_text_model with quick_gelu, not {kind}")
        with failing_as(BadFile, f"{words} is not a tokenizer"):
            self._tokenizer: Any = Tokenizer.from_file(str(words))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        with failing_as(BadFile, f"{settings} does not say with which pad_token a text is filled up"):
            pad = read_json(settings)["pad_token"]
            self._pad = self._tokenizer.token_to_id(pad["content"] if isinstance(pad, dict) else pad)
        if self._pad is None:
            raise BadFile(f"{settings}: the pad_token '{pad}' is not in {words.name}")
        if not 2 <= self.limit <= MOST_TOKENS:
            raise BadFile(f"{path}: max_position_embeddings = {self.limit} is no number of tokens")
        self._weights = {
            name.removeprefix("text_model."): value.to(device, torch.float32) for name, value in weights.items()
        }
        self._device = device

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text, with start and end, without a limit of length."""
        return list(self._tokenizer.encode(text).ids)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "B L D"]:
        """Encode texts of at most L = ``limit`` tokens, padded to that length.

        Raises:
            BadFile: a weight is missing or has another shape, or the result is not finite.
        """
        ids = [self.tokens(text) for text in texts]
        with failing_as(BadFile, "the weights of the text encoder do not fit its config"):
            rows = [row + [self._pad] * (self.limit - len(row)) for row in ids]
            states = self._encode(torch.tensor(rows, device=self._device))
        if not states.isfinite().all():
            raise BadFile("the text encoder answers what is not finite")
        return states

    def _encode(self, ids: Tensor) -> Tensor:
        x = embedding(ids, self._weights["embeddings.token_embedding.weight"])
        x = x + self._weights["embeddings.position_embedding.weight"][: ids.shape[1]]
        for number in range(self._config.num_hidden_layers):
            layer = f"encoder.layers.{number}"
            h = self._norm(f"{layer}.layer_norm1", x)
            query, key, value = (
                self._linear(f"{layer}.self_attn.{part}_proj", h)
                .unflatten(-1, (self._config.num_attention_heads, -1))
                .transpose(1, 2)
                for part in "qkv"
            )
            seen = scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self._linear(f"{layer}.self_attn.out_proj", seen.transpose(1, 2).flatten(2))
            h = self._linear(f"{layer}.mlp.fc1", self._norm(f"{layer}.layer_norm2", x))
            x = x + self._linear(f"{layer}.mlp.fc2", h * torch.sigmoid(1.702 * h))
        return self._norm("final_layer_norm", x)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return layer_norm(x, weight.shape, weight, bias, self._config.layer_norm_eps)
