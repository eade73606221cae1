"""The README's comparison uses prompts that no setting was tuned on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from gsdistill.flags import parse
from gsdistill.sweep.settings import SweepSettings

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_preset_is_a_sweep_on_prompts_of_the_test_set():
    preset, sets = tool("compare_methods").PRESET, tool("measure_quality")
    given = parse([(SweepSettings, {})], [*preset, "--seeds", "7"], "sweep", "")
    settings = SweepSettings(tuple(given["methods"]), tuple(given["prompts"]), seeds=tuple(given["seeds"]))
    assert settings.methods == ("sds", "ssd", "cds", "fsd", "asd", "csd")
    assert len(settings.all_prompts) == 12
    assert set(settings.all_prompts) <= set(sets.TEST)
    assert not set(settings.all_prompts) & set(sets.TUNING)
    assert settings.seeds == (7,)
