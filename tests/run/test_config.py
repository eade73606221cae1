"""What lies under the settings that are given: recipes, and what runs of earlier versions had."""

from __future__ import annotations

import pytest

from gsdistill.run import config as runconfig
from gsdistill.run.config import resolve
from gsdistill.settings.config import name_of


@pytest.mark.parametrize(
    ("given", "name", "enabled"),
    [
        ({}, "gradient", False),
        ({"enabled": True, "grow_grad2d": 2.0}, "gradient", True),  # as runs of 0.1 have it, without a name
        ("gradient", "gradient", False),
        ({"name": "mcmc"}, "mcmc", True),
        ("mcmc", "mcmc", True),
        ({"name": "mcmc", "enabled": False}, "mcmc", False),
    ],
)
def test_a_densifier_takes_what_the_recipe_says_as_far_as_it_knows_that(given, name, enabled, monkeypatch):
    recipe = {"densify": {"final_opacity": 0.3, "prune_scale3d": 0.7}}
    monkeypatch.setattr(runconfig, "read_config", lambda file: recipe)
    run = resolve({"prompt": "x", "prior": "shapes", "method": "sds", "densify": given})
    assert (name_of(run.densify), run.densify.enabled, run.densify.final_opacity) == (name, enabled, 0.3)
    assert name == "mcmc" or run.densify.prune_scale3d == 0.7


def test_what_a_run_of_an_earlier_version_does_not_name_is_as_it_was_then(tmp_path):
    """A recipe that has learnt a setting since does not decide it."""
    now = resolve({"prompt": "x", "prior": "sd15", "method": "ism"})
    assert now.pictures.flip == 0.5
    (tmp_path / "config.yaml").write_text("{prompt: x, prior: sd15, method: {name: ism}, resume: false}")
    then = resolve(runconfig.read_config(str(tmp_path)))
    assert (then.pictures.flip, then.pictures.depth, then.particles, len(then.stages)) == (0, 0, 1, 0)
