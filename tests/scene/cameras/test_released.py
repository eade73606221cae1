"""The cameras of released programs and those that orbit draws with their settings: 10,000 of each, two-sample tests."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scene.cameras.programs import (
    TURN,
    axes,
    differing,
    luciddreamer,
    mvdream,
    ours,
    threestudio,
)

from gsdistill.scene.cameras.orbit import Orbit, span

RANGES = {"elevation": (-10, 90), "azimuth": (-180, 180), "distance": (1, 1.5), "fov": (40, 70)}
SPANS: dict[str, Any] = {name: span(*ends) for name, ends in RANGES.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("law", "sine"), [("mixed", False), ("mixed-sine", True)])
def test_threestudio(law: Any, sine: bool):
    settings = Orbit(**SPANS, elevation_law=law, turned=False)
    assert differing(ours(settings), threestudio(0, **RANGES, sine=sine)) == {}


@pytest.mark.slow
def test_another_law_is_found_out():
    """What the tests here can see: one law of elevations for another, and azimuths that are turned."""
    ranges = threestudio(0, **RANGES)
    laws: tuple[Any, ...] = ("angle", "sphere", "mixed-sine")
    for law in laws:
        other = Orbit(**SPANS, elevation_law=law, turned=False)
        assert "least elevation" in differing(ours(other), ranges)
    turned = ours(Orbit(**SPANS, elevation_law="mixed"))
    assert {"azimuth of the first", "azimuth of the last"} <= differing(turned, ranges).keys()


@pytest.mark.slow
def test_threestudio_with_its_own_jitter():
    """camera_perturb, center_perturb and up_perturb at their defaults."""
    settings = Orbit(
        **SPANS, elevation_law="mixed", turned=False, jitter_position=0.1, jitter_target=0.2, jitter_up=0.02
    )
    drawn, released = ours(settings), threestudio(0, **RANGES, perturb=(0.1, 0.2, 0.02))
    assert differing(drawn, released) == {} and differing(drawn, released, axes) == {}
    assert "roll" in differing(drawn, threestudio(0, **RANGES, perturb=(0.1, 0.2, 0.03)), axes)


@pytest.mark.slow
def test_consistent3d():
    """Eight views in four quarters (use_n_views)."""
    ranges = {"elevation": (-10, 45), "azimuth": (-135, 225), "distance": (1.5, 2), "fov": (40, 70)}
    spans: dict[str, Any] = {name: span(*ends) for name, ends in ranges.items()}
    settings = Orbit(**spans, elevation_law="mixed-sine", strata=4, turned=False)
    released = threestudio(0, **ranges, sine=True, quarters=4, views=8)
    assert differing(ours(settings, views=8), released) == {}
    assert "least gap" in differing(ours(Orbit(**spans, elevation_law="mixed-sine"), views=8), released)


@pytest.mark.slow
def test_scaledreamer_with_mvdream():
    """Two groups of four, distances relative to the field of view."""
    ranges = {"elevation": (0, 30), "azimuth": (-180, 180), "distance": (0.8, 1), "fov": (15, 60)}
    spans: dict[str, Any] = {name: span(*ends) for name, ends in ranges.items()}
    law: dict[str, Any] = {"elevation_law": "mixed-sine", "relative_distance": True, "group": 4}
    settings = Orbit(**spans, **law, strata=1, turned=False)
    released = mvdream(0, **ranges)
    assert differing(ours(settings, views=8), released) == {}
    assert "least gap" in differing(ours(Orbit(**spans, **law), views=8), released)  # groups that share the quarter


@pytest.mark.slow
def test_luciddreamer():
    """configs/cat_armor.yaml: rand_cam_gamma 1.5, one field of view for a step, jitter 0.05 and 0.05."""
    settings = Orbit(
        azimuth=TURN, elevation=span(0, 30), distance=span(5.2, 5.5), fov=span(math.degrees(0.32), math.degrees(0.6)),
        gamma=1.5, strata=1, turned=False, shared=("fov",), jitter_position=0.025, jitter_target=0.05,
    )  # fmt: skip
    released = luciddreamer(0, (60, 90), (-180, 180), (5.2, 5.5), (0.32, 0.6), 1.5, (0.05, 0.05))
    drawn = ours(settings)
    assert differing(drawn, released) == {}
    del drawn["right"]  # it has no roll without noise on the up vector
    assert differing(drawn, released, axes) == {}


@pytest.mark.parametrize("step", [0, 1, 250, 500, 501, 2_000])
def test_progressive_ranges_of_threestudio(step):
    """progressive_until 500 of 2,000 steps, eval_elevation_deg 15: each end leaves the middle at the same pace."""
    until = f"@{501 / 2_000}"
    settings = Orbit(elevation=span(f"15:-10{until}", f"15:90{until}"), azimuth=span(f"0:-180{until}", f"0:180{until}"))
    r = min(1.0, step / 501)
    ranges = settings.ranges(step / 2_000)
    assert ranges["elevation"] == pytest.approx((15 * (1 - r) - 10 * r, 15 * (1 - r) + 90 * r))
    assert ranges["azimuth"] == pytest.approx((-180 * r, 180 * r))


def test_growing_ranges_of_luciddreamer():
    """Its steps of 500 iterations (x 0.95, from 5.2 to 3.5, of 5,000) lie within one of them beside the schedule."""
    ends, nearest = Orbit(distance=span("5.2:3.5@0.8", "5.5:5@0.2")), 5.2
    for iteration in range(1, 5_001):
        if iteration >= 500 and iteration % 500 == 0:
            nearest = max(3.5, nearest * 0.95)
        ours_now = ends.ranges(iteration / 5_000)["distance"][0]
        assert abs(ours_now - nearest) < 5.2 * 0.05
    assert nearest == ours_now == 3.5
