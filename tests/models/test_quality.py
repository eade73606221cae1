"""--quality fills in what neither the user nor a config says, once, and never against what a run has stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gsdistill.core.errors import ConfigError
from gsdistill.models import catalogue
from gsdistill.run.config import RunConfig, resolve
from gsdistill.settings.config import from_dict, to_dict, to_yaml
from gsdistill.settings.registry import names

BASE = {"prompt": "a red torus", "prior": "shapes", "device": "cpu"}
STEPS = resolve(BASE).iterations
QUALITIES = yaml.safe_load(Path(catalogue.__file__).with_name("qualities.yaml").read_text(encoding="utf-8"))


def changed(**given):
    """What differs from the same run of normal quality."""
    normal = to_dict(resolve({**BASE, **{key: value for key, value in given.items() if key != "quality"}}))
    return {key: value for key, value in to_dict(resolve({**BASE, **given})).items() if value != normal[key]}


def test_every_group_of_recipes_has_its_qualities_which_are_settings():
    assert QUALITIES.keys() == {card.recipes for card in catalogue.cards().values()}
    for group in QUALITIES.values():
        methods = group.keys() - {"draft", "fine"}
        assert {"draft", "fine"} <= group.keys() and methods <= set(names("gsdistill.distillation"))
        for table in (group, *(group[method] for method in methods)):
            for settings in (table[name] for name in ("draft", "fine") if name in table):
                assert settings.get("steps", 1) > 0
                from_dict(RunConfig, {"prompt": "x", **{k: v for k, v in settings.items() if k != "steps"}})


def test_normal_is_the_recipe_and_the_others_differ_from_it_by_the_table_alone():
    assert changed(quality="normal") == {}
    draft, fine = QUALITIES["shapes"]["draft"], QUALITIES["shapes"]["fine"]
    assert changed(quality="draft") == {"quality": "draft", "iterations": round(STEPS * draft["steps"])}
    found = changed(quality="fine", method="sds")
    assert found["iterations"] == round(300 * fine["steps"])
    assert found["init"]["count"] == fine["init"]["count"]
    assert found["resolution"] == fine["resolution"]
    assert found.keys() == {"quality", "iterations", "init", "resolution"}


def test_a_method_may_have_its_own():
    found, fine = changed(quality="fine", method="cds"), QUALITIES["shapes"]["cds"]["fine"]
    assert (found["views"], found["resolution"]) == (fine["views"], fine["resolution"])
    assert found["init"]["count"] == fine["init"]["count"] and "iterations" not in found
    assert changed(quality="draft", method="cds").keys() == changed(quality="draft", method="sds").keys()


def test_what_is_given_goes_before_the_quality_and_that_is_told():
    said = []
    given = {**BASE, "method": "sds", "quality": "fine", "iterations": 7}
    run = resolve({**given, "init": {"name": "ball", "count": 9}}, said.append)
    assert (run.iterations, run.init.count, run.resolution) == (7, 9, QUALITIES["shapes"]["fine"]["resolution"])
    assert said == ["quality: fine, but iterations = 7, init.count = 9, as given"]


@pytest.mark.parametrize("init", names("gsdistill.scene.init"))
def test_every_start_takes_a_quality(init):
    extra = {"path": "x.ply"} if init in ("ply", "mesh") else {}
    run = resolve({**BASE, "method": "sds", "quality": "fine", "init": {"name": init, **extra}})
    assert getattr(run.init, "count", 5000) == QUALITIES["shapes"]["fine"]["init"]["count"]
    assert resolve({**BASE, "quality": "draft", "init": {"name": init, **extra}}).iterations == round(STEPS / 3)


@pytest.mark.parametrize("prior", ["shapes", "sd15", "mvdream"])
@pytest.mark.parametrize("quality", ["draft", "normal", "fine"])
def test_the_stored_settings_give_the_same_run_again_and_nothing_is_told(quality, prior):
    said = []
    run = resolve({**BASE, "prior": prior, "method": "sds", "quality": quality})
    assert resolve(yaml.safe_load(to_yaml(run)), said.append) == run
    assert said == []


def test_a_prior_without_a_card_takes_those_of_large_priors():
    normal = resolve({**BASE, "prior": "someone/model"})
    assert resolve({**BASE, "prior": "someone/model", "quality": "draft"}).iterations == normal.iterations // 5


def test_a_mistyped_quality_is_told():
    with pytest.raises(ConfigError, match=r"quality = 'fien' is not a choice\. Did you mean 'fine'\?"):
        resolve({**BASE, "quality": "fien"})
