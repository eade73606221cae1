"""The Point-E initialiser with the shipped model: the object of the prompt, once made and then kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gsdistill.core.errors import ConfigError, ModelNotFound, PromptError
from gsdistill.core.structs import SH_C0
from gsdistill.point_e.model import PointE as Model
from gsdistill.scene.init import point_e
from gsdistill.scene.init.point_e import PointE
from gsdistill.settings.config import from_dict, to_dict
from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.solids import distances
from gsdistill.worlds.shapes.world import build

FAST = {"steps": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gsdistill" / "clouds"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
def test_a_splat_starts_on_the_prompts_surface_in_its_colour():
    small = PointE(steps=20, radius=0.5).create("a blue star", seeded())
    assert float(small.means.norm(dim=1).max()) == pytest.approx(0.5)
    gaussians = PointE(steps=20).create("a blue star", seeded())
    assert len(gaussians) == 1024 and gaussians.sh_degree == 0
    means = gaussians.means.double().numpy()
    assert np.linalg.norm(means, axis=1).max() < 1  # in the world's own size
    off = {
        shape: np.abs(distances(build((Thing("red", shape),)).parts, means)).mean()
        for shape in ("star", "cube", "ring")
    }
    assert off["star"] < 0.03 < min(off["cube"], off["ring"])
    red, green, blue = (0.5 + SH_C0 * gaussians.sh[:, 0]).median(dim=0).values.tolist()
    assert blue > 0.75 and max(red, green) < 0.4


def test_the_same_run_gets_the_same_cloud_from_the_cache(cache, monkeypatch):
    first = PointE(**FAST).cloud("a red cube", seeded(), "cpu")
    (kept,) = cache.iterdir()
    assert kept.name.startswith("a-red-cube-")
    monkeypatch.setattr(Model, "sample", None)
    again = PointE(**FAST).cloud("a red cube", seeded(), "cpu")
    assert bool((again.points == first.points).all() and (again.colors == first.colors).all())


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"steps": 3}, {"guidance_scale": 2.0}])
def test_what_decides_the_cloud_is_in_its_key(cache, change):
    first = PointE(**FAST).cloud("a red cube", seeded(), "cpu")
    other = PointE(**{**FAST, **change}).cloud("a red cube", seeded(), "cpu")
    seed = PointE(**FAST).cloud("a red cube", seeded(1), "cpu")
    assert len(list(cache.iterdir())) == 3
    for cloud in (other, seed):
        assert float((cloud.points - first.points).abs().max()) > 1e-3


def test_the_azimuth_turns_the_kept_cloud(cache):
    first = PointE(**FAST).cloud("a red chair", seeded(), "cpu")
    turned = PointE(**FAST, azimuth=90.0).cloud("a red chair", seeded(), "cpu")
    assert len(list(cache.iterdir())) == 1
    x, y, z = first.points.unbind(1)
    torch.testing.assert_close(turned.points, torch.stack([-y, x, z], 1), rtol=1e-5, atol=1e-6)


def test_auto_takes_the_shipped_model_for_its_world_and_openai_for_the_rest(monkeypatch):
    asked = []

    def watch(source: str):
        asked.append(source)
        raise ModelNotFound("none here")

    monkeypatch.setattr(point_e, "locate", watch)
    for model, prompt in (("auto", "a red cube"), ("auto", "a corgi"), ("shapes", "a corgi"), ("folder", "a red cube")):
        with pytest.raises(ModelNotFound):
            PointE(model=model).cloud(prompt, seeded(), "cpu")
    assert asked == ["shapes", "openai", "shapes", "folder"]


def test_failures_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelNotFound, match="forbids fetching them"):
        PointE().create("a corgi", seeded())
    with pytest.raises(PromptError, match="'corgi'"):
        PointE(model="shapes").create("a corgi", seeded())
    with pytest.raises(ModelNotFound, match="Did you mean 'openai'"):
        PointE(model="openia").create("a corgi", seeded())


@pytest.mark.parametrize(("name", "value"), [("guidance_scale", -1.0), ("steps", 0), ("azimuth", math.inf)])
def test_settings_have_ranges_and_survive_yaml(name, value):
    with pytest.raises(ConfigError, match=name):
        from_dict(PointE, {name: value})
    settings = PointE(model="shapes", guidance_scale=2.0, steps=12, azimuth=-30.0)
    assert from_dict(PointE, to_dict(settings)) == settings
    assert from_dict(PointE, to_dict(PointE())) == PointE()


def test_a_kept_cloud_loads_no_model(cache, monkeypatch):
    first = PointE(**FAST).cloud("a red cube", seeded(), "cpu")
    monkeypatch.setattr("gsdistill.point_e.model.TextEncoder", None)
    again = PointE(**FAST).cloud("a red cube", seeded(), "cpu")
    assert torch.equal(first.points, again.points) and torch.equal(first.colors, again.colors)
