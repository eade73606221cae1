"""Where a run first is good enough, and means that count a run which never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tooling
import torch

from gsdistill.core.structs import Gaussians
from gsdistill.evaluation.views import iou, photograph, truth
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.init.ply import Ply
from gsdistill.worlds.base import world_named
from gsdistill.worlds.shapes.captions import parse

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool() -> Any:
    return tooling.tool("bench/time_to_quality")


def grown(share: float) -> Gaussians:
    """An opaque ball of ``share`` of the sphere's radius."""
    start = Ball(count=2000).create("", torch.Generator().manual_seed(0))
    values = {key: value.clone() for key, value in start.tensors().items()}
    values["means"] = values["means"] * (share * 0.45 / values["means"].norm(dim=-1).max())
    values["scales"] = torch.full_like(values["scales"], -3.6)
    values["opacities"] = torch.full_like(values["opacities"], 4.0)
    return Gaussians(**values)


@pytest.mark.slow
def test_the_crossing_is_the_first_splat_that_reaches_the_goal(tool):
    true = truth(world_named("shapes"), parse("a red sphere"))
    splats = [grown(share) for share in (0.2, 0.5, 0.8, 1.0, 1.2, 1.6)]
    found = [iou(photograph(splat), true) for splat in splats]
    assert min(found) < 0.2 and max(found) > tool.GOAL
    assert tool.crossing(splats, true) == next(i for i, value in enumerate(found) if value >= tool.GOAL) > 0
    assert tool.crossing(splats[:1], true) is None


def test_a_run_that_never_gets_there_counts_with_its_end(tool):
    rows = [
        {"goal": 2.0, "end": 10.0, "first_step": 1.0, "iou": 0.9},
        {"goal": None, "end": 20.0, "first_step": 2.0, "iou": 0.5},
    ]
    assert tool.summary(rows) == {"goal": 11.0, "first_step": 1.5, "end": 15.0, "iou": 0.7}


@pytest.mark.slow
def test_the_whole_command_is_timed_step_by_step(tool, tmp_path):
    """With three steps; the last splat is the one that the run wrote."""
    flags = ["--method", "sds", "--prompt", "a red sphere", "--iterations", "3", "--densify.final-opacity", "0"]
    seconds, ended, splats = tool.generate(ROOT, tmp_path, flags)
    written = Ply(path=tmp_path / "run" / "gaussians.ply").create("", torch.Generator())
    torch.testing.assert_close(splats[-1].means, written.means)
    assert len(seconds) == len(splats) == 3 and 0 < seconds[0] < seconds[1] < seconds[2] < ended
    assert not torch.equal(splats[0].means, splats[2].means)
