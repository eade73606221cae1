"""No text becomes a path that it should not: prompts, names of models and of files, in folders and inside files."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gsdistill.core.errors import UserError
from gsdistill.disk.cache import file_name
from gsdistill.disk.places import slug
from gsdistill.disk.write import write_bytes
from gsdistill.mesh.encode import Model, encoded, material_name
from gsdistill.run.config import RunConfig
from gsdistill.settings.config import from_dict
from gsdistill.sweep.plan import folder
from gsdistill.sweep.settings import SweepSettings

LONGEST = 255  # bytes of a part of a path, in all common file systems
EVERYTHING = st.text(st.characters())  # with halves of pairs, controls and what is not assigned yet
HOSTILE = st.sampled_from(
    ["..", "../../etc/passwd", "/etc/passwd", "~", "-rf", "a\x00b", "a/b", "a\\b", "C:\\x", ".", "", " ", "\n", "con",
     "x" * 10_000, "杯" * 10_000, "\u202e", "\ud800", "%2e%2e%2f", "$(id)", "`id`", "a;b", "*", "?"]
)  # fmt: skip
TEXTS = st.one_of(EVERYTHING, HOSTILE, st.builds(str.__add__, HOSTILE, EVERYTHING))


def is_one_plain_part(name: str) -> bool:
    return PurePosixPath(name).parts == (name,) and name not in (".", "..") and len(name.encode()) <= LONGEST


@given(TEXTS, st.sampled_from([40, 80]))
def test_a_slug_is_one_short_part_of_plain_letters(text, longest):
    name = slug(text, longest)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and len(name) <= longest
    assert slug(name, longest) == name


SIMILAR = st.text("aA\u00e9 -_!\u676f\ufb01\u00b2", max_size=4)  # e with an accent, a cup, a ligature, a small 2


@given(SIMILAR, SIMILAR)
@example("\ufb01", "\u676f\ufb01")  # one letter that is spelt with two makes up for none that is lost
def test_what_differs_by_more_than_case_and_signs_has_another_slug(one, other):
    """Those that share one share a folder, where the second run is refused."""
    if slug(one) == slug(other):
        assert words(one) == words(other)


def words(text: str) -> list[str]:
    """Letters and numbers as a reader who knows no accents, ligatures and capitals tells them."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if unicodedata.category(letter)[0] != "M")
    return re.findall(r"\w+", plain.casefold().replace("_", " "))


@settings(deadline=None)
@given(TEXTS)
def test_the_folder_of_any_prompt_is_below_outputs(text):
    parts = replace(from_dict(RunConfig, {"prompt": "x"}), prompt=text if text.strip() else "x").folder.parts
    assert parts[0] == "outputs" and len(parts) == 3 and all(map(is_one_plain_part, parts))


def test_a_prompt_of_ten_thousand_letters_has_a_folder(tmp_path):
    settings = from_dict(SweepSettings, {"prompts": ["a red torus"]})
    for prompt in ("a chair " * 1_250, "杯" * 10_000, "\u0301" * 10_000):
        for place in (from_dict(RunConfig, {"prompt": prompt}).folder, folder(settings, "cds", prompt, 0, 300, 0)):
            write_bytes(tmp_path / place / "x", b"")
            assert tmp_path in (tmp_path / place / "x").resolve().parents


@pytest.mark.parametrize("name", ["../x", "/x", "cds/../../x", "", "."])
def test_methods_and_inits_are_names_of_ours(name):
    for setting in ("method", "init"):
        with pytest.raises(UserError, match=setting):
            from_dict(RunConfig, {"prompt": "x", setting: name})


@given(TEXTS)
def test_names_in_caches_are_hashes(text):
    assert re.fullmatch(r"[0-9a-f]{32}\.safetensors", file_name(text))


# Inside files


def model(side: int | None = 4) -> Model:
    """One triangle, with a picture of so many pixels."""
    corners = torch.eye(3)
    picture = None if side is None else np.zeros((side, side, 3), np.uint8)
    return Model(
        corners, corners, torch.tensor([[0, 1, 2]]), corners, None if side is None else corners[:, :2], picture
    )


NAMES = [
    "a\nusemtl evil\nv 9 9 9",
    "a\rb",
    "a b#c",
    "-clamp on",
    "..",
    "a\u2028v 9 9 9",
    "杯",
    "$(id)",
    "a\x00b",
    "\x1b[2J",
]


@pytest.mark.parametrize("stem", NAMES, ids=ascii)
@pytest.mark.parametrize("side", [4, None], ids=["texture", "colours"])
def test_the_name_of_a_mesh_adds_no_line_to_it(stem, side):
    usual, found = (encoded(model(side), Path(f"/out/{name}.obj")) for name in ("mesh", stem))
    assert [keys_of(data) for path, data in found.items() if path.suffix != ".png"] == [
        keys_of(data) for path, data in usual.items() if path.suffix != ".png"
    ]
    assert {path.parent for path in found} == {Path("/out")}
    name = material_name(Path(f"/out/{stem}.obj"))
    assert re.fullmatch(r"[\w.-]+", name) and is_one_plain_part(f"{name}.mtl") and not name.startswith("-")


def keys_of(data: bytes) -> list[str]:
    """The first word of each line, as any reader would part them."""
    return [line.split()[0] if line.split() else "" for line in data.decode().splitlines()]
