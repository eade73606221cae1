import numpy as np
import pytest

from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.captions import BOTTOMS, COLORS, SHAPES, TOPS, parse
from gsdistill.worlds.shapes.solids import HEIGHTS, distances
from gsdistill.worlds.shapes.world import build, every_layout

LAYOUTS = every_layout()
STACKS = [names for names in LAYOUTS if len(names) == 2]
AFLOAT = {
    ("sphere", "torus"),
    ("octahedron", "torus"),
}  # they hang in the hole of the torus, with a gap of 0.09 and 0.2


def gap(names):
    """Smallest distance between the two solids: of all points, the one where the larger of the distances is least."""
    top, bottom = LAYOUTS[names][:1], LAYOUTS[names][1:]
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (60000, 3))
    both = np.maximum(distances(top, points), distances(bottom, points))
    spread = 0.1
    for _ in range(12):
        best = points[both.argmin()]
        points = np.concatenate([best[None], best + np.random.default_rng(1).normal(size=(4000, 3)) * spread])
        both = np.maximum(distances(top, points), distances(bottom, points))
        spread *= 0.5
    return max(2 * both.min(), 0.0)  # a point between two solids is half of the gap away from both


def test_the_world_is_all_solids_and_all_stacks():
    singles = [names for names in LAYOUTS if len(names) == 1]
    assert singles == [(shape,) for shape in SHAPES]
    assert [(top, bottom) for top in TOPS for bottom in BOTTOMS] == STACKS and len(LAYOUTS) == 49


def test_a_single_thing_stands_in_its_own_frame_and_colour():
    world = build(parse("a red chair"))
    assert world.parts.tolist() == [[SHAPES.index("chair"), 1.0, 0.0]]
    assert world.colors == pytest.approx(np.array([COLORS["red"]]))


@pytest.mark.parametrize("names", STACKS, ids=" on ".join)
def test_stacks_touch_are_centred_and_upright(names):
    (top, top_scale, top_z), (bottom, bottom_scale, bottom_z) = LAYOUTS[names]
    assert names == (SHAPES[int(top)], SHAPES[int(bottom)])
    highest = top_z + top_scale * HEIGHTS[int(top)][1]
    lowest = bottom_z + bottom_scale * HEIGHTS[int(bottom)][0]
    assert highest == pytest.approx(-lowest) and top_z > bottom_z
    assert (gap(names) < 0.05) == (names not in AFLOAT)


def test_the_upper_thing_comes_first_with_its_colour():
    world = build((Thing("green", "cone"), Thing("black", "table")))
    assert world.colors == pytest.approx(np.array([COLORS["green"], COLORS["black"]]))
    assert world.parts.tolist() == LAYOUTS[("cone", "table")].tolist()
