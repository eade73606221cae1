"""The caption grammar of everyday objects, and the parser that turns a prompt back into what it names.

    caption := [prefix] thing [relation thing]
    thing   := [determiner] [colour] noun

A noun is one of up to four words, or another name of one; a solid of the shapes world needs a colour. The parser
ignores case and punctuation, and answers a word that it does not know with what is near to it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from gsdistill.core.errors import PromptError, did_you_mean, few
from gsdistill.worlds.base import Thing
from gsdistill.worlds.objects.catalogue import meanings, models_of, words
from gsdistill.worlds.shapes import captions as shapes

__all__ = ["COLORS", "PREFIXES", "RELATIONS", "SOLIDS", "caption", "is_solid", "nouns", "parse", "plain", "vocabulary"]

COLORS: dict[str, tuple[float, float, float]] = {**shapes.COLORS, "grey": (0.5, 0.5, 0.5)}
PREFIXES = ("", "a photo of", "a picture of", "a 3d render of", "a 3d model of", "a low poly 3d model of")
RELATIONS = ("on", "on top of", "sitting on", "standing on")
DETERMINERS = ("a", "an", "the", "one")
SPELLINGS = {"gray": "grey", "violet": "purple", "turquoise": "cyan", "golden": "yellow"}
SOLIDS = ("sphere", "cube", "torus", "cone", "cylinder", "capsule", "octahedron", "cross")  # the others are nouns
_WORD = re.compile(r"[^\W_]+")
_EXAMPLES = "'a burger', 'a red chair', 'a teddy bear on a crate'"


def is_solid(shape: str) -> bool:
    """Whether a thing's shape is a solid of the shapes world, not a noun."""
    return shape in SOLIDS


def nouns(name: str) -> tuple[str, ...]:
    """The nouns that a name may mean; none of a solid."""
    return () if is_solid(name) else meanings()[name]


def caption(things: tuple[Thing, ...]) -> str:
    """The plainest caption: "a teddy bear on a blue crate"."""
    return " on ".join(_with_article(f"{thing.color} {thing.shape}".strip()) for thing in things)


def parse(prompt: str) -> tuple[tuple[Thing, ...], str]:
    """Return what ``prompt`` names, the upper thing first, and the same in the words that the priors read.

    Raises:
        PromptError: a word is unknown, the known words form no caption, a colour that no model of the noun can take,
            a noun that has no colour of its own without one, or a stack that is not of the world.
    """
    left = [SPELLINGS.get(word, word) for word in _split(prompt)]
    prefix, left = _begin(left, PREFIXES)
    first, left = _take(left, prompt)
    things, relation = [first], ""
    if left:
        relation, left = _begin(left, RELATIONS)
        if not relation:
            raise PromptError(f"cannot read '{' '.join(left)}' at the end of the prompt '{prompt}'. {_grammar()}")
        second, left = _take(left, prompt)
        things.append(second)
    if left:
        raise PromptError(f"cannot read '{' '.join(left)}' at the end of the prompt '{prompt}'. {_grammar()}")
    things = [_in_color(thing, prompt) for thing in things]
    if len(things) == 2:
        _check_stack(*things, prompt)
    read = f" {relation} ".join(caption((thing,)) for thing in things)
    return tuple(things), f"{prefix} {read}".strip()


def plain(text: str) -> tuple[str, list[str]]:
    """The words of any text, without case and punctuation, and those that no caption has."""
    words = [SPELLINGS.get(word, word) for word in _split(text)]
    return " ".join(words), [word for word in words if word not in vocabulary()]


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Every word of the captions that priors read, sorted."""
    texts = [*meanings(), *SOLIDS, *shapes.SYNONYMS, *COLORS, *PREFIXES, *RELATIONS, *DETERMINERS]
    return tuple(sorted({word for text in texts for word in _split(text)}))


def _split(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("'", ""))


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _begin(left: list[str], phrases: Iterable[str]) -> tuple[str, list[str]]:
    """The longest of the phrases that the words begin with, and the words behind it."""
    known = [phrase for phrase in phrases if left[: len(phrase.split())] == phrase.split()]
    longest = max(known, key=len, default="")
    return longest, left[len(longest.split()) :]


@functools.cache
def _names() -> Mapping[tuple[str, ...], str]:
    """What the priors read for every name, by the name's words, without the hyphens that some are spelt with."""
    read = {name: name for name in SOLIDS} | {name: solid for name, solid in shapes.SYNONYMS.items() if solid in SOLIDS}
    read |= {name: noun for noun, said in words().said.items() for name in said}
    read |= {name: name for name in meanings()}
    return {tuple(_split(name)): shown for name, shown in read.items()}


