"""A run that is watched: what the looker gets, and what the loop pays."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from gsdistill.core.errors import NotInstalled
from gsdistill.training.distiller import Distiller, Step
from gsdistill.viewer import live
from gsdistill.viewer.live import LiveView
from gsdistill.viewer.splat import UNIT

pytest.importorskip("viser")

TOTAL = 100


@pytest.fixture
def watch(console):
    """A live view of a run of a hundred steps, and its address."""
    with LiveView(TOTAL, 0, console) as view:
        yield view, console.file.getvalue().split()[-1]


def record(step, count=10):
    return Step(step, torch.tensor(1.5), {}, 1, count, torch.tensor(True), torch.zeros(1, 2, 2, 3))


def run_of(splat):
    return Mock(Distiller, representation=SimpleNamespace(splat=lambda: splat))


def test_without_a_looker_nothing_is_copied(watch, splat):
    view, _ = watch
    view.on_step(record(1), run_of(splat(10)))
    assert view._shown is None


def test_a_looker_gets_the_splat_as_it_was_then(watch, splat, look):
    view, url = watch
    looker, moving = look(url), replace(splat(10), means=splat(10).means.requires_grad_())
    while not view._stage.watched:
        looker.receive(0.01)
    view.on_step(record(7), run_of(moving))
    with torch.no_grad():
        moving.means.add_(5.0)
    looker.until(lambda: bool(looker.buffers))
    np.testing.assert_allclose(looker.centers()[:10] * UNIT, splat(10).means, atol=1e-6)
    assert view._status.content == "**step 7** of 100, 10 Gaussians, loss 1.5"


def test_pictures_come_as_often_as_their_cost_allows_and_the_last_one_always(watch, splat, look, monkeypatch):
    view, url = watch
    look(url)
    while not view._stage.watched:
        time.sleep(0.01)
    view._stage.close()  # which would measure what its drawings cost
    now = 1000.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    view._stage.cost = 0.1  # seconds; at two in a hundred: one picture in five seconds
    taken = []
    for step in range(1, TOTAL + 1):
        before = view._shown
        view.on_step(record(step), run_of(splat(10)))
        taken += [step] if view._shown is not before else []
        now += 0.25
    assert taken[-1] == TOTAL
    assert [b - a for a, b in pairwise(taken[:-1])] == [20] * (len(taken) - 2)


def test_who_comes_late_gets_the_last_picture(watch, splat, look):
    view, url = watch
    first = look(url)
    while not view._stage.watched:
        first.receive(0.01)
    view.on_step(record(1), run_of(splat(10)))
    late = look(url)
    late.until(lambda: bool(late.buffers))
    np.testing.assert_allclose(late.centers()[:10] * UNIT, splat(10).means, atol=1e-6)


def test_it_is_refused_before_the_work_where_viser_is_missing(console, monkeypatch):
    monkeypatch.setattr("gsdistill.core.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match="watching a run needs viser"):
        LiveView(TOTAL, 0, console)
