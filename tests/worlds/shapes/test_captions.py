import random
import re

import pytest

from gsdistill.core.errors import PromptError
from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.captions import (
    BOTTOMS,
    COLORS,
    RELATIONS,
    SHAPES,
    SYNONYMS,
    TOPS,
    VOCABULARY,
    caption,
    object_name,
    parse,
    unknown_words,
)
from gsdistill.worlds.shapes.world import every_layout

RED_CUBE = (Thing("red", "cube"),)
STACK = (Thing("red", "cube"), Thing("blue", "sphere"))


@pytest.mark.parametrize("names", every_layout(), ids=" on ".join)
def test_every_caption_parses_back_to_its_object(names):
    rng = random.Random(" ".join(names))
    for _ in range(300):
        things = tuple(Thing(rng.choice(list(COLORS)), name) for name in names)
        text = caption(things, rng)
        assert parse(text) == things, text
        assert not unknown_words(text)


def test_captions_use_the_whole_grammar_and_no_other_word():
    rng = random.Random(0)
    words, texts = set(), set()
    for _ in range(20000):
        top, bottom = (Thing(rng.choice(list(COLORS)), rng.choice(kinds)) for kinds in (TOPS, BOTTOMS))
        single = (Thing(rng.choice(list(COLORS)), rng.choice(SHAPES)),)
        text = caption(rng.choice(((top, bottom), single)), rng)
        texts.add(text)
        words.update(re.findall(r"\w+", text))
    assert words == set(VOCABULARY)
    assert all(any(f" {relation} " in text for text in texts) for relation in RELATIONS)


def test_vocabulary_holds_every_name_once_in_order():
    assert {*SHAPES, *COLORS, *SYNONYMS} <= set(VOCABULARY)
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert set(SYNONYMS.values()) <= set(SHAPES) and not set(SYNONYMS) & set(SHAPES)


def test_the_same_random_numbers_give_the_same_caption():
    assert [caption(STACK, random.Random(3)) for _ in range(3)] == [caption(STACK, random.Random(3))] * 3


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("a red cube", RED_CUBE),
        ("red cube", RED_CUBE),
        ("RED Cube!", RED_CUBE),
        ("  a\tred\ncube.  ", RED_CUBE),
        ("'a red box'", RED_CUBE),
        ("a photo of the red cube, high quality", RED_CUBE),
        ("a red cube on a plain background", RED_CUBE),
        ("a red cube, on a plain background", RED_CUBE),
        ("a red cube plain background", RED_CUBE),
        ("a red cube on a blue ball", STACK),
        ("3d render of one red cube on top of the blue sphere, 3d asset", STACK),
        ("red cube standing on blue sphere on a plain background", STACK),
        ("an orange cup", (Thing("orange", "mug"),)),
    ],
)
def test_case_punctuation_synonyms_and_frames_are_understood(prompt, things):
    assert parse(prompt) == things


@pytest.mark.parametrize("things", [RED_CUBE, STACK, (Thing("orange", "ring"),)])
def test_the_plain_name_parses_back(things):
    assert parse(object_name(things)) == things


def test_plain_names_read_well():
    assert object_name(STACK) == "a red cube on a blue sphere"
    assert object_name((Thing("orange", "star"),)) == "an orange star"


def message(prompt):
    with pytest.raises(PromptError) as caught:
        parse(prompt)
    return str(caught.value)


KNOWN = (
    "The shapes prior knows '[a] colour solid [on [a] colour solid]'; "
    "colours: red, green, blue, yellow, orange, purple, pink, cyan, white, black, brown; "
    "solids: sphere, cube, torus, cone, cylinder, capsule, octahedron, pyramid, star, cross, table, chair, mug, ring. "
    "Another prompt needs a large prior, for example --prior sd15: about 2.1 GB to download, and 9.7 GB of GPU memory."
)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a red cubes", "unknown word 'cubes' in the prompt 'a red cubes'. Did you mean 'cube'? "),
        ("a rad cube", "unknown word 'rad' in the prompt 'a rad cube'. Did you mean 'red'? "),
        ("a fluffy corgi", "unknown words 'fluffy', 'corgi' in the prompt 'a fluffy corgi'. "),
        ("a red café", "unknown word 'café' in the prompt 'a red café'. "),
        ("ein roter Würfel", "unknown words 'ein', 'roter', 'würfel' in the prompt 'ein roter Würfel'. "),
        ("красный куб", "unknown words 'красный', 'куб' in the prompt 'красный куб'. "),
        ("a red cube ❤", "unknown word '❤' in the prompt 'a red cube ❤'. "),
        ("a cube red", "the prompt 'a cube red' needs a colour and a solid, found 'cube red'. "),
        ("a cube", "the prompt 'a cube' needs a colour and a solid, found 'cube'. "),
        ("a red red cube", "the prompt 'a red red cube' needs a colour and a solid, found 'red red'. "),
        ("a red", "the prompt 'a red' needs a colour and a solid, found 'red'. "),
        ("", "the prompt '' needs a colour and a solid, found nothing. "),
        ("?!", "the prompt '?!' needs a colour and a solid, found nothing. "),
        ("a red cube on", "the prompt 'a red cube on' needs a colour and a solid, found nothing. "),
        ("a red cube on blue", "the prompt 'a red cube on blue' needs a colour and a solid, found 'blue'. "),
        ("a red cube blue ball", "cannot read 'blue ball' at the end of the prompt 'a red cube blue ball'. "),
        (
            "a red cube on a blue cube on a green cube",
            "cannot read 'on a green cube' at the end of the prompt 'a red cube on a blue cube on a green cube'. ",
        ),
    ],
)
def test_a_prompt_that_cannot_be_read_is_explained(prompt, text):
    assert message(prompt) == text + KNOWN


def test_solids_that_cannot_be_stacked_are_refused():
    assert message("a red star on a blue cube") == (
        "'star' in 'a red star on a blue cube' cannot be on top: "
        "allowed are sphere, cube, torus, cone, cylinder, octahedron, pyramid."
    )
    assert message("a red cube on a blue mug") == (
        "'mug' in 'a red cube on a blue mug' cannot be below: allowed are sphere, cube, torus, cylinder, table."
    )


def test_unknown_words_come_in_order_and_whole():
    assert unknown_words("a shiny red cube near a naïve sphere") == ["shiny", "near", "naïve"]
    assert unknown_words("a red cube") == []
