"""The distance functions against surfaces written down here on their own: points on parametric patches."""

import math

import numpy as np
import pytest

from gsdistill.worlds.shapes.captions import SHAPES
from gsdistill.worlds.shapes.solids import BOUNDING_RADIUS, HEIGHTS, distances, normals
from gsdistill.worlds.shapes.world import every_layout

TAU = 2 * math.pi
LAYOUTS = every_layout()
EXACT = ("sphere", "cube", "torus", "cone", "cylinder", "capsule", "octahedron", "pyramid", "star", "ring")
UNIONS = ("cross", "table", "chair")


def patch(point, u, v, steps=130):
    """Points [M, 3] of the surface ``point(u, v)`` on a grid over two closed ranges."""
    grid = np.meshgrid(np.linspace(*u, steps), np.linspace(*v, steps), indexing="ij")
    x, y, z = np.broadcast_arrays(*point(*grid))
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)


def triangle(a, b, c):
    a, b, c = (np.array(corner, dtype=float) for corner in (a, b, c))
    steps = 2 + int(max(np.linalg.norm(b - a), np.linalg.norm(c - b), np.linalg.norm(a - c)) / 0.012)
    grid = np.meshgrid(np.linspace(0, 1, steps), np.linspace(0, 1, steps))
    u, v = grid[0].reshape(-1, 1), grid[1].reshape(-1, 1)
    return a + u * (b - a) + u * v * (c - b)


def quad(a, b, c, d):
    return np.concatenate([triangle(a, b, c), triangle(a, c, d)])


def box(centre, half):
    """The six faces of a box."""
    faces = []
    for axis in range(3):
        u, v = (np.eye(3)[k] * half[k] for k in range(3) if k != axis)
        for sign in (-1, 1):
            middle = np.array(centre) + sign * np.eye(3)[axis] * half[axis]
            faces.append(quad(middle - u - v, middle + u - v, middle + u + v, middle - u + v))
    return np.concatenate(faces)


def turned(radius, height, t=(0.0, 1.0)):
    """A surface of revolution about z from its profile."""
    return patch(lambda a, s: (radius(s) * np.cos(a), radius(s) * np.sin(a), height(s)), (0, TAU), t, 220)


def ring_about(major, minor):
    """A torus about z."""

    def point(a, b):
        return (major + minor * np.cos(b)) * np.cos(a), (major + minor * np.cos(b)) * np.sin(a), minor * np.sin(b)

    return patch(point, (0, TAU), (0, TAU), 260)


def corners_of_the_star():
    angles = np.arange(10) * TAU / 10
    radii = np.where(np.arange(10) % 2, 0.38, 0.86)
    return np.stack([radii * np.sin(angles), radii * np.cos(angles)], axis=1)  # y and z, one point straight up


def star():
    ring, parts = corners_of_the_star(), []
    for (ay, az), (by, bz) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        parts += [triangle((x, 0, 0), (x, ay, az), (x, by, bz)) for x in (-0.17, 0.17)]
        parts.append(quad((-0.17, ay, az), (0.17, ay, az), (0.17, by, bz), (-0.17, by, bz)))
    return np.concatenate(parts)


def pyramid():
    base = [(s * 0.55, t * 0.55, -0.52) for s, t in ((1, 1), (-1, 1), (-1, -1), (1, -1))]
    sides = [triangle((0, 0, 0.76), base[k], base[(k + 1) % 4]) for k in range(4)]
    return np.concatenate([quad(*base), *sides])


