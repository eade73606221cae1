"""The cameras of every preset and those of its program, drawn by the released formula: two-sample tests.

10,000 of each are drawn, of presets with one view a step 2,500. The ranges are the released ones of the table, not
those of the config. Presets whose cameras are the same share a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from presets.table import PRESETS, config_of, rows
from scene.cameras.programs import axes, differing, luciddreamer, mvdream, ours, steps_of, threestudio, uniform

from gsdistill.prior.loading import group_of
from gsdistill.training.views import check_groups

AROUND = (0, 360)  # theirs begins behind the object, at -180: the same sectors in another order
# Programs whose area-uniform half draws the sine between low / 90 and high / 90; the others draw the sphere.
SINE = ("cds-", "csd-", "rfds", "sds-gaussiandreamer")


def raw(name: str, ending: str, missing: Any = None) -> Any:
    """The released value of the key with this ending."""
    return next((row["value"] for _, row in rows(name) if str(row["key"]).endswith(ending)), missing)


def gsgen(elevation: tuple[float, float]) -> Mapping[str, Any]:
    """data/__init__.py of GSGEN: the sine is uniform between low / 90 and high / 90; four views, each alone."""
    rng, each = np.random.default_rng(0), (steps_of(4), 4)
    sines = uniform(rng, [end / 90 for end in elevation], each)
    focal = uniform(rng, (0.75, 1.35), each)
    return {
        "azimuth": (rng.random(each) + np.arange(4)) * 90,
        "elevation": np.degrees(np.arcsin(sines)),
        "distance": np.full(each, 2.5),
        "fov": np.degrees(2 * np.arctan(0.5 / focal)),
    }


def dreamgaussian(name: str, views: int) -> Mapping[str, Any]:
    """main.py of DreamGaussian: whole degrees; with MVDream three more views at quarters of the circle."""
    rng, steps = np.random.default_rng(0), steps_of(views)
    low, high = raw(name, "min_ver"), raw(name, "max_ver")
    elevation = rng.integers(low, high, (steps, 1)).repeat(views, 1).astype(float)
    azimuth = rng.integers(*AROUND, (steps, 1)) + 90.0 * np.arange(views)
    alike = np.ones((steps, views))
    return {"azimuth": azimuth, "elevation": elevation, "distance": raw(name, "radius") * alike,
            "fov": raw(name, "fovy") * alike}  # fmt: skip


def released(name: str, views: int) -> Mapping[str, Any]:
    """Cameras of a preset's program, by its formula and numbers."""
    if name.startswith("sds-dreamgaussian"):
        return dreamgaussian(name, views)
    if name == "sds-gsgen":
        return gsgen(raw(name, "data.elevation"))
    if polar := raw(name, "GenerateCamParams.theta_range"):
        fov = raw(name, "GenerateCamParams.fovy_range")
        return luciddreamer(
            0, polar, AROUND, raw(name, "GenerateCamParams.radius_range"), fov, gamma=1, jitter=(0.05, 0.05)
        )
    azimuth = raw(name, "data.azimuth_range", AROUND)
    ranges = raw(name, "elevation_range"), azimuth, raw(name, "camera_distance_range"), raw(name, "fovy_range")
    if raw(name, "relative_radius"):
        return mvdream(0, *ranges, groups=views // 4)
    jitter = tuple(raw(name, key, 0.0) for key in ("camera_perturb", "center_perturb", "up_perturb"))
    quarters, sine = raw(name, ".n_views", 0), name.startswith(SINE)
    return threestudio(0, *ranges, sine=sine, quarters=quarters, views=views, perturb=jitter)


def laws() -> dict[str, Any]:
    """The first stages of presets whose programs draw by a formula above, one for each law and number of views."""
    found = {}
    for name in PRESETS:
        config = config_of(name).parts[0]
        keys = ("camera_distance_range", "GenerateCamParams.theta_range", "min_ver", "data.elevation")
        if any(raw(name, key) is not None for key in keys):
            found.setdefault((repr(config.cameras), config.views), (name, config))
    return dict(found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), laws().items(), ids=[*laws()])
def test_cameras_are_drawn_as_the_program_draws_them(name, config):
    group = check_groups(config.views, config.cameras, name, group_of(config.prior))
    drawn, theirs = ours(replace(config.cameras, group=group), views=config.views), released(name, config.views)
    for cameras in (drawn, theirs):
        cameras["azimuth"] = np.mod(cameras["azimuth"], 360)
    other = differing(drawn, theirs)
    if name == "sds-gsgen":  # its focal length is uniform, our field of view, between the same ends
        other = {key: value for key, value in other.items() if "fov" not in key and "size" not in key}
    assert other == {}
    if "right" not in theirs:
        del drawn["right"]
    if "position" in theirs:
        assert differing(drawn, theirs, axes) == {}
