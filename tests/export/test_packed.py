"""What all packed formats owe, judged by readers that share nothing with the writers, and by pictures."""

import importlib.util
import time
from dataclasses import replace

import pytest
import torch
from export.scenes import extreme, fidelity, mirrored, pebble, round_trip, written

from gsdistill.core.errors import NotInstalled
from gsdistill.core.structs import Gaussians
from gsdistill.export.formats import writer_for
from gsdistill.export.settings import ExportSettings
from gsdistill.scene.turn import from_frame

LEAST = {"compressed-ply": (55, 45), "splat": (60, 60), "spz": (50, 50), "sog": (65, 60)}  # decibels, SH degree 0 and 3

every_format = pytest.mark.parametrize("name", LEAST)


def kept(name: str, scene: Gaussians) -> Gaussians:
    """What of a scene the format has room for."""
    return replace(scene, sh=scene.sh[:, :1]) if name == "splat" else scene


@every_format
@pytest.mark.parametrize("degree", [0, 3])
def test_pictures_survive_and_are_nowhere_near_the_mirror_image(tmp_path, name, degree):
    scene = pebble(3000, degree)
    found = from_frame(written(name, scene, tmp_path), "rdf")
    truth, mirror = fidelity(kept(name, scene), found)
    assert truth > LEAST[name][degree == 3]
    assert mirror < 20


@every_format
def test_a_mirrored_file_would_be_seen(tmp_path, name):
    scene = kept(name, pebble(3000, 3))
    found = from_frame(written(name, mirrored(scene), tmp_path), "rdf")
    truth, mirror = fidelity(scene, found)
    assert truth < 20
    assert mirror > LEAST[name][1] - 5


@pytest.mark.slow
@every_format
@pytest.mark.parametrize(("count", "degree"), [(1, 0), (1, 3), (257, 3), (100_000, 0)])
def test_any_number_of_gaussians(tmp_path, name, count, degree):
    assert round_trip(name, kept(name, pebble(count, degree)), tmp_path)[0] > 40


@every_format
def test_extremes_neither_wrap_nor_become_nan(tmp_path, name):
    scene = kept(name, extreme())
    found = written(name, scene, tmp_path)
    assert len(found) == len(scene)
    assert all(torch.isfinite(value).all() for value in found.tensors().values())
    assert fidelity(scene, from_frame(found, "rdf"))[0] > 40


@every_format
def test_the_same_scene_gives_the_same_bytes_at_any_time(tmp_path, name, monkeypatch):
    scene = pebble(300, 3)
    for folder, seconds in (("a", 1e9), ("b", 2e9)):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
        written(name, scene, tmp_path / folder)
    one, other = (next((tmp_path / folder).iterdir()).read_bytes() for folder in ("a", "b"))
    assert one == other


@pytest.mark.parametrize("name", ["compressed-ply", "spz"])
def test_a_missing_package_is_told_before_anything_is_written(tmp_path, name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    extension = f".{name.replace('-', '.')}"
    with pytest.raises(NotInstalled, match=rf"writing {extension} needs .*\(the extra 'formats'\): pip install"):
        writer_for(tmp_path / f"a{extension}", ExportSettings())