def octahedron():
    s = 0.88
    return np.concatenate(
        [triangle((a * s, 0, 0), (0, b * s, 0), (0, 0, c * s)) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    )


def capsule():
    cap = turned(lambda s: 0.34 * np.cos(s), lambda s: 0.5 + 0.34 * np.sin(s), (0, TAU / 4))
    return np.concatenate([cap, cap * [1, 1, -1], turned(lambda s: 0.34, lambda s: s, (-0.5, 0.5))])


def cylinder():
    lid = turned(lambda s: s, lambda s: 0.65, (0, 0.5))
    return np.concatenate([lid, lid * [1, 1, -1], turned(lambda s: 0.5, lambda s: s, (-0.65, 0.65))])


def cone():
    side = turned(lambda s: 0.62 * s, lambda s: 0.72 - 1.34 * s)
    return np.concatenate([side, turned(lambda s: 0.62 * s, lambda s: -0.62)])


BOXES = {
    "cross": [((0, 0, 0), np.where(np.eye(3)[k], 0.76, 0.22)) for k in range(3)],
    "table": [((0, 0, 0.35), (0.5, 0.6, 0.07))]
    + [((a * 0.4, b * 0.5, -0.1), (0.075, 0.075, 0.46)) for a in (-1, 1) for b in (-1, 1)],
    "chair": [((0, 0, -0.08), (0.36, 0.36, 0.07)), ((-0.3, 0, 0.34), (0.06, 0.36, 0.42))]
    + [((a * 0.29, b * 0.29, -0.42), (0.07, 0.07, 0.3)) for a in (-1, 1) for b in (-1, 1)],
}


def boxes(name):
    """The faces of the boxes, without what lies inside of another one."""
    faces = np.concatenate([box(*one) for one in BOXES[name]])
    return faces[~inside_boxes(name, faces, -1e-9)]


def inside_boxes(name, p, margin=0.0):
    """Whether points are inside of a box that is grown by ``margin``."""
    return np.any([(np.abs(p - centre) < np.array(half) + margin).all(1) for centre, half in BOXES[name]], axis=0)


SURFACES = {
    "sphere": lambda: turned(lambda s: 0.75 * np.cos(s), lambda s: 0.75 * np.sin(s), (-TAU / 4, TAU / 4)),
    "cube": lambda: box((0, 0, 0), (0.52, 0.52, 0.52)),
    "torus": lambda: ring_about(0.62, 0.24),
    "ring": lambda: ring_about(0.73, 0.09)[:, [2, 0, 1]],
    "cone": cone,
    "cylinder": cylinder,
    "capsule": capsule,
    "octahedron": octahedron,
    "pyramid": pyramid,
    "star": star,
    **{name: (lambda name=name: boxes(name)) for name in UNIONS},
}


def inside_the_star(p):
    """Folded into the wedge between a point and a notch, the inside is below the straight edge between them."""
    angle = np.abs(np.remainder(np.arctan2(p[:, 1], p[:, 2]) + TAU / 10, TAU / 5) - TAU / 10)
    r = np.hypot(p[:, 1], p[:, 2])
    u, v = r * np.cos(angle), r * np.sin(angle)
    notch = 0.38 * np.array([math.cos(TAU / 10), math.sin(TAU / 10)])
    edge = (notch[0] - 0.86) * v - notch[1] * (u - 0.86)
    return (edge > 0) & (np.abs(p[:, 0]) < 0.17)


INSIDE = {
    "sphere": lambda p: (p**2).sum(1) < 0.75**2,
    "cube": lambda p: np.abs(p).max(1) < 0.52,
    "torus": lambda p: (np.hypot(p[:, 0], p[:, 1]) - 0.62) ** 2 + p[:, 2] ** 2 < 0.24**2,
    "ring": lambda p: (np.hypot(p[:, 1], p[:, 2]) - 0.73) ** 2 + p[:, 0] ** 2 < 0.09**2,
    "cone": lambda p: (p[:, 2] > -0.62) & (np.hypot(p[:, 0], p[:, 1]) < 0.62 * (0.72 - p[:, 2]) / 1.34),
    "cylinder": lambda p: (np.abs(p[:, 2]) < 0.65) & (np.hypot(p[:, 0], p[:, 1]) < 0.5),
    "capsule": lambda p: ((p - np.clip(p, [0, 0, -0.5], [0, 0, 0.5])) ** 2).sum(1) < 0.34**2,
    "octahedron": lambda p: np.abs(p).sum(1) < 0.88,
    "pyramid": lambda p: (p[:, 2] > -0.52) & (np.abs(p[:, :2]).max(1) < 0.55 * (0.76 - p[:, 2]) / 1.28),
    "star": inside_the_star,
    **{name: (lambda p, name=name: inside_boxes(name, p)) for name in UNIONS},
}


def queries(count, seed=0):
    """Points of all kinds: far and near, and in every octant."""
    return np.random.default_rng(seed).uniform(-1.1, 1.1, (count, 3))


def to_nearest(points, surface):
    squares = (points**2).sum(1)[:, None] + (surface**2).sum(1) - 2 * points @ surface.T
    return np.sqrt(squares.min(1).clip(0))


def alone(name):
    return LAYOUTS[(name,)]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_distance_is_exact_outside_and_inside(name):
    points, surface = queries(250), SURFACES[name]()
    signed = distances(alone(name), points)
    inside = INSIDE[name](points)
    assert (inside == (signed < 0)).all() and (inside.any() or name == "ring")
    excess = to_nearest(points, surface) - np.abs(signed)
    # A sample is never nearer than the surface, and a grid of spacing h misses the nearest point by less than h.
    assert excess.min() > -1e-9
    assert excess.max() < 0.02 and np.median(excess) < 2e-3
    assert (excess[np.abs(signed) > 0.1] < 2e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", UNIONS)
def test_unions_of_boxes_are_exact_outside_and_right_in_sign(name):
    points, surface = queries(250), SURFACES[name]()
    signed = distances(alone(name), points)
    inside = INSIDE[name](points)
    assert (inside == (signed < 0)).all() and inside.any()
    excess = to_nearest(points, surface) - signed
    assert excess[~inside].min() > -1e-9 and excess[~inside].max() < 0.02
    assert (to_nearest(points, surface)[inside] > -signed[inside] - 1e-9).all()  # a bound inside


@pytest.mark.slow
def test_mug_is_a_wall_a_floor_and_a_handle_on_the_side_of_plus_y():
    wall = [turned(lambda s, r=r: r, lambda s: s, (-0.56, 0.56)) for r in (0.485, 0.375)]
    rim = turned(lambda s: s, lambda s: 0.56, (0.375, 0.485))
    floor = [turned(lambda s: s, lambda s, z=z: z, (0, r)) for z, r in ((-0.56, 0.485), (-0.44, 0.375))]
    handle = ring_about(0.27, 0.08)[:, [2, 0, 1]] + [0, 0.5, 0]
    handle = handle[np.hypot(handle[:, 0], handle[:, 1]) > 0.485]
    surface = np.concatenate([*wall, rim, *floor, handle]) - [0, 0.14, 0]
    points = queries(300)
    signed, sampled = distances(alone("mug"), points), to_nearest(points, surface)
    outside = signed > 0
    assert (sampled[outside] > signed[outside] - 1e-9).all()
    assert (sampled[outside] - signed[outside] < 0.02).mean() > 0.97  # a bound near the ends of the handle
    assert np.median(np.abs(distances(alone("mug"), surface[::50]))) < 1e-12
    assert distances(alone("mug"), np.array([[0.0, 0.62, 0.0], [0.0, -0.9, 0.0], [0.0, -0.14, 0.2]])).tolist() == (
        pytest.approx([-0.07, 0.275, 0.375])
    )


@pytest.mark.parametrize("names", LAYOUTS, ids=" on ".join)
def test_distance_never_changes_faster_than_the_place(names):
    rng = np.random.default_rng(1)
    p = rng.uniform(-1.2, 1.2, (4000, 3))
    q = p + rng.normal(size=p.shape) * 10.0 ** rng.uniform(-5, 0, (4000, 1))
    change = np.abs(distances(LAYOUTS[names], p) - distances(LAYOUTS[names], q))
    assert (change <= np.linalg.norm(p - q, axis=1) + 1e-12).all()


@pytest.mark.parametrize("name", SHAPES)
def test_gradient_has_length_one_and_is_the_normal(name):
    points, h = queries(2000, seed=2), 1e-6
    steps = h * np.eye(3)
    gradient = np.stack(
        [distances(alone(name), points + step) - distances(alone(name), points - step) for step in steps], axis=1
    ) / (2 * h)
    length = np.linalg.norm(gradient, axis=1)
    smooth = np.abs(length - 1) < 1e-6
    assert smooth.mean() > 0.999  # all but points within h of the medial axis
    assert np.abs(normals(alone(name), points)[smooth] - gradient[smooth]).max() < 1e-5


@pytest.mark.parametrize("name", [*EXACT, *UNIONS])
def test_walking_the_distance_against_the_normal_ends_on_the_surface(name):
    points = queries(2000, seed=3)
    signed = distances(alone(name), points)
    points, signed = points[signed > 0.02], signed[signed > 0.02]
    feet = points - signed[:, None] * normals(alone(name), points)
    assert np.quantile(np.abs(distances(alone(name), feet)), 0.995) < 1e-8


def unit(v):
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def test_normals_are_those_of_the_closed_forms():
    p = queries(2000, seed=4)
    radial = unit(p * [1, 1, 0])
    signed = {name: distances(alone(name), p) for name in SHAPES}
    n = {name: normals(alone(name), p) for name in SHAPES}
    assert np.abs(n["sphere"] - unit(p)).max() < 1e-7
    away = p - 0.62 * radial
    far = np.linalg.norm(away, axis=1) > 0.01
    assert np.abs(n["torus"] - unit(away))[far].max() < 1e-6
    rod = p - np.clip(p, [0, 0, -0.5], [0, 0, 0.5])
    assert np.abs(n["capsule"] - unit(rod)).max() < 1e-6
    corner = np.maximum(np.abs(p) - 0.52, 0) * np.sign(p)
    outside = (signed["cube"] > 0.03) & (np.abs(np.abs(p) - 0.52) > 1e-4).all(1)  # not across an edge of a face
    assert np.abs(n["cube"][outside] - unit(corner[outside])).max() < 1e-6
    side = (signed["cylinder"] > 1e-3) & (np.abs(p[:, 2]) < 0.64)
    assert side.any() and np.abs(n["cylinder"] - radial)[side].max() < 1e-6
    foot = np.abs(p) - (np.abs(p).sum(1, keepdims=True) - 0.88) / 3
    face = (foot > 1e-3).all(1)
    assert face.any() and np.abs(n["octahedron"] - np.sign(p) / math.sqrt(3))[face].max() < 1e-6
    slope = np.array([1.34, 0.62]) / math.hypot(1.34, 0.62)
    side = (np.abs(signed["cone"]) < 0.05) & (p[:, 2] > -0.4) & (p[:, 2] < 0.5) & (np.hypot(p[:, 0], p[:, 1]) > 0.06)
    assert side.any()
    assert np.abs(n["cone"] - (radial * slope[0] + [0, 0, slope[1]]))[side].max() < 1e-6
    slope = np.array([1.28, 0.55]) / math.hypot(1.28, 0.55)
    side = (np.abs(signed["pyramid"]) < 0.03) & (np.abs(p[:, 2]) < 0.4) & (p[:, 0] > np.abs(p[:, 1]) + 0.05)
    assert side.any() and np.abs(n["pyramid"] - [slope[0], 0, slope[1]])[side].max() < 1e-6


@pytest.mark.parametrize("name", SHAPES)
def test_heights_are_those_of_the_solid(name):
    low, high = HEIGHTS[SHAPES.index(name)]
    axis = np.arange(-0.95, 0.95, 0.004)
    flat = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for z, touches in ((high - 0.01, True), (high + 1e-9, False), (low + 0.01, True), (low - 1e-9, False)):
        level = np.column_stack([flat, np.full(len(flat), z)])
        assert (distances(alone(name), level).min() < 0) == touches


@pytest.mark.parametrize("names", LAYOUTS, ids=" on ".join)
def test_everything_is_inside_the_ball(names):
    rng = np.random.default_rng(5)
    shell = unit(rng.normal(size=(20000, 3))) * rng.uniform(BOUNDING_RADIUS, 1.3, (20000, 1))
    assert distances(LAYOUTS[names], shell).min() > 0
