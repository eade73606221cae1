"""What a run says of its health: closed forms on scenes of few Gaussians, and alarms for what is bad on purpose."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.scene.edit import join
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.read import read_splat
from gsdistill.training.health import Counts, Health, alarms, measure

CHAIR = Path(__file__).parents[1] / "data" / "chair.ply"


def scene(places: list[float], size: float = 0.1, opacity: float = 0.5, colour: tuple = (0.5, 0.5, 0.5)) -> Gaussians:
    """Round Gaussians on the x axis."""
    count = len(places)
    means = torch.zeros(count, 3)
    means[:, 0] = torch.tensor(places)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1)
    sh = (torch.tensor(colour).repeat(count, 1) - 0.5)[:, None] / SH_C0
    logits = torch.logit(torch.full((count,), opacity))
    return Gaussians(means, quats, torch.full((count, 3), math.log(size)), logits, sh)


@pytest.fixture(scope="module")
def ball() -> Gaussians:
    return Ball(count=500).create("", torch.Generator().manual_seed(0))


def test_the_extent_holds_95_percent_of_what_is_shown():
    near, far = [0.3] * 95, [2.0] * 5
    assert measure(scene(near + far)).extent == pytest.approx(math.hypot(0.3, 0.1), rel=1e-6)
    assert measure(scene(near[1:] + far)).extent == pytest.approx(math.hypot(2.0, 0.1), rel=1e-6)


def test_coverage_is_the_area_shown_of_the_disk_of_the_extent():
    found = measure(scene([0.3, -0.3, 0.3, -0.3], size=0.2, opacity=0.25))
    assert found.coverage == pytest.approx(4 * 0.25 * 0.2**2 / (0.3**2 + 0.2**2), rel=1e-6)


@pytest.mark.parametrize(
    ("colour", "saturation", "garish"),
    [
        ((0.5, 0.5, 0.5), 0.0, 0.0),
        ((1.0, 0.0, 0.0), 1.0, 0.0),
        ((0.8, 0.4, 0.6), 0.5, 0.0),
        ((1.2, -0.2, 0.5), 1.0, 0.0),
        ((1.3, 0.5, 0.5), 0.5, 1.0),
        ((0.5, -0.3, 0.5), 1.0, 1.0),
        ((0.0, 0.0, 0.0), 0.0, 0.0),
    ],
)
def test_colours(colour, saturation, garish):
    found = measure(scene([0.1, 0.2], colour=colour))
    assert found.saturation == pytest.approx(saturation, abs=1e-6) and found.garish == garish


def test_the_order_of_the_gaussians_does_not_matter_and_those_that_show_nothing_do_not_count(ball):
    order = torch.randperm(len(ball), generator=torch.Generator().manual_seed(1))
    shuffled = ball.each(lambda value: value[order])
    unseen = scene([50.0, 60.0], opacity=1e-12)
    more = join([ball, unseen])
    for other in (shuffled, more):
        assert asdict(measure(other)) == pytest.approx(asdict(measure(ball)), rel=1e-5)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "sh"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_numbers_that_are_not_finite_spoil_nothing_else(name, value, ball):
    broken = replace(ball, **{name: getattr(ball, name).clone()})
    getattr(broken, name).view(len(ball), -1)[3, 0] = value
    found, whole = measure(broken, measure(ball)), measure(ball)
    assert all(math.isfinite(number) for number in asdict(found).values())
    assert found.extent == pytest.approx(whole.extent, rel=0.02)
    large = value == 1e30 and name in ("quats", "opacities", "sh")  # what is made of them is finite
    assert found.broken == (0 if large else 1)
    assert ("broken" in alarms(found, whole)) is not large


def test_a_scene_without_a_visible_gaussian_has_faded(ball):
    first = measure(ball)
    gone = measure(replace(ball, opacities=torch.full_like(ball.opacities, -200.0)), first)
    assert list(alarms(gone, first)) == ["faded", "collapsed"]
    assert "only 0 times" in alarms(gone, first)["faded"]


def test_a_trained_splat_raises_no_alarm(ball):
    first = measure(ball)
    assert alarms(first, first) == {} and alarms(measure(read_splat(CHAIR), first), first) == {}


FINE = Health(0.0, 0, 0, 0.0, 0, 0.8, 1.3, 1.2, 0.0, 0.9)


@pytest.mark.parametrize(
    ("name", "values", "setting"),
    [
        ("skipped", {"skipped": 0.06}, "method.guidance_scale"),
        ("broken", {"broken": 2}, "optim"),
        ("pruned", {"pruned_share": 0.95}, "densify.prune_opacity"),
        ("inflated", {"extent": 1.6, "drift": 2.7}, "optim.means"),
        ("collapsed", {"extent": 0.3, "drift": 0.5}, "regularizers.opacity"),
        ("garish", {"garish": 0.3}, "optim.sh"),
        ("faded", {"coverage": 0.1}, "regularizers.opacity"),
    ],
)
def test_each_alarm_names_a_setting_that_there_is(name, values, setting):
    first = replace(FINE, extent=0.6, drift=1.0)
    assert alarms(FINE, first) == {}
    found = alarms(replace(FINE, **values), first)
    assert list(found) == [name] and setting in found[name] and "\n" not in found[name]


def test_a_scene_that_has_blown_up_is_not_called_faded_too():
    assert list(alarms(replace(FINE, extent=5.0, drift=8.0, coverage=0.04), FINE)) == ["inflated"]


def test_a_start_outside_of_the_unit_ball_or_a_faint_one_is_no_alarm():
    wide, faint = replace(FINE, extent=3.0, drift=1.0), replace(FINE, coverage=0.1)
    assert alarms(wide, wide) == {} and alarms(faint, faint) == {}


def test_shares_of_steps_and_of_gaussians(ball):
    found = measure(ball, None, Counts(steps=40, skipped=3, grown=700, pruned=1500))
    assert (found.skipped, found.grown, found.pruned) == (0.075, 700, 1500)
    assert found.pruned_share == 1500 / 2000
    assert list(alarms(found, measure(ball))) == ["skipped"]
