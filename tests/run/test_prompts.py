"""Prompts of files and of lists by name: what ships, ScaleDreamer's files, random shares, and what is refused."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.disk.places import slug
from gsdistill.run.prompts import LIBRARIES, PARTS, VARIABLE, prompt_lists, read_prompts, sampled

SHIPPED = {"att3d-2520": 2520, "luciddreamer-8": 8, "magic3d-15": 15}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a red cube\n\n  a blue ring \n", ("a red cube", "a blue ring")),
        (b"\xef\xbb\xbf# animals\r\na corgi, 50% off #1\r\n   # none\r\n", ("a corgi, 50% off #1",)),
        ("ein Gr\u00fcner W\u00fcrfel".encode(), ("ein Gr\u00fcner W\u00fcrfel",)),
    ],
)
def test_each_line_of_a_file_is_a_prompt(content, expected, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(content)
    assert read_prompts(tmp_path / "prompts.txt") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompt"),
        (b"# a cube\n \n", "holds no prompt"),
        (b"caf\xe9", "is not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_without_a_prompt_is_refused(content, message, tmp_path):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFile, match=message) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A folder with one of ScaleDreamer's files, as the program has them; returns what writes it."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def write(content: object, name: str = "dreamfusion-415") -> str:
        path = tmp_path / LIBRARIES[name][0]
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write


def test_every_list_is_shown_in_one_line_and_every_shipped_one_says_its_size():
    shown = prompt_lists()
    assert set(shown) == {*SHIPPED, *LIBRARIES} and list(shown) == sorted(shown)
    assert all(text.strip() and "\n" not in text and len(text) < 120 for text in shown.values())
    for name, size in SHIPPED.items():
        assert f"{size:,}" == shown[name].split()[0] and str(size) == name.rpartition("-")[2]


@pytest.mark.parametrize(("name", "size"), SHIPPED.items())
@pytest.mark.parametrize("part", ["", *PARTS])
def test_a_shipped_list_has_as_many_different_prompts_as_it_claims(name, size, part):
    prompts = read_prompts(f"{name}:{part}" if part else name)
    assert len(prompts) == (56 if (name, part) == ("att3d-2520", "val") else size)
    assert set(Counter(map(slug, prompts)).values()) == {1}  # each has a folder of its own in a sweep
    assert all(prompt == " ".join(prompt.split()) and prompt.isascii() for prompt in prompts)


def test_unseen_animals_are_none_that_training_has():
    train, val = (read_prompts(f"att3d-2520:{part}") for part in ("train", "val"))
    assert not set(train) & set(val) and read_prompts("att3d-2520:test") == train
    # facts of ScaleDreamer's file: the first two, what the hat does last, and the ends
    assert train[:2] == (
        "a squirrel riding a motorcycle wearing a leather jacket wearing a party hat",
        "a squirrel riding a motorcycle wearing a leather jacket wearing a sombrero",
    )
    assert train[-1] == "a bear wielding a katana wearing a suit wearing a baseball cap"
    assert (val[0], val[-1]) == (
        "a pig riding a bicycle made out of gold",
        "a pig riding a bike wearing medieval armor",
    )
    assert all(sum(prompt.startswith(who) for prompt in train) == 252 for who in ("a lion ", "an orangutan ", "a pig "))


def test_parts_of_a_long_list_are_read_from_the_file_in_its_order(library):
    library({"train": ["  a cat ", "a dog, 4k", "a cat", "", "eine \u00d6ldose"], "val": ["a cat"], "test": ["a cow"]})
    assert read_prompts("dreamfusion-415") == ("a cat", "a dog, 4k", "eine \u00d6ldose")
    assert read_prompts("dreamfusion-415:train") == read_prompts("dreamfusion-415")
    assert read_prompts("dreamfusion-415:val") == ("a cat",) and read_prompts("dreamfusion-415:test") == ("a cow",)


@pytest.mark.parametrize("content", [{}, {"train": []}, {"train": ["", " "]}, {"train": "a cat"}, {"train": ["a", 1]}])
def test_a_file_without_the_part_is_refused(content, library):
    path = library(content)
    with pytest.raises(BadFile) as caught:
        read_prompts("dreamfusion-415")
    assert str(caught.value) == f"{path}: expected a list of prompts under 'train'"


def test_a_broken_file_is_refused(library):
    library('["a cat"]')
    with pytest.raises(BadFile, match="expected a JSON object"):
        read_prompts("dreamfusion-415")


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("folder", [None, "", "here"])
def test_a_list_that_is_not_there_says_where_to_get_it(name, folder, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    if folder is not None:
        monkeypatch.setenv(VARIABLE, folder and str(tmp_path))
    now = f"which is now '{tmp_path}'" if folder else "which is not set"
    with pytest.raises(ConfigError) as caught:
        read_prompts(name)
    for told in (name, LIBRARIES[name][0], "https://github.com/theEricMa/ScaleDreamer, folder load", VARIABLE, now):
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "magic3d-51",
            ConfigError,
            "unknown list of prompts 'magic3d-51'. Did you mean 'magic3d-15'? Available: att3d",
        ),
        ("magic3d-51:val", ConfigError, "unknown list of prompts 'magic3d-51'. Did you mean 'magic3d-15'?"),
        ("dreamfusion", ConfigError, "unknown list of prompts 'dreamfusion'. Did you mean 'dreamfusion-415'?"),
        ("zebras", ConfigError, "luciddreamer-8, magic3d-15, or the path of a text file"),
        ("magic3d-15:vall", ConfigError, "'magic3d-15:vall' is no part of a list. Did you mean 'val'? Allowed: train,"),
        ("magic3d-15.txt", BadFile, "magic3d-15.txt: cannot be read: No such file"),
        ("./magic3d-15", BadFile, "magic3d-15: cannot be read: No such file"),
    ],
)
def test_near_misses_are_told_what_there_is(source, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        read_prompts(source)
    assert message in str(caught.value)


def test_a_name_is_the_list_whatever_lies_here_and_a_file_needs_no_ending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "magic3d-15").mkdir()
    (tmp_path / "mine").write_text("a cat\n")
    assert len(read_prompts("magic3d-15")) == 15 and read_prompts("mine") == ("a cat",)


def test_a_sample_is_reproducible_in_the_order_of_the_list_and_part_of_a_larger_one():
    prompts = read_prompts("att3d-2520")
    few, more = sampled(prompts, 10, seed=0), sampled(prompts, 100, seed=0)
    assert len(few) == 10 and len(set(more)) == 100 and set(few) < set(more)
    assert [prompts.index(prompt) for prompt in more] == sorted(prompts.index(prompt) for prompt in more)
    assert sampled(prompts, 100, seed=0) == more != sampled(prompts, 100, seed=1)
    assert sampled(prompts, 2520, seed=3) == prompts
    # seed 0 is 0.844, 0.758, 0.421, 0.259, 0.511, 0.405, 0.784, 0.303, 0.477, 0.583 in every Python
    assert sampled("abcdefghij", 3, seed=0) == ("d", "f", "h")


def test_every_prompt_is_drawn_equally_often():
    counts = Counter(prompt for seed in range(2000) for prompt in sampled("abcdefgh", 2, seed))
    assert sum(counts.values()) == 4000
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 24.3  # chi-square of 7 degrees, p = 0.001
