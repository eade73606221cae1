"""What a run's settings read besides themselves: files of prompts, and recipes under what is given."""

from __future__ import annotations

import pytest

from gsdistill.core.errors import BadFile
from gsdistill.run import config as runconfig
from gsdistill.run.config import read_prompts, resolve
from gsdistill.settings.config import name_of


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a red cube\n\n  a blue ring \n", ("a red cube", "a blue ring")),
        (b"\xef\xbb\xbf# animals\r\na corgi, 50% off #1\r\n   # none\r\n", ("a corgi, 50% off #1",)),
        ("ein Gr\u00fcner W\u00fcrfel".encode(), ("ein Gr\u00fcner W\u00fcrfel",)),
    ],
)
def test_each_line_of_a_file_is_a_prompt(content, expected, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(content)
    assert read_prompts(tmp_path / "prompts.txt") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompt"),
        (b"# a cube\n \n", "holds no prompt"),
        (b"caf\xe9", "is not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_without_a_prompt_is_refused(content, message, tmp_path):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFile, match=message) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


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
