"""What every law of cameras keeps, and that one of one's own is chosen, drawn and written as ours are."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.run.changes import BEFORE, differing
from gsdistill.run.config import RunConfig, read_config, resolve
from gsdistill.scene.cameras.base import CameraLaw
from gsdistill.scene.cameras.orbit import Orbit, span
from gsdistill.settings.config import defaults, from_dict, merge, to_dict
from gsdistill.settings.registry import load, names
from gsdistill.settings.yaml import dump
from gsdistill.training.views import ViewSettings, draw_views

PACKAGE = "gsdistill.scene.cameras"
LAWS = [load(PACKAGE, name)() for name in names(PACKAGE)]
LAWS += [
    Orbit(elevation=span("15:-10@0.5", "15:90@0.5"), elevation_law="mixed", azimuth=span("0:-180", "0:180"), gamma=1.5),
    Orbit(elevation=span(20, 45), elevation_law="mixed-sine", fov=span("30:15", 60), relative_distance=True),
    Orbit(group=2, strata=1, turned=False, shared=("fov",), jitter_position=0.1, jitter_up=0.1),
]
every_law = pytest.mark.parametrize("law", LAWS)
SOURCE = '''
from dataclasses import dataclass

import torch

from gsdistill.core.ranges import bounded
from gsdistill.scene.cameras.base import CameraLaw
from gsdistill.scene.viewpoints import orbit


@dataclass(frozen=True, kw_only=True)
class Ring(CameraLaw):
    """Cameras at one height, all around."""

    height: float = bounded(20.0, low=-90, high=90)  # degrees

    def draw(self, count, size, progress, generator):
        return orbit(count, size, self.height + progress)

    def ranges(self, progress):
        height = self.height + progress
        return {"azimuth": (0, 360), "elevation": (height, height), "distance": (3.2, 3.2), "fov": (40, 40)}
'''


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every_law
def test_cameras_are_finite_float32_and_of_the_generator_alone(law):
    first, again, other = (law.draw(4, 16, 0.5, seeded(seed)) for seed in (0, 0, 1))
    assert len(first) == 4 and (first.width, first.height) == (16, 16)
    for field in fields(first):
        one, two = getattr(first, field.name), getattr(again, field.name)
        if isinstance(one, Tensor):
            assert one.dtype == torch.float32 and one.isfinite().all() and torch.equal(one, two)
    assert not torch.equal(first.viewmats, other.viewmats)


@every_law
def test_told_values_are_within_the_ranges_of_the_moment_and_of_the_stage(law):
    for progress in (0.0, 0.25, 0.6, 1.0):
        cameras, ranges, reach = law.draw(400, 16, progress, seeded()), law.ranges(progress), law.reach()
        fovs = torch.rad2deg(2 * torch.atan(8 / cameras.Ks[:, 0, 0].double()))
        told = {
            "azimuth": cameras.azimuths,
            "elevation": cameras.elevations,
            "distance": cameras.distances,
            "fov": fovs,
        }
        assert ranges.keys() == told.keys() == reach.keys()
        for name, values in told.items():
            for low, high in (ranges[name], reach[name]):
                slack = 1e-4 * max(abs(low), abs(high))
                assert low - slack <= values.min() and values.max() <= high + slack


@every_law
def test_settings_are_written_and_read(law):
    config = RunConfig("x", cameras=law)
    assert from_dict(RunConfig, to_dict(config)) == config
    assert to_dict(config)["cameras"]["name"] in names(PACKAGE)


def test_plain_numbers_and_schedules_are_read_and_written():
    given = {"distance": ["5.2:3.5@0.8", 5.5], "fov": (30, 50), "group": 2}
    cameras = from_dict(RunConfig, {"prompt": "x", "cameras": given}).cameras
    assert cameras == Orbit(distance=span("5.2:3.5@0.8", 5.5), fov=span(30, 50), group=2)
    plain = to_dict(RunConfig("x", cameras=cameras))["cameras"]
    assert plain["distance"] == ["5.2:3.5@0.8", 5.5] and plain["fov"] == [30.0, 50.0]
    assert plain["elevation"] == [-10.0, 60.0]
    with pytest.raises(ConfigError, match=r"cameras\.distance\[0\]: '5\.2:3:5:6' is not a schedule"):
        from_dict(RunConfig, {"prompt": "x", "cameras": {"distance": ["5.2:3:5:6", 7]}})


def test_a_law_of_ones_own_is_chosen_like_ours(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    given = {"prompt": "x", "prior": "shapes", "cameras": {"name": "./mine.py:Ring", "height": 30}}
    config = resolve(given)
    assert to_dict(config)["cameras"] == {"name": f"{tmp_path / 'mine.py'}:Ring", "group": None, "height": 30.0}
    assert from_dict(RunConfig, to_dict(config)) == config
    cameras, _ = draw_views(ViewSettings(4, 16, cameras=config.cameras), 0.5, seeded(), torch.zeros(1))
    assert cameras.elevations.tolist() == [30.5] * 4 and cameras.azimuths.tolist() == [0, 90, 180, 270]
    assert config.cameras.reach()["elevation"] == (30, 31)
    with pytest.raises(ConfigError, match=r"unknown law of cameras 'orbits'. Did you mean 'orbit'\?"):
        resolve({**given, "cameras": "orbits"})


def test_runs_of_before_are_read_and_told_from_later_settings(tmp_path):
    """A run of before has neither a name nor the new settings: they are what it had, and others are a change."""
    old = to_dict(RunConfig("x"))
    old["cameras"] = {
        "azimuth": [0.0, 360.0], "elevation": [-20.0, 60.0], "distance": [3.2, 3.2], "fov": [40.0, 40.0], "group": None
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(dump(old))
    read = from_dict(RunConfig, read_config(str(tmp_path)))
    assert read.cameras == Orbit(elevation=span(-20, 60))
    assert differing(to_dict(read), old, tmp_path) == {}
    changed = to_dict(RunConfig("x", cameras=Orbit(elevation=span(-20, 60), turned=False, strata=2)))
    assert set(differing(changed, old, tmp_path)) == {"cameras.turned", "cameras.strata"}
    ours = {"name": "orbit", **defaults(Orbit)}
    assert merge(ours, BEFORE["cameras"]) == ours and set(ours) - set(BEFORE["cameras"]) == set(old["cameras"])


def test_the_contract_is_abstract():
    assert CameraLaw.__abstractmethods__ == {"draw", "ranges"}
