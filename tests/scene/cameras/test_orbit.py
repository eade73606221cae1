"""How orbit draws: strata and groups, its checks, schedules and jitter; released laws are in test_released.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import kstest

from gsdistill.core.errors import ConfigError
from gsdistill.scene.cameras.orbit import Orbit, span
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.training.views import check_groups


def test_every_draw_has_one_camera_per_stratum():
    settings, count = Orbit(), 7
    for seed in range(50):
        offset = torch.rand(
            1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )  # the first number drawn
        azimuths = settings.draw(count, 32, 0.0, torch.Generator().manual_seed(seed)).azimuths.double()
        strata = (torch.remainder(azimuths / 360 - offset, 1.0) * count - 1e-5).floor().long() % count
        assert sorted(strata.tolist()) == list(range(count))


@pytest.mark.slow
@pytest.mark.parametrize("view", [0, 2])
def test_each_camera_of_a_draw_is_uniform_in_azimuth(view):
    law, generator, draws, bins = Orbit(), torch.Generator().manual_seed(1), 4000, 20
    azimuths = torch.stack([law.draw(4, 32, 0.0, generator).azimuths[view] for _ in range(draws)])
    counts = torch.histc(azimuths, bins, 0.0, 360.0)
    chi2 = ((counts - draws / bins) ** 2 / (draws / bins)).sum()
    assert 5 < chi2 < 44  # 19 degrees of freedom: outside with probability 0.1 %


def test_samples_stay_in_their_ranges_and_fill_them():
    settings = Orbit(azimuth=span(-45, 45), elevation=span(-10, 60), distance=span(2.5, 3.5), fov=span(30, 50))
    cameras = settings.draw(2000, 32, 0.0, torch.Generator().manual_seed(0))
    fovs = torch.rad2deg(2 * torch.atan(16 / cameras.Ks[:, 0, 0]))
    drawn = {"azimuth": cameras.azimuths, "elevation": cameras.elevations, "distance": cameras.distances, "fov": fovs}
    for name, (low, high) in settings.ranges(0.0).items():
        values = drawn[name]
        wide = high - low
        assert low - 1e-3 <= values.min() < low + 0.01 * wide and high - 0.01 * wide < values.max() <= high + 1e-3
        assert abs(values.mean() - (low + high) / 2) < 0.03 * wide


def test_the_same_seed_gives_the_same_cameras():
    first, second, other = (Orbit().draw(5, 32, 0.0, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.viewmats, second.viewmats) and not torch.equal(first.viewmats, other.viewmats)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"elevation": (60, -10)}, r"cameras\.elevation = \[60, -10\] is empty"),
        ({"distance": (3, 2)}, r"cameras\.distance = \[3, 2\] is empty"),
        ({"azimuth": (-200, 200)}, r"cameras\.azimuth = \[-200, 200\] spans more than 360"),
        ({"azimuth": ("0:-200", "0:200@0.5")}, r"cameras\.azimuth = \[0:-200, 0:200@0\.5\] spans more than 360"),
        ({"fov": ("30:50", "60:45@0.5")}, r"cameras\.fov = \[30:50, 60:45@0\.5\] is empty"),
        ({"distance": (0.9, 2)}, r"cameras\.distance = \[0\.9, 2\] brings cameras as near as 0\.9"),
    ],
)
def test_a_range_must_be_in_order_all_the_stage(given, told):
    spans: Any = {name: span(*ends) for name, ends in given.items()}
    with pytest.raises(ConfigError, match=told):
        Orbit(**spans)


GROUPED = Orbit(group=4, distance=span(2.5, 3.5), fov=span(30, 50))


@pytest.mark.parametrize("seed", range(5))
def test_a_group_goes_round_in_quarters_at_one_elevation(seed):
    cameras = GROUPED.draw(12, 32, 0.0, torch.Generator().manual_seed(seed))
    groups = cameras.azimuths.double().view(3, 4)
    steps = torch.remainder(groups.roll(-1, 1) - groups, 360.0)
    assert torch.allclose(steps, torch.full((3, 4), 90.0, dtype=torch.float64), rtol=0, atol=1e-4)
    assert float(cameras.azimuths.min()) >= 0 and float(cameras.azimuths.max()) <= 360
    for values in (cameras.elevations, cameras.distances, cameras.Ks[:, 0, 0]):
        each = values.view(3, 4)
        assert torch.equal(each, each[:, :1].expand(3, 4)) and len(set(each[:, 0].tolist())) == 3


def test_groups_of_a_draw_share_the_quarter_evenly():
    """After the offset, the first number drawn, three groups stand in the three thirds of each quarter."""
    for seed in range(50):
        offset = float(torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
        azimuths = GROUPED.draw(12, 32, 0.0, torch.Generator().manual_seed(seed)).azimuths.double().view(3, 4)
        place = torch.remainder(azimuths / 360 - offset, 0.25) * 12
        assert place.floor().tolist() == [[0.0] * 4, [1.0] * 4, [2.0] * 4]


@pytest.mark.slow
def test_each_camera_of_a_group_is_uniform_in_azimuth():
    generator, draws, bins = torch.Generator().manual_seed(2), 2000, 20
    azimuths = torch.stack([GROUPED.draw(8, 32, 0.0, generator).azimuths for _ in range(draws)])
    for view in (0, 3, 5):
        counts = torch.histc(azimuths[:, view], bins, 0.0, 360.0)
        chi2 = ((counts - draws / bins) ** 2 / (draws / bins)).sum()
        assert 5 < chi2 < 44  # 19 degrees of freedom: outside with probability 0.1 %


@pytest.mark.parametrize("group", [None, 1])
def test_cameras_on_their_own_are_drawn_one_by_one(group):
    """Bit for bit: offset, places, elevations, distances and fovs, in this order, from the generator."""
    settings = Orbit(azimuth=span(-30, 200), distance=span(2.5, 3.5), fov=span(30, 50), group=group)
    generator = torch.Generator().manual_seed(6)
    offset, places, *others = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (1, 5, 5, 5, 5))
    places = torch.remainder((torch.arange(5) + places) / 5 + offset, 1.0)
    ranges = (settings.ranges(0.0)[name] for name in ("azimuth", "elevation", "distance", "fov"))
    drawn = [(low + (high - low) * place).float() for (low, high), place in zip(ranges, (places, *others), strict=True)]
    expected = look_at_origin(drawn[0], drawn[1], drawn[2], drawn[3], 32)
    cameras = settings.draw(5, 32, 0.0, torch.Generator().manual_seed(6))
    for name in ("viewmats", "Ks", "azimuths", "elevations", "distances"):
        assert torch.equal(getattr(cameras, name), getattr(expected, name))


def test_a_group_divides_a_part_of_the_circle():
    settings = Orbit(azimuth=span(-45, 45), group=3)
    for seed in range(20):
        azimuths = settings.draw(6, 32, 0.0, torch.Generator().manual_seed(seed)).azimuths.double().view(2, 3)
        assert float(azimuths.min()) >= -45 and float(azimuths.max()) <= 45
        steps = torch.remainder(azimuths.roll(-1, 1) - azimuths, 90.0)  # wrapping at the ends of the range
        assert torch.allclose(steps, torch.full((2, 3), 30.0, dtype=torch.float64), rtol=0, atol=1e-4)


# Numbers that the first version of these cameras drew with seed 11, before it had other laws.
RECORDED = [
    (
        Orbit(), 4, 0.884739100933075,
        [148.9164581298828, 219.67941284179688, 309.0613098144531, 31.16844367980957],
        [0.8291605710983276, 2.2570860385894775, -0.4066954553127289, 47.40158462524414], [3.200000047683716] * 4,
    ),
    (
        Orbit(azimuth=span(-30, 200), distance=span(2.5, 3.5), fov=span(30, 50)), 3, 0.43148738145828247,
        [82.10917663574219, 142.38873291015625, -11.471147537231445],
        [30.3886775970459, 0.8291605710983276, 2.2570860385894775],
        [2.637047290802002, 3.3200225830078125, 2.928335666656494],
    ),
    (
        GROUPED, 8, 0.803541898727417,
        [109.07830047607422, 199.0782928466797, 289.07830810546875, 19.07830047607422,
         144.45977783203125, 234.45977783203125, 324.45977783203125, 54.459781646728516],
        [36.527565002441406] * 4 + [30.3886775970459] * 4, [2.6547021865844727] * 4 + [2.6751012802124023] * 4,
    ),
]  # fmt: skip


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("settings", "count", "after", "azimuths", "elevations", "distances"), RECORDED)
def test_default_laws_draw_what_they_always_drew(settings, count, after, azimuths, elevations, distances, progress):
    """To the last bit, at any progress, and with nothing more asked of the generator."""
    generator = torch.Generator().manual_seed(11)
    cameras = settings.draw(count, 32, progress, generator)
    assert cameras.azimuths.tolist() == azimuths and cameras.elevations.tolist() == elevations
    assert cameras.distances.tolist() == distances and float(torch.rand(1, generator=generator)) == after
    fovs = torch.rad2deg(2 * torch.atan(16 / cameras.Ks[:, 0, 0].double()))
    placed = look_at_origin(cameras.azimuths, cameras.elevations, cameras.distances, fovs, 32)
    assert torch.equal(cameras.viewmats, placed.viewmats)


def drawn(settings: Orbit, count: int = 10_000, progress: float = 0.0):
    return settings.draw(count, 32, progress, torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("low", "high"), [(-10, 60), (20, 80), (-90, 90)])
def test_uniform_on_the_sphere_is_uniform_in_height(low, high):
    settings = Orbit(elevation=span(low, high), elevation_law="sphere")
    heights = torch.deg2rad(drawn(settings).elevations.double()).sin()
    bottom, top = (math.sin(math.radians(end)) for end in (low, high))
    assert kstest(heights.numpy(), "uniform", (bottom, top - bottom)).pvalue > 0.001


def test_gamma_is_the_power_of_the_distance_from_the_middle():
    cameras = drawn(Orbit(azimuth=span(-80, 80), elevation=span(0, 30), gamma=1.5))
    for values, middle, half in ((cameras.azimuths, 0.0, 80.0), (cameras.elevations, 15.0, 15.0)):
        away = ((values.double() - middle) / half).abs() ** (1 / 1.5)
        assert kstest(away.numpy(), "uniform").pvalue > 0.001
        assert 4_700 < int((values > middle).sum()) < 5_300


def test_a_relative_distance_keeps_the_size_in_the_picture():
    """MVDream's numbers: distance times tan(fov / 2) is uniform in 0.8..1, whatever the field of view."""
    settings = Orbit(distance=span(0.8, 1), fov=span(15, 60), relative_distance=True)
    cameras = drawn(settings)
    size = cameras.distances.double() * 16 / cameras.Ks[:, 0, 0].double()
    assert kstest(size.numpy(), "uniform", (0.8, 0.2)).pvalue > 0.001
    nearest, farthest = settings.reach()["distance"]
    assert nearest == pytest.approx(0.8 / math.tan(math.radians(30)))
    assert farthest == pytest.approx(1 / math.tan(math.radians(7.5)))
    assert nearest <= cameras.distances.min() and cameras.distances.max() <= farthest
    with pytest.raises(ConfigError, match=r"brings cameras as near as 0\.8"):
        Orbit(distance=span(0.8, 1), fov=span(40, 90), relative_distance=True)


