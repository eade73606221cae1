"""The caption grammar of the shapes world, and the parser that turns a prompt back into its object.

    caption := [prefix] thing [relation thing] ["," suffix]
    thing   := [determiner] colour solid

"a 3d render of a red cube on top of the blue sphere, studio lighting" is one object of two parts. The parser accepts
every caption of the grammar, ignores case and punctuation, and its errors name unknown words.
"""

from __future__ import annotations

import random
import re

from gsdistill.core.errors import PromptError, did_you_mean
from gsdistill.worlds.base import Thing

__all__ = [
    "BOTTOMS", "COLORS", "RELATIONS", "SHAPES", "SYNONYMS", "TOPS", "VOCABULARY",
    "caption", "normalised", "object_name", "parse", "unknown_words",
]  # fmt: skip

SHAPES = (
    "sphere", "cube", "torus", "cone", "cylinder", "capsule", "octahedron",
    "pyramid", "star", "cross", "table", "chair", "mug", "ring",
)  # fmt: skip
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.11, 0.11),
    "green": (0.12, 0.63, 0.16),
    "blue": (0.15, 0.25, 0.90),
    "yellow": (0.96, 0.87, 0.13),
    "orange": (0.97, 0.50, 0.08),
    "purple": (0.53, 0.15, 0.72),
    "pink": (0.98, 0.50, 0.68),
    "cyan": (0.14, 0.80, 0.88),
    "white": (0.97, 0.97, 0.97),
    "black": (0.08, 0.08, 0.08),
    "brown": (0.48, 0.27, 0.12),
}
SYNONYMS = {"ball": "sphere", "box": "cube", "donut": "torus", "cup": "mug"}
TOPS = ("sphere", "cube", "torus", "cone", "cylinder", "octahedron", "pyramid")
BOTTOMS = ("sphere", "cube", "torus", "cylinder", "table")
RELATIONS = ("on", "on top of", "sitting on", "standing on", "stacked on")
_DETERMINERS = ("a", "an", "the", "one")
_PREFIXES = (
    "", "a photo of", "a picture of", "an image of", "a 3d render of", "3d render of", "a 3d model of",
    "a rendering of", "a high quality photo of", "a high quality 3d render of", "a simple 3d model of",
)  # fmt: skip
_SUFFIXES = ("", "high quality", "studio lighting", "plain background", "3d asset", "on a plain background")
_WORD = re.compile(r"[^\W_]+|[^\s\w.,!?;:'\"()-]|_")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


VOCABULARY = tuple(
    sorted(
        {*SHAPES, *COLORS, *SYNONYMS, *_DETERMINERS}
        | {word for phrase in (*_PREFIXES, *_SUFFIXES, *RELATIONS) for word in _words(phrase)}
    )
)


def object_name(things: tuple[Thing, ...]) -> str:
    """The plainest caption of an object: "a red cube on a blue sphere"."""
    return " on ".join(f"{_article(t.color)} {t.color} {t.shape}" for t in things)


def caption(things: tuple[Thing, ...], rng: random.Random) -> str:
    """A random caption of an object, one of the many that the grammar has, drawn with ``rng``."""
    relation = rng.choice(RELATIONS) if rng.random() < 0.6 else "on"
    text = f" {relation} ".join(_phrase(thing, rng) for thing in things)
    prefix = rng.choice(_PREFIXES) if rng.random() < 0.6 else ""
    suffix = rng.choice(_SUFFIXES) if rng.random() < 0.25 else ""
    return f"{prefix} {text}".strip() + (f", {suffix}" if suffix else "")


def parse(prompt: str) -> tuple[Thing, ...]:
    """Return the object that ``prompt`` describes.

    Raises:
        PromptError: a word is unknown, or the known words do not form a caption of the grammar.
    """
    unknown = unknown_words(prompt)
    if unknown:
        raise PromptError(_unknown_message(prompt, unknown))
    words = _words(prompt)
    for prefix in sorted((_words(p) for p in _PREFIXES if p), key=len, reverse=True):
        if words[: len(prefix)] == prefix:
            words = words[len(prefix) :]
            break
    first, words = _take_thing(words, prompt)
    things = [first]
    relation = next((r for r in sorted(map(_words, RELATIONS), key=len, reverse=True) if words[: len(r)] == r), None)
    if relation and words[len(relation) :] != _words("a plain background"):
        second, words = _take_thing(words[len(relation) :], prompt)
        things.append(second)
    if words and words not in [_words(s) for s in _SUFFIXES]:
        raise PromptError(f"cannot read '{' '.join(words)}' at the end of the prompt '{prompt}'. {_grammar()}")
    if len(things) == 2:
        _check_stack(things[0], things[1], prompt)
    return tuple(things)


def normalised(prompt: str) -> str:
    """The prompt as the grammar would write it: lower case, no punctuation but the comma before a suffix."""
    parts = (" ".join(_words(part)) for part in prompt.split(","))
    return ", ".join(part for part in parts if part)


def unknown_words(prompt: str) -> list[str]:
    """The words of ``prompt`` that the shapes world does not know, in order."""
    return [word for word in _words(prompt) if word not in VOCABULARY]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _phrase(thing: Thing, rng: random.Random) -> str:
    names = [thing.shape, *(s for s, shape in SYNONYMS.items() if shape == thing.shape)]
    name = rng.choice(names) if rng.random() < 0.3 else thing.shape
    determiner = _article(thing.color) if rng.random() < 0.7 else rng.choice(("", "the", "one", "a"))
    return f"{determiner} {thing.color} {name}".strip()


def _take_thing(words: list[str], prompt: str) -> tuple[Thing, list[str]]:
    rest = words[1:] if words and words[0] in _DETERMINERS else words
    if len(rest) < 2 or rest[0] not in COLORS or SYNONYMS.get(rest[1], rest[1]) not in SHAPES:
        words_there = f"'{' '.join(rest[:2])}'" if rest else "nothing"
        raise PromptError(f"the prompt '{prompt}' needs a colour and a solid, found {words_there}. {_grammar()}")
    return Thing(rest[0], SYNONYMS.get(rest[1], rest[1])), rest[2:]


def _check_stack(top: Thing, bottom: Thing, prompt: str) -> None:
    for thing, allowed, place in ((top, TOPS, "on top"), (bottom, BOTTOMS, "below")):
        if thing.shape not in allowed:
            raise PromptError(f"'{thing.shape}' in '{prompt}' cannot be {place}: allowed are {', '.join(allowed)}.")


def _grammar() -> str:
    return (
        f"The shapes prior knows '[a] colour solid [on [a] colour solid]'; colours: {', '.join(COLORS)}; "
        f"solids: {', '.join(SHAPES)}. Another prompt needs a large prior, for example --prior sd15: about 2.1 GB to "
        "download, and 9.7 GB of GPU memory."
    )


def _unknown_message(prompt: str, unknown: list[str]) -> str:
    plural = "s" if len(unknown) > 1 else ""
    listed = ", ".join(f"'{word}'" for word in unknown)
    hint = did_you_mean(unknown[0], [*COLORS, *SHAPES, *SYNONYMS])
    return f"unknown word{plural} {listed} in the prompt '{prompt}'.{hint} {_grammar()}"
