"""kill -9 at random moments and before single changes; the long form is `python tools/fault_drills.py --sweep`."""

from __future__ import annotations

import shutil

from faults.common import ITERATIONS, METHOD


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(drills, whole, tmp_path):
    one = drills.victim(METHOD, ITERATIONS, tmp_path / "run", whole)
    outcome = drills.drill(one, drills.moments(1, 2.0, seed=0, most=4))
    assert outcome.wrong == () and outcome.kills


def test_killed_before_single_changes(drills, whole, tmp_path):
    """Nothing drawn yet, a checkpoint whose records are not there yet, and all but the last file written."""
    one = drills.victim(METHOD, ITERATIONS, tmp_path / "run", whole)
    places = ((1, "-start.png"), (3, "metrics.jsonl"), (2, "step-000004.safetensors"), (1, "-report.html"))
    blows = [drills.Blow(change=change, path=path) for change, path in places]
    outcome = drills.drill(one, [*blows, None])
    assert outcome.wrong == () and [kill.blow for kill in outcome.kills] == blows


def test_killed_while_an_earlier_run_is_removed(drills, whole, tmp_path):
    """What is left of it is not taken for a finished run."""
    earlier = tmp_path / "earlier"
    shutil.copytree(whole, earlier)
    config = earlier / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    one = drills.victim(METHOD, ITERATIONS, tmp_path / "run", whole, earlier=earlier)
    outcome = drills.drill(one, [drills.Blow(change=4), *drills.REST])
    assert outcome.wrong == () and outcome.anew == 1