def test_fixed_strata_stand_where_they_begin():
    settings = Orbit(azimuth=span(-135, 225), strata=4, turned=False)
    for seed in range(20):
        azimuths = settings.draw(10, 32, 0.0, torch.Generator().manual_seed(seed)).azimuths
        assert ((azimuths + 135) / 90).floor().tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_one_draw_decides_on_the_law_of_a_whole_step():
    """From 60 to 90 degrees the sine's half begins at 41.8, and six in ten of its views are below 60."""
    settings, generator = Orbit(elevation=span(60, 90), elevation_law="mixed-sine"), torch.Generator().manual_seed(7)
    low = torch.stack([(settings.draw(16, 8, 0.0, generator).elevations < 60) for _ in range(200)]).double().mean(1)
    assert 70 < int((low == 0).sum()) < 130  # of 200, with a chance of one half: 4 deviations are 28
    share = (math.sin(math.radians(60)) - 60 / 90) / (1 - 60 / 90)
    assert float(low[low > 0].mean()) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("turned", [True, False])
def test_one_stratum_makes_the_azimuths_independent(turned):
    generator, settings = torch.Generator().manual_seed(5), Orbit(strata=1, turned=turned)
    azimuths = torch.stack([settings.draw(2, 8, 0.0, generator).azimuths for _ in range(500)]).double() / 360
    gaps = torch.remainder(azimuths[:, 1] - azimuths[:, 0], 1.0)  # uniform too, and only then
    assert all(kstest(values.numpy(), "uniform").pvalue > 0.001 for values in (*azimuths.unbind(1), gaps))


