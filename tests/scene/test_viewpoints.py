import math

import pytest
import torch

from gsdistill.scene.viewpoints import all_around, golden_azimuths, look_at, look_at_origin, orbit


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


def test_looking_at_the_origin_with_z_upwards_is_the_rule_of_the_angles():
    azimuths, elevations = torch.linspace(-170.0, 350.0, 40), torch.linspace(-89.0, 89.0, 40)
    cameras = look_at_origin(azimuths, elevations, torch.linspace(1.0, 5.0, 40), torch.full((40,), 40.0), 64)
    views = cameras.viewmats.double()
    positions = -torch.einsum("bji,bj->bi", views[:, :3, :3], views[:, :3, 3])
    ups = torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64).expand(40, 3)
    torch.testing.assert_close(look_at(positions, torch.zeros_like(positions), ups), views, rtol=0, atol=1e-5)


def test_a_camera_draws_its_target_in_the_middle_and_up_upwards():
    generator = torch.Generator().manual_seed(8)
    positions, targets, ups = torch.randn(3, 50, 3, generator=generator, dtype=torch.float64)
    views = look_at(positions, targets, ups)
    seen = torch.einsum("bij,bj->bi", views[:, :3, :3], targets) + views[:, :3, 3]
    torch.testing.assert_close(seen[:, :2], torch.zeros(50, 2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(seen[:, 2], (targets - positions).norm(dim=1))
    upwards = torch.einsum("bij,bj->bi", views[:, :3, :3], ups)
    assert upwards[:, 0].abs().max() < 1e-12 and upwards[:, 1].max() < 0  # y points down
    assert torch.allclose(torch.linalg.det(views), torch.ones(50, dtype=torch.float64))


def test_orbit_steps_evenly_from_the_front():
    cameras = orbit(8, 32, elevation=15.0, distance=3.0, fov=35.0)
    assert cameras.azimuths.tolist() == [0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0]
    assert cameras.viewmats.dtype == cameras.Ks.dtype == torch.float32 and len(cameras) == 8
    assert (cameras.width, cameras.height) == (32, 32)


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
