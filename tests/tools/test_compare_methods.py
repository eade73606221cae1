"""The comparison of tools/README.md uses prompts that no setting was tuned on."""

from __future__ import annotations

import tooling

from gsdistill.cli.flags import parse
from gsdistill.sweep.settings import SweepSettings


def test_the_preset_is_a_sweep_on_prompts_that_no_setting_was_tuned_on():
    compare = tooling.tool("compare_methods")
    given = parse([(SweepSettings, {})], compare.words(["--seeds", "7"]), "sweep", "")
    settings = SweepSettings(tuple(given["methods"]), tuple(given["prompts"]), seeds=tuple(given["seeds"]))
    assert settings.methods == ("sds", "ssd", "cds", "fsd", "asd", "csd")
    assert len(settings.all_prompts) == 12
    assert not set(settings.all_prompts) & set(compare.TUNING)
    assert settings.seeds == (7,)
