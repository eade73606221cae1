import math

import pytest
import torch

from gsdistill.core.errors import ConfigError
from gsdistill.scene.cameras import CameraSettings, all_around, golden_azimuths, look_at_origin, orbit, sample


def one_camera(azimuth: float, elevation: float, distance: float = 3.0, fov: float = 40.0, size: int = 64):
    return look_at_origin(*(torch.tensor([value]) for value in (azimuth, elevation, distance, fov)), size)


def project(cameras, point):
    """Pixel position and depth of a world point in each camera, by the matrices alone."""
    world = torch.tensor([*point, 1.0])
    seen = (cameras.viewmats @ world)[:, :3]
    pixels = (cameras.Ks @ seen[..., None])[..., 0]
    return pixels[:, :2] / pixels[:, 2:], seen[:, 2]


def test_azimuth_zero_sees_the_front():
    camera = one_camera(0.0, 0.0)
    pixel, depth = project(camera, (0.5, 0.0, 0.0))
    assert torch.allclose(pixel, torch.tensor([[32.0, 32.0]])) and torch.allclose(depth, torch.tensor([2.5]))
    assert project(camera, (0.0, 0.5, 0.0))[0][0, 0] > 40  # +y to the right
    assert project(camera, (0.0, 0.0, 0.5))[0][0, 1] < 24  # +z up, towards smaller y


def test_azimuth_turns_counter_clockwise_seen_from_above():
    _, depth = project(one_camera(90.0, 0.0), (0.0, 0.5, 0.0))
    assert torch.allclose(depth, torch.tensor([2.5]))


@pytest.mark.parametrize(
    ("azimuth", "elevation"), [(0.0, 0.0), (33.0, 17.0), (250.0, -60.0), (120.0, 90.0), (10.0, -90.0)]
)
def test_the_position_is_the_one_the_angles_say(azimuth, elevation):
    viewmat = one_camera(azimuth, elevation, distance=3.2).viewmats[0].double()
    position = -viewmat[:3, :3].T @ viewmat[:3, 3]
    a, e = math.radians(azimuth), math.radians(elevation)
    truth = 3.2 * torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)], dtype=torch.float64)
    assert torch.allclose(position, truth, atol=1e-6)


def test_world_to_camera_is_a_rotation_even_at_the_poles():
    elevations = torch.tensor([-90.0, -45.0, 0.0, 30.0, 90.0]).repeat_interleave(8)
    azimuths = torch.linspace(0.0, 360.0, 8).repeat(5)
    cameras = look_at_origin(azimuths, elevations, torch.full((40,), 3.2), torch.full((40,), 40.0), 64)
    rotations = cameras.viewmats[:, :3, :3].double()
    assert torch.isfinite(rotations).all()
    assert torch.allclose(
        rotations @ rotations.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(40, 3, 3), atol=1e-6
    )
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(40, dtype=torch.float64), atol=1e-6)
    assert torch.equal(cameras.viewmats[:, 3], torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(40, 4))


@pytest.mark.parametrize("fov", [10.0, 40.0, 90.0])
def test_a_point_at_the_edge_of_the_fov_lands_on_the_edge_of_the_image(fov):
    camera = one_camera(0.0, 0.0, distance=2.0, fov=fov, size=48)
    reach = 2.0 * math.tan(math.radians(fov / 2))
    right, _ = project(camera, (0.0, reach, 0.0))
    top, _ = project(camera, (0.0, 0.0, reach))
    assert torch.allclose(right, torch.tensor([[48.0, 24.0]]), atol=1e-4)
    assert torch.allclose(top, torch.tensor([[24.0, 0.0]]), atol=1e-4)


def test_every_draw_has_one_camera_per_stratum():
    settings, count = CameraSettings(), 7
    for seed in range(50):
        offset = torch.rand(
            1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )  # the first number drawn
        azimuths = sample(settings, count, 32, torch.Generator().manual_seed(seed)).azimuths.double()
        strata = (torch.remainder(azimuths / 360 - offset, 1.0) * count - 1e-5).floor().long() % count
        assert sorted(strata.tolist()) == list(range(count))


@pytest.mark.slow
@pytest.mark.parametrize("view", [0, 2])
def test_each_camera_of_a_draw_is_uniform_in_azimuth(view):
    generator, draws, bins = torch.Generator().manual_seed(1), 4000, 20
    azimuths = torch.stack([sample(CameraSettings(), 4, 32, generator).azimuths[view] for _ in range(draws)])
    counts = torch.histc(azimuths, bins, 0.0, 360.0)
    chi2 = ((counts - draws / bins) ** 2 / (draws / bins)).sum()
    assert 5 < chi2 < 44  # 19 degrees of freedom: outside with probability 0.1 %


def test_samples_stay_in_their_ranges_and_fill_them():
    settings = CameraSettings(azimuth=(-45.0, 45.0), elevation=(-10.0, 60.0), distance=(2.5, 3.5), fov=(30.0, 50.0))
    cameras = sample(settings, 2000, 32, torch.Generator().manual_seed(0))
    fovs = torch.rad2deg(2 * torch.atan(16 / cameras.Ks[:, 0, 0]))
    for values, (low, high) in [
        (cameras.azimuths, settings.azimuth),
        (cameras.elevations, settings.elevation),
        (cameras.distances, settings.distance),
        (fovs, settings.fov),
    ]:
        span = high - low
        assert low - 1e-3 <= values.min() < low + 0.01 * span and high - 0.01 * span < values.max() <= high + 1e-3
        assert abs(values.mean() - (low + high) / 2) < 0.03 * span