@pytest.mark.parametrize("name", ["elevation", "distance", "fov"])
def test_what_is_shared_is_one_for_all_views_of_a_step(name: Any):
    settings = Orbit(distance=span(2, 4), fov=span(30, 50), shared=(name,))
    generator = torch.Generator().manual_seed(0)
    cameras, later = (settings.draw(6, 32, 0.0, generator) for _ in range(2))
    found = {"elevation": cameras.elevations, "distance": cameras.distances, "fov": cameras.Ks[:, 0, 0]}
    assert {key: len(set(values.tolist())) for key, values in found.items()} == {
        key: 1 if key == name else 6 for key in found
    }
    assert not torch.equal(cameras.viewmats, later.viewmats)


def test_ranges_follow_their_schedules():
    settings = Orbit(distance=span("5.2:3.5@0.8", 5.5), fov=span(20, "30:50"))
    for progress, nearest, widest in ((0.0, 5.2, 30.0), (0.4, 4.35, 38.0), (0.9, 3.5, 48.0)):
        assert settings.ranges(progress)["distance"] == (pytest.approx(nearest), 5.5)
        cameras = drawn(settings, progress=progress)
        fovs = torch.rad2deg(2 * torch.atan(16 / cameras.Ks[:, 0, 0].double()))
        for values, low, high in ((cameras.distances.double(), nearest, 5.5), (fovs, 20.0, widest)):
            assert kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 0.001
    assert settings.reach() == {
        "azimuth": (0, 360), "elevation": (-10, 60), "distance": (3.5, 5.5), "fov": (20, 50)
    }  # fmt: skip


