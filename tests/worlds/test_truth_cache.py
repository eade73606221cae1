from pathlib import Path

import pytest
import torch

from gsdistill.disk.places import cache_folder
from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.base import Buffers, world_named
from gsdistill.worlds.shapes import Shapes

WORLD, OBJECTS = world_named("shapes"), [("mug",), ("cone", "cube")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def equal(a: Buffers, b: Buffers) -> bool:
    return torch.equal(a.shade, b.shade) and torch.equal(a.coverage, b.coverage)


def test_what_is_kept_is_what_was_traced_bit_for_bit(monkeypatch):
    cameras = orbit(3, 24)
    truth = [WORLD.trace(parts, cameras, 2) for parts in OBJECTS]
    assert all(map(equal, WORLD.buffers(OBJECTS, cameras, 2), truth))
    monkeypatch.setattr(Shapes, "trace", None)  # cannot be called
    assert all(map(equal, WORLD.buffers(OBJECTS, cameras, 2), truth))


def test_anything_that_changes_the_pictures_is_another_file():
    count = lambda: len(list(cache_folder("truth").iterdir()))  # noqa: E731
    WORLD.buffers(OBJECTS[:1], orbit(2, 16))
    for number, call in enumerate(
        [(OBJECTS[1:], orbit(2, 16)), (OBJECTS[:1], orbit(2, 16, 30.0)), (OBJECTS[:1], orbit(2, 17)),
         (OBJECTS[:1], orbit(2, 16), 2)], start=2):  # fmt: skip
        assert equal(WORLD.buffers(*call)[0], WORLD.trace(call[0][0], *call[1:], *(3,) * (len(call) < 3)))
        assert count() == number


def test_a_broken_file_is_made_anew():
    truth = WORLD.buffers(OBJECTS, orbit(2, 16))
    (file,) = cache_folder("truth").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert all(map(equal, WORLD.buffers(OBJECTS, orbit(2, 16)), truth))
    assert file.stat().st_size > 0


def test_an_account_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert equal(WORLD.buffers(OBJECTS[:1], orbit(2, 16))[0], WORLD.trace(OBJECTS[0], orbit(2, 16), 3))


def test_other_sources_draw_anew(tmp_path, monkeypatch):
    source = tmp_path / "raycast.py"
    monkeypatch.setattr(Shapes, "sources", lambda self: [source])
    for number in (1, 2):
        source.write_text(f"version {number}")
        WORLD.buffers(OBJECTS[:1], orbit(2, 16))
        WORLD.buffers(OBJECTS[:1], orbit(2, 16))
        assert len(list(cache_folder("truth").iterdir())) == number
