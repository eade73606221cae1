"""Every published preset makes steps of all its stages: on a small model of its family, its numbers scaled by one rule.

The rule: three steps a stage, in pictures of the model's own size; a hundredth of the Gaussians, points and budgets; a
start that needs a model is a ball; of a text beside the prompt its first word, as the models read few. All else is as
published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import deepfloyd, mvdream, sd3, stable_diffusion

from gsdistill.disk.places import data_path
from gsdistill.generate import prepared
from gsdistill.prior.loading import load_prior
from gsdistill.run.config import read_config, resolve
from gsdistill.settings.config import to_dict

STEPS, SHARE = 3, 0.01
FAMILIES = {"if": deepfloyd, "mvdream": mvdream, "sd3": sd3}


def family(name: str) -> str:
    return next((word for word in name.split("-") if word in FAMILIES), "sd")


PRESETS = sorted(
    path.stem for path in data_path("configs").glob("*.yaml") if not read_config(path.stem).get("recipe", True)
)


TABLE = {  # steps and network evaluations of a whole run, as configs/README.md has them
    name: (int(steps.replace(",", "")), int(evaluations.replace(",", "")))
    for name, steps, evaluations in re.findall(
        r"^\| `([a-z0-9-]+)` \|.*\| ([\d,]+) \| ([\d,]+) \|$", (data_path("configs") / "README.md").read_text(), re.M
    )
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders of small models, by family."""
    place = tmp_path_factory.mktemp("models")
    return {word: module.build(place / word) for word, module in {**FAMILIES, "sd": stable_diffusion}.items()}


def scaled(name: str, prior: Path, size: int) -> dict[str, Any]:
    """The settings of a preset by the rule."""
    config = resolve({**read_config(name), "prompt": "a red cube", "prior": str(prior)})
    whole: dict[str, Any] = to_dict(config)
    start = whole["init"]
    fewer = {key: max(int(SHARE * start[key]), 8) for key in ("count", "limit") if key in start}
    settings = {
        **whole, "prior": str(prior), "resolution": size, "init": {**start, **fewer},
        "iterations": STEPS * len(config.parts),
        "stages": [{**own, "iterations": STEPS, "resolution": size} for own in whole["stages"]],
    }  # fmt: skip
    if start["name"] in ("point-e", "shap-e"):
        settings["init"] = {"name": "ball", "count": 40, "opacity": start["opacity"]}
    for part in (settings, *settings["stages"]):
        if part.get("densify", {}).get("budget"):
            part["densify"]["budget"] = max(int(SHARE * part["densify"]["budget"]), 100)
    settings["negative_prompt"] = first_word(settings["negative_prompt"])
    for part in (settings, *settings["stages"]):
        own = part.get("method", {})
        own |= {key: f", {first_word(own[key])}" for key in ("source", "target") if own.get(key)}
        own |= {"student": None} if "student" in own else {}
    return settings


def first_word(text: str) -> str:
    return "".join(re.findall("[a-z]+", text)[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_steps_of_every_stage(name, models):
    place = models[family(name)]
    prior = load_prior(str(place))
    config = resolve(scaled(name, place, prior.image_size))
    _, distiller = prepared(config, prior, torch.device("cpu"))
    steps = list(distiller)
    assert len(steps) == STEPS * len(config.parts)
    assert all(bool(step.finite) for step in steps)
    splat = distiller.representation.splat()
    assert all(value.isfinite().all() for value in splat.tensors().values())
    asked = [{step.evaluations for step in steps[i : i + STEPS]} for i in range(0, len(steps), STEPS)]
    whole = resolve({**read_config(name), "prompt": "a red cube", "prior": str(place)}).parts
    counts = [part.iterations * sum(own) / len(own) for part, own in zip(whole, asked, strict=True)]
    print(f"{name}: {sum(part.iterations for part in whole)} steps, {sum(counts):,.0f} evaluations")
    if all(len(own) == 1 for own in asked):
        assert TABLE[name] == (sum(part.iterations for part in whole), sum(counts))
