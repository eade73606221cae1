"""Changes of a whole splat, held against pictures and against closed forms."""

from dataclasses import replace

import pytest
import torch
from export.scenes import pebble, pictures, psnr

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.renderer.base import render
from gsdistill.renderer.harmonics import sh_basis
from gsdistill.scene.edit import (
    about_axis,
    colour_matrix,
    in_ball,
    in_box,
    join,
    large_parts,
    most_important,
    moved,
    picked,
    recoloured,
    scaled,
)
from gsdistill.scene.turn import turned
from gsdistill.scene.viewpoints import look_at_origin

Z = (0.0, 0.0, 1.0)


def view(gaussians: Gaussians, azimuth: float = 25.0, elevation: float = 15.0, distance: float = 2.6) -> torch.Tensor:
    """One picture before black, [64, 64, 3]."""
    angles = (torch.tensor([value]) for value in (azimuth, elevation, distance, 40.0))
    with torch.no_grad():
        return render(gaussians, look_at_origin(*angles, 64), torch.zeros(1, 3)).images[0]


def mild(count: int, degree: int) -> Gaussians:
    """A pebble whose colours stay within 0..1 from everywhere, and away from the ends."""
    stone = pebble(count, degree)
    return replace(stone, sh=0.3 * stone.sh)


@pytest.mark.parametrize("degrees", [90.0, -37.0, 400.0])
def test_a_turned_splat_is_seen_as_from_a_camera_that_went_the_other_way(degrees):
    stone = pebble(400, 3)
    difference = view(turned(stone, about_axis(Z, degrees))) - view(stone, azimuth=25.0 - degrees)
    assert difference.abs().max() < 2e-4
    assert (view(turned(stone, about_axis(Z, degrees))) - view(stone)).abs().max() > 0.2


@pytest.mark.parametrize("length", [1.0, 7.0, 1e-13, 1e-200, 1e200])
def test_a_rotation_is_about_its_axis_counter_clockwise(length):
    quarter = about_axis((0.0, length, 0.0), 90.0)
    assert torch.allclose(quarter @ torch.tensor([0.0, 0.0, 1.0]).double(), torch.tensor([1.0, 0.0, 0.0]).double())
    assert torch.allclose(quarter @ torch.tensor([0.0, 1.0, 0.0]).double(), torch.tensor([0.0, 1.0, 0.0]).double())


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_scaled_splat_is_the_same_from_a_distance_scaled_with_it(factor):
    stone = pebble(400, 3)
    assert (view(scaled(stone, factor), distance=2.6 * factor) - view(stone)).abs().max() < 2e-4


def test_a_move_along_the_axis_of_the_camera_is_a_nearer_camera():
    stone = pebble(400, 0)
    assert (view(moved(stone, (0.7, 0.0, 0.0)), 0.0, 0.0, 3.3) - view(stone, 0.0, 0.0, 2.6)).abs().max() < 2e-4
    assert torch.equal(moved(stone, (0.0, 0.0, 0.0)).means, stone.means)


def test_two_halves_joined_are_the_whole_and_lower_degrees_are_padded():
    stone = pebble(400, 2)
    left = in_box(stone, (-2.0, -2.0, -2.0), (2.0, 0.0, 2.0))
    assert 100 < int(left.sum()) < 300
    both = join([picked(stone, left), picked(stone, ~left)])
    assert psnr(pictures(both), pictures(stone)) > 60
    plain = join([pebble(10, 0), pebble(10, 3)])
    assert plain.sh.shape == (20, 16, 3) and not plain.sh[:10, 1:].any()
    assert torch.equal(plain.sh[:10, :1], pebble(10, 0).sh) and torch.equal(plain.sh[10:], pebble(10, 3).sh)


def test_box_and_ball_go_by_the_centres_and_hold_their_border():
    means = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, -0.5]])
    four = replace(pebble(4, 0), means=means)
    assert in_box(four, (0.0, -1.0, 0.0), (1.0, 0.5, 1.0)).tolist() == [True, True, False, False]
    assert in_ball(four, (0.0, 0.0, 0.0), 1.0).tolist() == [True, True, False, True]
    assert in_ball(four, (1.0, 1.0, 0.0), 0.1).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("most", "share", "kept"),
    [(1, 0.0, {0}), (2, 0.0, {0, 1}), (9, 0.25, {0, 1}), (9, 0.0, {0, 1, 2, 3}), (9, 0.8, set()), (1, 0.25, {0})],
)
def test_parts_are_kept_by_their_summed_opacity(most, share, kept):
    labels = torch.tensor([3, 0, 1, 2, 0, 1])  # sums of 0.2, 1.4, 1.2 and 0.5
    opacities = torch.logit(torch.tensor([0.2, 0.9, 0.9, 0.5, 0.5, 0.3]))
    keep = large_parts(replace(pebble(6, 0), opacities=opacities), labels, most, share)
    assert set(labels[keep].tolist()) == kept
    assert int(keep.sum()) == int(torch.isin(labels, torch.tensor(list(kept), dtype=torch.int64)).sum())


def test_the_first_of_equals_is_kept():
    assert most_important(torch.tensor([1.0, 2.0, 1.0, 1.0]), 2).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "change",
    [{"saturation": 1.3}, {"saturation": 0.0}, {"brightness": 0.5}, {"hue": 77.0}, {"tint": (0.9, 0.2, 1.1)},
     {"hue": 20.0, "saturation": 0.7, "brightness": 1.1, "tint": (1.0, 0.9, 0.8)}],
)  # fmt: skip
def test_pixels_change_as_colours_do_from_every_side(change):
    stone, matrix = mild(300, 3), colour_matrix(**change)
    before, after = view(stone), view(recoloured(stone, matrix))
    assert (after - (before.double() @ matrix.T).float()).abs().max() < 1e-5


def test_each_colour_towards_each_direction_is_multiplied():
    stone, matrix = pebble(20, 3), torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()
    directions = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(2)), dim=1)
    basis = sh_basis(directions.double(), 3)
    before, after = (0.5 + torch.einsum("nk,nkc->nc", basis, g.sh.double()) for g in (stone, recoloured(stone, matrix)))
    assert torch.allclose(after, before @ matrix.T, atol=1e-5)


def test_the_filters_do_what_their_names_say():
    red, green, grey = (torch.tensor(c).double() for c in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.3, 0.3, 0.3)))
    assert torch.allclose(colour_matrix(hue=120.0) @ red, green)
    assert torch.allclose(colour_matrix(hue=240.0) @ colour_matrix(hue=120.0) @ red, red)
    assert torch.allclose(colour_matrix(hue=55.0, saturation=2.0) @ grey, grey)
    assert torch.allclose(colour_matrix(saturation=0.0) @ red, torch.full((3,), 0.2126).double())
    assert torch.allclose(colour_matrix(brightness=2.0) @ grey, 2.0 * grey)
    assert torch.allclose(
        colour_matrix(saturation=0.0, tint=(1.0, 0.0, 0.5)) @ grey, torch.tensor([0.3, 0.0, 0.15]).double()
    )
    assert torch.equal(colour_matrix(), torch.eye(3).double())


def test_a_base_colour_in_closed_form():
    one = replace(pebble(1, 0), sh=torch.tensor([[[0.2, -0.3, 0.1]]]))
    shown = 0.5 + SH_C0 * recoloured(one, colour_matrix(tint=(0.5, 1.0, 0.0))).sh[0, 0]
    assert torch.allclose(shown, (0.5 + SH_C0 * one.sh[0, 0]) * torch.tensor([0.5, 1.0, 0.0]), atol=1e-6)