@pytest.mark.parametrize("group", [1, 4])
def test_jitter_moves_cameras_and_what_they_look_at(group):
    """Its three parts are found again in the matrices; the told angles are those of the cameras without it."""
    settings = Orbit(group=group, jitter_position=0.1, jitter_target=0.2, jitter_up=0.02, elevation=span(-60, 60))
    moved, still = drawn(settings), drawn(Orbit(group=group, elevation=span(-60, 60)))
    for name in ("Ks", "azimuths", "elevations", "distances"):
        assert torch.equal(getattr(moved, name), getattr(still, name))
    views, before = moved.viewmats.double(), still.viewmats.double()
    turns = views[:, :3, :3]
    assert torch.allclose(turns @ turns.mT, torch.eye(3, dtype=torch.float64).expand(10_000, 3, 3), atol=1e-6)
    places, old = (-torch.einsum("bji,bj->bi", v[:, :3, :3], v[:, :3, 3]) for v in (views, before))
    shift = (places - old)[::group]
    assert kstest(shift.flatten().numpy() / 0.1, "uniform", (-1, 2)).pvalue > 0.001
    assert torch.allclose(places - old, shift.repeat_interleave(group, 0), atol=1e-5)
    # the axis passes the origin sideways by the noise of the target
    miss = torch.einsum("bi,bi->b", turns[:, 0], -places)[::group]
    assert kstest(miss.numpy() / 0.2, "norm").pvalue > 0.001


def test_jittered_cameras_look_at_their_targets():
    """With the same random numbers the target is drawn in the middle of the picture, and the up vector upwards."""
    settings = Orbit(jitter_position=0.1, jitter_target=0.2, jitter_up=0.1)
    generator = torch.Generator().manual_seed(9)
    for count in (1, 50, 50, 50, 50):  # offset, places, elevations, distances, fields of view
        torch.rand(count, generator=generator, dtype=torch.float64)
    torch.rand(50, 3, generator=generator, dtype=torch.float64)
    target, tilt = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    cameras = settings.draw(50, 32, 0.0, torch.Generator().manual_seed(9))
    views, up = cameras.viewmats.double(), torch.tensor([0.0, 0.0, 1.0]) + 0.1 * tilt
    seen = torch.einsum("bij,bj->bi", views[:, :3, :3], 0.2 * target) + views[:, :3, 3]
    assert seen[:, :2].abs().max() < 1e-5 and seen[:, 2].min() > 1
    upwards = torch.einsum("bij,bj->bi", views[:, :3, :3], up)
    assert upwards[:, 0].abs().max() < 1e-6 and upwards[:, 1].max() < 0


@pytest.mark.parametrize(
    ("settings", "together", "told"),
    [
        (Orbit(strata=8, turned=False), 1, r"cameras\.strata = 8 leaves azimuths without views: a step draws 4"),
        (Orbit(strata=2, turned=False), 4, r"cameras\.strata = 2 leaves azimuths without views: a step draws 1"),
        (Orbit(gamma=1.5), 4, r"cameras\.gamma = 1\.5 bends the equal steps of a group"),
        (Orbit(azimuth=span("0:-180@0.5", "0:180@0.5")), 4, r"cameras\.azimuth = \[0, 0\]: .* which needs 360"),
    ],
)
def test_settings_that_do_not_go_with_the_views_are_refused(settings, together, told):
    with pytest.raises(ConfigError, match=told):
        check_groups(4, settings, "shapes", together)
    assert check_groups(4, Orbit(strata=8), "shapes", 1) == 1