def _take(left: list[str], prompt: str) -> tuple[Thing, list[str]]:
    """The thing that the words begin with, and the words behind it."""
    rest = left[1:] if left and left[0] in DETERMINERS else left
    color = ""
    follows = _length(rest) < 2 and (_length(rest[1:]) or not _length(rest))  # not in "an orange", "an orange tree"
    if rest and rest[0] in COLORS and follows:
        color, rest = rest[0], rest[1:]
    if not (length := _length(rest)):
        raise PromptError(_unknown(rest, prompt))
    return Thing(color, _names()[tuple(rest[:length])]), rest[length:]


def _length(rest: Sequence[str]) -> int:
    """How many words the longest name has that the words begin with; 0 where there is none."""
    return next((n for n in range(4, 0, -1) if len(rest) >= n and tuple(rest[:n]) in _names()), 0)


def _check_stack(top: Thing, bottom: Thing, prompt: str) -> None:
    if is_solid(top.shape) and is_solid(bottom.shape):
        allowed = {"on top": (top, shapes.TOPS), "below": (bottom, shapes.BOTTOMS)}
    else:
        allowed = {"on top": (top, words().tops), "below": (bottom, words().bottoms)}
    for place, (thing, shown) in allowed.items():
        if thing.shape not in shown and not set(nouns(thing.shape)) & set(shown):
            raise PromptError(f"'{thing.shape}' in '{prompt}' cannot be {place}: allowed are {few(shown, 12)}.")


def _in_color(thing: Thing, prompt: str) -> Thing:
    """The thing as it can be had: "a red ball" is a sphere, for the balls among the models cannot be red.

    Raises:
        PromptError: nothing of that name can have the colour, or a solid has none.
    """
    models = [model for noun in nouns(thing.shape) for model in models_of(noun)]
    if not (thing.color or models):
        raise PromptError(
            f"'{thing.shape}' in '{prompt}' has no colour of its own: name one, as in 'a red {thing.shape}'; colours: "
            f"{', '.join(COLORS)}."
        )
    if not thing.color or not models or any(m.paint != "none" or m.color == thing.color for m in models):
        return thing
    if (solid := shapes.SYNONYMS.get(thing.shape)) in SOLIDS:
        return Thing(thing.color, str(solid))
    raise PromptError(
        f"'{thing.shape}' in '{prompt}' cannot be {thing.color}: it has colours of its own. Say "
        f"'{_with_article(thing.shape)}'."
    )


def _unknown(rest: list[str], prompt: str) -> str:
    """What to say where no name begins; the words of one name stand before a relation or the end."""
    stop = next((i for i, word in enumerate(rest) if word in ("on", "sitting", "standing")), len(rest))
    name = " ".join(rest[:stop])
    if not name:
        return f"the prompt '{prompt}' needs a noun, such as {_EXAMPLES}. {_grammar()}"
    category = next((key for key, near in words().near.items() if name in near), None)
    if category:
        known = words().categories[category]
        return f"there is no mesh of '{name}', in the prompt '{prompt}'. Known {category}: {few(known, 40)}."
    hint = did_you_mean(name, [" ".join(known) for known in _names()])
    return f"'{name}' in the prompt '{prompt}' is not known.{hint} {_grammar()}"


def _grammar() -> str:
    count = sum(map(len, words().categories.values()))
    return (
        f"The objects prior knows '[a] [colour] noun [on [a] [colour] noun]' of {count} nouns, such as {_EXAMPLES}; "
        "gsdistill list vocabulary shows them. Another prompt needs a large prior, for example --prior sd15."
    )
