import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gsdistill.scene.viewpoints import look_at_origin, orbit
from gsdistill.worlds.base import Buffers, paint
from gsdistill.worlds.shapes.captions import parse
from gsdistill.worlds.shapes.raycast import AMBIENT, LIGHT, trace
from gsdistill.worlds.shapes.world import build, every_layout

LAYOUTS = every_layout()
DISTANCE, FOV = 3.2, 40.0


def camera(azimuth=0.0, elevation=0.0, size=64, distance=DISTANCE):
    return look_at_origin(*(torch.tensor([float(v)]) for v in (azimuth, elevation, distance, FOV)), size)


def silhouette(name, azimuth=0.0, elevation=0.0, size=64):
    """Coverage [H, W] of the whole object."""
    return (
        trace(LAYOUTS[name if isinstance(name, tuple) else (name,)], camera(azimuth, elevation, size))
        .coverage[0]
        .sum(0)
    )


def rays(cameras):
    """Origins [3] and unit directions [H, W, 3] through the pixel centres of one camera, by inverting its matrices."""
    inverse = torch.linalg.inv(cameras.viewmats[0].double())
    line = torch.arange(cameras.width).double() + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)
    directions = pixels @ torch.linalg.inv(cameras.Ks[0].double()).T @ inverse[:3, :3].T
    return inverse[:3, 3], directions / directions.norm(dim=-1, keepdim=True)


def sphere_hits(cameras, radius):
    """Whether each ray hits the sphere, and the normal there: the quadratic, solved."""
    origin, d = rays(cameras)
    b = (d * origin).sum(-1)
    disc = b**2 - (origin @ origin - radius**2)
    t = -b - disc.clamp_min(0).sqrt()
    return disc > 0, (origin + t[..., None] * d) / radius


@pytest.mark.parametrize(
    ("azimuth", "elevation", "distance"), [(0, 0, 3.2), (77, 35, 3.2), (200, -60, 2.4), (10, 90, 5)]
)
def test_sphere_is_the_disc_that_perspective_makes_of_it(azimuth, elevation, distance):
    size = 128
    seen = trace(LAYOUTS[("sphere",)], camera(azimuth, elevation, size, distance), 4).coverage[0, 0].double()
    focal = 0.5 * size / math.tan(math.radians(FOV / 2))
    radius = focal * 0.75 / math.sqrt(distance**2 - 0.75**2)  # the cone of tangent rays, cut by the image plane
    assert float(seen.sum()) == pytest.approx(math.pi * radius**2, rel=2e-3)
    line = torch.arange(size) + 0.5 - size / 2
    r = torch.hypot(line[:, None], line[None])
    assert (seen[r < radius - 1] == pytest.approx(1.0)) and (seen[r > radius + 1] == 0).all()


def test_rays_through_pixel_centres_hit_what_the_quadratic_says():
    cameras = camera(33, 21, 96)
    hit, _ = sphere_hits(cameras, 0.75)
    assert torch.equal(trace(LAYOUTS[("sphere",)], cameras, 1).coverage[0, 0] > 0.5, hit)


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (120, 50), (300, -40)])
def test_sphere_is_lit_by_the_half_lambert_law(azimuth, elevation):
    cameras = camera(azimuth, elevation, 96)
    hit, normals = sphere_hits(cameras, 0.75)
    lambert = AMBIENT + (1 - AMBIENT) * (0.5 + 0.5 * normals @ torch.tensor(LIGHT, dtype=torch.float64))
    seen = trace(LAYOUTS[("sphere",)], cameras, 1).shade[0, 0].double()
    towards = (normals * -rays(cameras)[1]).sum(
        -1
    ) > 0.1  # at grazing rays the hit may stop a little before the surface
    assert (seen - lambert)[hit & towards].abs().max() < 2e-3
    assert lambert[hit & towards].max() <= 1 and np.linalg.norm(LIGHT) == pytest.approx(1)


def test_light_comes_from_above_and_from_the_left_of_the_front():
    seen = trace(LAYOUTS[("sphere",)], camera(), 2).shade[0, 0]
    assert seen[16:32].sum() > seen[32:48].sum() and seen[:, 16:32].sum() > seen[:, 32:48].sum()


