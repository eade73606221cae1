"""Prompts of everyday objects: what they name, what the priors read, and how a mistake is answered."""

from __future__ import annotations

import pytest

from gsdistill.core.errors import PromptError
from gsdistill.worlds.base import Thing
from gsdistill.worlds.objects import Objects
from gsdistill.worlds.objects.captions import COLORS, SOLIDS, nouns, parse
from gsdistill.worlds.objects.catalogue import meanings, models, models_of, words

WORLD = Objects()


@pytest.mark.parametrize(
    ("prompt", "things", "read"),
    [
        ("a burger", [("", "burger")], "a burger"),
        ("Burger!", [("", "burger")], "a burger"),
        ("a photo of the red chair.", [("red", "chair")], "a photo of a red chair"),
        ("a hamburger", [("", "hamburger")], "a hamburger"),
        ("two-word names: no", None, None),
        ("a puppy", [("", "dog")], "a dog"),
        ("couch", [("", "couch")], "a couch"),
        ("an orange", [("", "orange")], "an orange"),
        ("an orange on a table", [("", "orange"), ("", "table")], "an orange on a table"),
        ("an orange car", [("orange", "car")], "an orange car"),
        ("an orange tree", [("", "orange tree")], "an orange tree"),
        ("a gray sofa", [("grey", "sofa")], "a grey sofa"),
        ("a jack-o-lantern", [("", "jack-o-lantern")], "a jack-o-lantern"),
        ("A T-Rex", [("", "t-rex")], "a t-rex"),
        ("a mug sitting on a blue chair", [("", "mug"), ("blue", "chair")], "a mug sitting on a blue chair"),
        ("a red ball", [("red", "sphere")], "a red sphere"),  # no ball among the models can be red
        ("a ball", [("", "ball")], "a ball"),
        ("green cube on top of red cone", None, None),
        ("a green cube on red torus", [("green", "cube"), ("red", "torus")], "a green cube on a red torus"),
        ("a white zebra", [("white", "zebra")], "a white zebra"),  # its own colour
    ],
)  # fmt: skip
def test_a_prompt_names_its_object(prompt, things, read):
    if things is None:
        with pytest.raises(PromptError):
            parse(prompt)
        return
    assert parse(prompt) == (tuple(Thing(*thing) for thing in things), read)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("a burgr", "Did you mean 'burger'"),
        ("a lion", "there is no mesh of 'lion', in the prompt 'a lion'. Known animals: .*cat, .*wolf"),
        ("a blue banana", "'banana' in 'a blue banana' cannot be blue: .* Say 'a banana'"),
        ("a sphere", "no colour of its own: name one, as in 'a red sphere'"),
        ("a castle on a table", "'castle' in 'a castle on a table' cannot be on top: allowed are"),
        ("a mug on a castle", "'castle' in 'a mug on a castle' cannot be below: allowed are"),
        ("a red", "needs a noun, such as 'a burger'"),
        ("a burger with fries", "cannot read 'with fries' at the end"),
        ("a mug on a table on a chair", "cannot read 'on a chair' at the end"),
        ("", "needs a noun"),
    ],
)
def test_a_mistake_is_answered_with_what_helps(prompt, answer):
    with pytest.raises(PromptError, match=answer):
        parse(prompt)


def test_every_name_is_a_prompt_and_is_read_as_one():
    for name in [*meanings(), *(name for said in words().said.values() for name in said)]:
        ((thing,), read) = parse(name)
        assert nouns(thing.shape) and parse(read) == ((thing,), read)


def test_a_name_of_several_nouns_means_any_of_them():
    (dinosaur,) = WORLD.parse("a dinosaur")
    assert {"tyrannosaurus", "stegosaurus"} < set(nouns(dinosaur.shape))
    assert WORLD.agrees(WORLD.parse("a stegosaurus"), (dinosaur,))
    assert not WORLD.agrees(WORLD.parse("a cat"), (dinosaur,))
    assert {layout[0].rpartition("_")[0] for layout in WORLD.meant((dinosaur,))} == {
        noun.replace(" ", "_") for noun in nouns("dinosaur")
    }


def test_the_lists_agree_with_each_other():
    listed = [noun for group in words().categories.values() for noun in group]
    assert len(listed) == len(set(listed)) == 312 and set(listed) == {model.noun for model in models().values()}
    assert {*words().tops, *words().bottoms, *words().said, *words().usual} <= set(listed)
    assert all(1 <= len(models_of(noun)) <= 3 for noun in listed)
    assert all(model.color in COLORS or model.paint != "all" for model in models().values())
    assert not set(SOLIDS) & set(meanings())
    assert {word for group in words().near.values() for word in group}.isdisjoint(meanings())


def test_a_colour_chooses_the_models_that_can_have_it_or_have_it():
    assert WORLD.meant(WORLD.parse("a white zebra")) == [("zebra_01",)]
    meant = {layout[0] for layout in WORLD.meant(WORLD.parse("a red car"))}
    assert meant == {
        model.name + (" in any colour" if model.paint != "none" else "")
        for noun in nouns("car")
        for model in models_of(noun)
        if model.paint != "none" or model.color == "red"
    }
    assert {"car_01", "car_05 in any colour"} <= meant


def test_what_stands_on_something_may_stand_there():
    things = WORLD.parse("a lamp on a table")
    rivals = set(WORLD.rivals(things))
    assert WORLD.meant(things) and all(layout in rivals for layout in WORLD.meant(things))


def test_a_negative_prompt_is_any_words_of_the_world():
    assert WORLD.plain("Gray, a Burger!") == ("grey a burger", [])
    assert WORLD.plain("a blurry burger")[1] == ["blurry"]
