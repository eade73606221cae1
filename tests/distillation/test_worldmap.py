"""World-map noise against its index formula, written out element by element."""

from __future__ import annotations

import math

import pytest
import torch

from gsdistill.core.structs import Cameras
from gsdistill.distillation import worldmap
from gsdistill.scene.viewpoints import look_at_origin

SHAPES = [((3, 4, 4), 180.0), ((2, 3, 6), 90.0), ((1, 8, 4), 60.0)]
every_shape = pytest.mark.parametrize(("shape", "field"), SHAPES)


def looking(azimuths: list[float], elevations: list[float]) -> Cameras:
    a, e = torch.tensor(azimuths), torch.tensor(elevations)
    return look_at_origin(a, e, torch.full_like(a, 3.2), torch.full_like(a, 40.0), 8)


def sheet_of(shape, field, seed=0):
    return worldmap.draw(shape, field, torch.Generator().manual_seed(seed))


@every_shape
def test_the_sheet_is_periodic_in_azimuth(shape, field):
    """Of (180 / theta + 1) h rows and (360 / theta + 1) w columns, each half of the last w repeats what it should."""
    channels, h, w = shape
    sheet = sheet_of(shape, field)
    rows, period = round(180 / field) * h, round(360 / field) * w
    assert sheet.shape == (channels, rows + h, period + w)
    assert torch.equal(sheet[:, :, : w // 2], sheet[:, :, period : period + w // 2])
    assert torch.equal(sheet[:, :, w // 2 : w], sheet[:, :, period + w // 2 :])
    free = sheet[:, :, :period]
    assert free.unique().numel() == free.numel()  # and nothing else repeats


@every_shape
def test_each_camera_sees_the_window_of_the_formula(shape, field):
    generator = torch.Generator().manual_seed(1)
    azimuths = [*(720 * torch.rand(60, generator=generator) - 360).tolist(), 0.0, 360.0, -360.0, 45.0]
    elevations = [*(180 * torch.rand(60, generator=generator) - 90).tolist(), 0.0, 90.0, -90.0, -0.001]
    channels, h, w = shape
    sheet, cameras = sheet_of(shape, field), looking(azimuths, elevations)
    seen = worldmap.crop(sheet, shape, cameras)
    assert seen.shape == (64, *shape)
    rows, period = round(180 / field) * h, round(360 / field) * w
    for view, a, e in zip(seen, cameras.azimuths.tolist(), cameras.elevations.tolist(), strict=True):
        top = math.floor((-e * (180 / field) * h / 180) % rows) % rows
        left = math.floor((a * (360 / field) * w / 360) % period) % period
        for channel in range(channels):
            expected = [[sheet[channel, top + y, left + x] for x in range(w)] for y in range(h)]
            assert view[channel].tolist() == torch.tensor(expected).tolist()


@every_shape
def test_a_whole_turn_changes_nothing(shape, field):
    turned = looking([10.0, 370.0, -350.0, 350.0, -10.0], [20.0] * 5)
    first, second, third, left, right = worldmap.crop(sheet_of(shape, field), shape, turned)
    assert torch.equal(first, second) and torch.equal(first, third)
    assert torch.equal(left, right)


@pytest.mark.parametrize("field", [50.0, 95.0, 130.0])
def test_a_whole_turn_changes_nothing_where_the_field_does_not_divide_the_circle(field):
    cameras = looking([0.0, 360.0, -30.0, 330.0], [0.0] * 4)
    first, second, left, right = worldmap.crop(sheet_of((1, 2, 2), field), (1, 2, 2), cameras)
    assert torch.equal(first, second)
    assert torch.equal(left, right)


def test_neighbours_see_shifted_windows():
    """A window of w columns covers theta degrees: a turn by k theta / w shifts it by k, across azimuth 0 too."""
    shape, field = (2, 8, 8), 90.0
    per_column = field / 8
    cameras = looking([k * per_column + 1 for k in range(-2, 3)], [-20.0] * 5)
    seen = worldmap.crop(sheet_of(shape, field), shape, cameras)
    for k in range(4):
        assert torch.equal(seen[k][:, :, 1:], seen[k + 1][:, :, :-1])
    below = worldmap.crop(sheet_of(shape, field), shape, looking([1.0, 1.0], [-20.0, -20.0 - per_column]))
    assert torch.equal(below[0][:, 1:], below[1][:, :-1])


def test_windows_are_standard_normal_and_opposite_ones_independent():
    shape, field = (4, 32, 32), 180.0
    cameras = looking([33.0, 213.0], [15.0, 15.0])
    draws = torch.stack([worldmap.crop(sheet_of(shape, field, seed), shape, cameras) for seed in range(40)])
    count = draws.numel()
    assert abs(float(draws.mean())) < 4 / count**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / count) ** 0.5
    assert abs(float((draws[:, 0] * draws[:, 1]).mean())) < 4 / (count / 2) ** 0.5