def test_the_same_seed_gives_the_same_cameras():
    first, second, other = (sample(CameraSettings(), 5, 32, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.viewmats, second.viewmats) and not torch.equal(first.viewmats, other.viewmats)


def test_orbit_steps_evenly_from_the_front():
    cameras = orbit(8, 32, elevation=15.0, distance=3.0, fov=35.0)
    assert cameras.azimuths.tolist() == [0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0]
    assert cameras.viewmats.dtype == cameras.Ks.dtype == torch.float32 and len(cameras) == 8
    assert (cameras.width, cameras.height) == (32, 32)


@pytest.mark.parametrize(
    ("name", "value"), [("elevation", (60.0, -10.0)), ("distance", (3.0, 2.0)), ("azimuth", (-200.0, 200.0))]
)
def test_a_range_must_be_in_order(name, value):
    with pytest.raises(ConfigError, match=f"cameras.{name}"):
        CameraSettings(**{name: value})


GROUPED = CameraSettings(group=4, distance=(2.5, 3.5), fov=(30.0, 50.0))


@pytest.mark.parametrize("seed", range(5))
def test_a_group_goes_round_in_quarters_at_one_elevation(seed):
    cameras = sample(GROUPED, 12, 32, torch.Generator().manual_seed(seed))
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
        azimuths = sample(GROUPED, 12, 32, torch.Generator().manual_seed(seed)).azimuths.double().view(3, 4)
        place = torch.remainder(azimuths / 360 - offset, 0.25) * 12
        assert place.floor().tolist() == [[0.0] * 4, [1.0] * 4, [2.0] * 4]


@pytest.mark.slow
def test_each_camera_of_a_group_is_uniform_in_azimuth():
    generator, draws, bins = torch.Generator().manual_seed(2), 2000, 20
    azimuths = torch.stack([sample(GROUPED, 8, 32, generator).azimuths for _ in range(draws)])
    for view in (0, 3, 5):
        counts = torch.histc(azimuths[:, view], bins, 0.0, 360.0)
        chi2 = ((counts - draws / bins) ** 2 / (draws / bins)).sum()
        assert 5 < chi2 < 44  # 19 degrees of freedom: outside with probability 0.1 %


@pytest.mark.parametrize("group", [None, 1])
def test_cameras_on_their_own_are_drawn_one_by_one(group):
    """Bit for bit: offset, places, elevations, distances and fovs, in this order, from the generator."""
    settings = CameraSettings(azimuth=(-30.0, 200.0), distance=(2.5, 3.5), fov=(30.0, 50.0), group=group)
    generator = torch.Generator().manual_seed(6)
    offset, places, *others = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (1, 5, 5, 5, 5))
    places = torch.remainder((torch.arange(5) + places) / 5 + offset, 1.0)
    ranges = (settings.azimuth, settings.elevation, settings.distance, settings.fov)
    drawn = [(low + (high - low) * place).float() for (low, high), place in zip(ranges, (places, *others), strict=True)]
    expected = look_at_origin(drawn[0], drawn[1], drawn[2], drawn[3], 32)
    cameras = sample(settings, 5, 32, torch.Generator().manual_seed(6))
    for name in ("viewmats", "Ks", "azimuths", "elevations", "distances"):
        assert torch.equal(getattr(cameras, name), getattr(expected, name))


def test_a_group_divides_a_part_of_the_circle():
    settings = CameraSettings(azimuth=(-45.0, 45.0), group=3)
    for seed in range(20):
        azimuths = sample(settings, 6, 32, torch.Generator().manual_seed(seed)).azimuths.double().view(2, 3)
        assert float(azimuths.min()) >= -45 and float(azimuths.max()) <= 45
        steps = torch.remainder(azimuths.roll(-1, 1) - azimuths, 90.0)  # wrapping at the ends of the range
        assert torch.allclose(steps, torch.full((2, 3), 30.0, dtype=torch.float64), rtol=0, atol=1e-4)


def test_cameras_all_around_stand_evenly_on_the_sphere():
    """Their directions have the moments of the uniform distribution: mean 0 and second moments 1/3 of the identity."""
    cameras = all_around(200, 8, distance=2.5)
    places = -torch.einsum("bji,bj->bi", cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3]) / 2.5
    torch.testing.assert_close(places.norm(dim=1), torch.ones(200))
    assert places.mean(0).abs().max() < 0.01
    assert (places.T @ places / 200 - torch.eye(3) / 3).abs().max() < 0.01
    apart = torch.cdist(places, places).fill_diagonal_(9.0).amin(1)
    assert apart.min() > 0.5 * apart.max()  # no two of them crowd


def test_golden_azimuths_cut_the_circle_in_the_golden_ratio():
    first, second = golden_azimuths(2, first=30.0).tolist()
    step = second - first
    assert first == 30.0 and (360.0 - step) / step == pytest.approx((1 + 5**0.5) / 2)