def test_cube_from_the_front_is_a_square():
    size = 128
    focal = 0.5 * size / math.tan(math.radians(FOV / 2))
    half = focal * 0.52 / (DISTANCE - 0.52)
    seen = silhouette("cube", size=size)
    assert math.sqrt(float(seen.sum())) == pytest.approx(2 * half, abs=0.34)  # three rays across a pixel
    inside = (torch.arange(size) + 0.5 - size / 2).abs() < half - 1
    assert (seen[inside][:, inside] > 0.999).all()


@pytest.mark.parametrize("names", LAYOUTS, ids=" on ".join)
def test_coverage_is_a_share_and_shade_keeps_below_it(names):
    seen = trace(LAYOUTS[names], orbit(3, 24, elevation=25.0), 2)
    assert seen.coverage.shape == seen.shade.shape == (3, len(names), 24, 24)
    assert seen.coverage.min() >= 0 and seen.coverage.sum(1).max() <= 1 + 1e-6
    assert (seen.shade <= seen.coverage + 1e-6).all() and (seen.shade >= AMBIENT * seen.coverage - 1e-6).all()
    assert (seen.coverage.amax((0, 2, 3)) > 0.99).all()  # every part is seen


@pytest.mark.parametrize("name", ["star", "chair", "ring"])
def test_more_rays_a_pixel_converge(name):
    truth = trace(LAYOUTS[(name,)], camera(30, 20, 32), 16).shade
    errors = [(trace(LAYOUTS[(name,)], camera(30, 20, 32), s).shade - truth).abs().mean().item() for s in (1, 2, 4, 8)]
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2] > 1.5**3 * errors[3]


def test_a_pixel_is_the_mean_of_the_pixels_it_is_divided_into():
    coarse, fine = (trace(LAYOUTS[("mug",)], camera(50, 30, size), s) for size, s in ((32, 4), (128, 1)))
    for one, other in ((coarse.coverage, fine.coverage), (coarse.shade, fine.shade)):
        assert (one - torch.nn.functional.avg_pool2d(other, 4)).abs().max() < 1e-5


def test_paint_composes_parts_over_the_background():
    shade = torch.zeros(2, 2, 1, 3)
    coverage = torch.zeros(2, 2, 1, 3)
    coverage[:, 0, 0, 0], shade[:, 0, 0, 0] = 1.0, 0.8  # the first part alone
    coverage[:, 0, 0, 1], shade[:, 0, 0, 1] = 0.25, 0.2  # a quarter first, a half second, a quarter background
    coverage[:, 1, 0, 1], shade[:, 1, 0, 1] = 0.5, 0.3
    colors, backgrounds = (
        torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]),
        torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]),
    )
    images, alpha = paint(Buffers(shade, coverage), colors, backgrounds)
    assert torch.allclose(alpha[0, 0, :, 0], torch.tensor([1.0, 0.75, 0.0]))
    white = torch.tensor([[0.8, 0.4, 0.0], [0.45, 0.65, 0.4], [1.0, 1.0, 1.0]])
    blue = torch.tensor([[0.8, 0.4, 0.0], [0.2, 0.4, 0.4], [0.0, 0.0, 1.0]])
    assert torch.allclose(images[0, 0], white) and torch.allclose(images[1, 0], blue)


def test_the_nearer_part_hides_the_other():
    parts = LAYOUTS[("sphere", "table")]
    above = trace(parts, camera(0, 80, 48), 2).coverage[0]
    below = trace(parts, camera(0, -80, 48), 2).coverage[0]
    assert above[0].sum() > 5 * below[0].sum() and above[0, 20:28, 20:28].min() > 0.99
    assert below[1, 22:26, 22:26].min() > 0.99


@pytest.mark.parametrize("name", ["cone", "pyramid"])
def test_up_is_up(name):
    seen = silhouette(name)
    assert seen[:32].sum() < 0.6 * seen[32:].sum()  # the tip is at the top of the picture


