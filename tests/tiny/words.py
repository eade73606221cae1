"""A CLIP tokenizer that knows single letters."""

from __future__ import annotations

from transformers import CLIPTokenizer

LENGTH = 40


def tokenizer(length: int = LENGTH) -> CLIPTokenizer:
    """Every letter, and the comma, is a token; ``length`` positions."""
    letters = [*map(chr, range(97, 123)), ","]
    vocab = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocab)}, merges=[], model_max_length=length)
