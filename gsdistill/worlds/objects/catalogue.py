"""What there is in the world of everyday objects: nouns by category, their other names, and the models that show them.

``words.yaml`` is written by hand, ``models.json`` by tools/objects/models.py from the meshes. A model is named by its
noun and a number ("chair_08"); up to three models show a noun.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gsdistill.disk.read import read_json
from gsdistill.settings.yaml import load_yaml

__all__ = ["MODELS", "Model", "Words", "meanings", "models", "models_of", "words"]

MODELS = Path(__file__).with_name("models.json")

Paint = Literal["none", "main", "all"]


@dataclass(frozen=True)
class Model:
    """One model of a noun."""

    name: str
    noun: str
    synonyms: tuple[str, ...]
    color: str  # the word that says best which colour it has; empty where none does
    paint: Paint  # which faces a colour word repaints; "all": the source has no colours, and it is of ``color`` else
    author: str
    licence: str
    source: str


@dataclass(frozen=True)
class Words:
    """What words.yaml says."""

    categories: Mapping[str, Sequence[str]]  # nouns
    said: Mapping[str, Sequence[str]]  # by noun: what people say for it
    near: Mapping[str, Sequence[str]]  # by category: words that no model shows
    tops: Sequence[str]  # nouns that may stand on another
    bottoms: Sequence[str]  # nouns that others may stand on
    first: Sequence[str]  # nouns that people type first
    usual: Mapping[str, str]  # colours of nouns of which no model has any


@functools.cache
def words() -> Words:
    """The words, read once."""
    return Words(**load_yaml(Path(__file__).with_name("words.yaml")))


@functools.cache
def models() -> Mapping[str, Model]:
    """All models by their names, read once."""
    rows = read_json(MODELS).items()
    return {name: Model(name=name, **{**row, "synonyms": tuple(row["synonyms"])}) for name, row in rows}


@functools.cache
def models_of(noun: str) -> tuple[Model, ...]:
    """The models that show a noun."""
    return tuple(model for model in models().values() if model.noun == noun)


@functools.cache
def meanings() -> Mapping[str, tuple[str, ...]]:
    """The nouns that each name may mean: a noun itself, first, and all nouns of which it is another name."""
    nouns: dict[str, dict[str, None]] = {model.noun: {model.noun: None} for model in models().values()}
    for model in models().values():
        for name in model.synonyms:
            nouns.setdefault(name, {})[model.noun] = None
    return {name: tuple(meant) for name, meant in nouns.items()}