def test_the_mug_turns_its_handle_to_the_right_of_the_front():
    for azimuth, right in ((0, True), (180, False)):
        seen = silhouette("mug", azimuth)
        widths = (seen > 0.5).sum(0).float()
        left_part, right_part = widths[:14].sum(), widths[50:].sum()
        assert (right_part > left_part) == right
        rows = (seen > 0.5).any(1).nonzero()
        handle = (seen[:, 46:] if right else seen[:, :18].flip(1)) > 0.5
        middle = handle[int(rows.min()) + 12 : int(rows.max()) - 12]
        assert middle.any() and not handle[int(rows.min())].any()  # the handle is narrower than the cup is high
    side = silhouette("mug", 90)
    assert (side - side.flip(1)).abs().mean() < 0.01  # from +y the handle is in front of the cup


def test_the_chair_has_its_back_behind_the_seat():
    front, back = trace(LAYOUTS[("chair",)], camera(0, 20)), trace(LAYOUTS[("chair",)], camera(180, 20))
    # From above the front, the seat's upper face is seen below the back rest, bright as it faces up; from behind the
    # back rest hides it.
    up = AMBIENT + (1 - AMBIENT) * (0.5 + 0.5 * LIGHT[2])

    def seat(seen):
        return int(((seen.shade - up).abs() < 2e-3)[0, 0].sum())

    assert seat(front) > 3 * seat(back)
    side = silhouette("chair", 90) > 0.5  # from +y the image's right is -x, where the back rest stands
    assert side[:24, 32:].any() and not side[:24, :32].any()
    side = silhouette("chair", 270) > 0.5
    assert side[:24, :32].any() and not side[:24, 32:].any()


def test_the_star_shows_five_points_to_the_front_and_is_thin_from_the_side():
    size = 128
    front, side = silhouette("star", 0, size=size) > 0.5, silhouette("star", 90, size=size) > 0.5
    angle = torch.arange(720) * (math.tau / 720)
    focal = 0.5 * size / math.tan(math.radians(FOV / 2))
    r = focal * 0.62 / DISTANCE  # between the notches and the points
    x, y = (size / 2 + r * angle.sin()).long(), (size / 2 - r * angle.cos()).long()
    on = front[y, x]
    assert int((on & ~on.roll(1)).sum()) == 5 and on[0] and not on[360]  # one point straight up, a notch below
    width = side.any(0).sum()
    assert width < 0.3 * front.any(0).sum()
    assert torch.equal(front, front.flip(1))


def test_the_ring_stands_up_and_faces_the_front():
    front, side = silhouette("ring", 0) > 0.5, silhouette("ring", 90) > 0.5
    assert not front[32, 32] and front[32].any() and side[32, 32]
    assert side.any(0).sum() < 0.2 * front.any(0).sum()


def test_a_turned_camera_sees_a_turned_picture():
    seen = trace(LAYOUTS[("cube",)], orbit(4, 48, elevation=30.0), 2).coverage
    assert torch.allclose(seen[0], seen[1], atol=0.3) and (seen - seen[:1]).abs().mean() < 1e-3


def test_the_same_call_gives_the_same_bits_on_any_number_of_threads():
    cameras, parts = orbit(5, 40), LAYOUTS[("octahedron", "table")]
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(trace(parts, cameras))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert torch.equal(results[0].shade, other.shade) and torch.equal(results[0].coverage, other.coverage)


def test_two_threads_may_trace_at_once():
    cameras, parts = orbit(3, 32), LAYOUTS[("mug",)]
    alone = trace(parts, cameras)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(trace, parts, cameras) for _ in range(4)]
    assert all(torch.equal(job.result().shade, alone.shade) for job in both)


def test_a_named_object_is_painted_in_its_colours():
    world = build(parse("a red sphere on a blue table"))
    images, alpha = paint(trace(world.parts, camera(0, 10)), torch.from_numpy(world.colors), torch.full((1, 3), 0.5))
    upper, lower = images[0, 20, 32], images[0, 46:60][alpha[0, 46:60, :, 0] > 0.99].mean(0)
    assert upper[0] > 3 * upper[2] and lower[2] > 2 * lower[0]
    assert torch.equal(images[0, 0, 0], torch.full((3,), 0.5))
