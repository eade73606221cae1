"""Every family with every method: a saved model is loaded by its folder and carries three steps of a whole run."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gsdistill.generate import run
from gsdistill.models.pipelines import FAMILIES
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.run.config import resolve
from gsdistill.settings.registry import names

# The tiny model of each pipeline: a module of tests/tiny.
TINY = {
    "StableDiffusionPipeline": "stable_diffusion",
    "StableDiffusionXLPipeline": "sdxl",
    "IFPipeline": "deepfloyd",
    "StableDiffusion3Pipeline": "sd3",
    "SanaPipeline": "sana",
    "MVDreamPipeline": "mvdream",
}
# Every family carries one method among the quick tests, and the others among the slow ones.
METHODS = [
    name if name == "cds" else pytest.param(name, marks=pytest.mark.slow) for name in names("gsdistill.distillation")
]
FITTING = {"sds-bridge": {"source": ", hazy"}}  # the tiny tokenizers read 40 letters


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def prior(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prior:
    folder = tmp_path_factory.mktemp(request.param)
    return load_prior(str(importlib.import_module(f"tiny.{TINY[request.param]}").build(folder)))


def test_every_family_has_a_tiny_model():
    assert TINY.keys() == FAMILIES.keys()


@pytest.mark.parametrize("method", METHODS)
def test_three_steps_with_a_negative_text_and_perp_neg(method, prior, tmp_path):
    """The whole of `generate`, with the prompt seen from each side, its negatives, and the method's own settings."""
    direction = "none" if prior.view_group > 1 else "perp-neg"
    config = resolve(
        {
            "prompt": "a cat", "negative_prompt": "blur", "prior": "shapes", "recipe": False,
            "method": {"name": method, **FITTING.get(method, {})},
            "init": {"name": "ball", "count": 50}, "iterations": 3, "log_every": 1, "views": 4, "seed": 1,
            "prompts": {"direction": direction}, "output": str(tmp_path / "run"),
        }
    )  # fmt: skip
    folder = run(replace(config, prior=prior.name), Console(quiet=True), prior, extras=False)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert all(record["finite"] and record["loss"] is not None for record in records)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["skipped_steps"] == 0 and summary["network_evaluations"] > 0
    assert {"gaussians.ply", "views.png", "start.png"} <= {path.name for path in Path(folder).iterdir()}
