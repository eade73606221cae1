"""Shipped configs against the values of the released programs, which released.yaml explains."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from presets.table import PRESETS, TABLE, config_of, rows

from gsdistill.core.errors import ConfigError
from gsdistill.disk.places import data_path
from gsdistill.models import catalogue
from gsdistill.run.config import RunConfig, read_config, resolve
from gsdistill.settings.config import merge, to_dict
from gsdistill.settings.ramp import Ramp

NOWHERE = object()  # in place of the value of a setting that does not exist


def kind(row: Mapping[str, Any]) -> str:
    """How the table settles a value."""
    return next(word for word in ("none", "differs", "missing", "setting") if word in row)


def found(config: RunConfig, row: Mapping[str, Any]) -> list[Any]:
    """The values of a row's setting, of its stage or else of all; NOWHERE where there is no such setting."""
    stage, setting = row.get("stage"), row["setting"]
    if setting == "iterations" and stage is None:
        return [config.iterations]
    if stage is not None and stage >= len(config.parts):
        return [NOWHERE]
    return [at(to_dict(part), setting) for part in (config.parts if stage is None else [config.parts[stage]])]


def at(settings: Any, path: str) -> Any:
    for key in path.split("."):
        settings = settings.get(key, NOWHERE) if isinstance(settings, Mapping) else NOWHERE
    return settings


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same setting, numbers to six digits."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    numbers = [value for value in (one, other) if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == 2:
        return math.isclose(*numbers, rel_tol=1e-6, abs_tol=1e-12)
    if isinstance(one, str) and isinstance(other, str) and ":" in one and one != other:
        try:
            first, second = Ramp.parse(one), Ramp.parse(other)
        except ConfigError:
            return False
        return first.law == second.law and all(
            math.isclose(getattr(first, end), getattr(second, end), rel_tol=1e-5, abs_tol=1e-12)
            for end in ("start", "end", "begin", "until")
        )
    return type(one) is type(other) and one == other


def accepted(base: Mapping[str, Any], setting: str, value: Any) -> bool:
    """Whether a run with the settings ``base`` could have this setting with this value."""
    for key in reversed(setting.split(".")):
        value = {key: value}
    try:
        resolve(merge(base, value))
    except ConfigError:
        return False
    return True


@cache
def shipped() -> frozenset[str]:
    return frozenset(path.stem for path in data_path("configs").glob("*.yaml"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_has_the_released_values(name):
    assert name in shipped(), f"there is no config {name}"
    config, wrong = config_of(name), []
    for where, row in rows(name):
        if "setting" not in row or "missing" in row:
            continue
        values = found(config, row)
        if not all(same(value, row["expected"]) for value in values):
            stage = f" of stage {row['stage']}" if "stage" in row else ""
            wrong.append(f"{row['setting']}{stage} = {values}, not {row['expected']} ({where}, {row['key']})")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_what_is_marked_missing_is_refused(name):
    config = config_of(name) if name in shipped() else resolve({"prompt": "x", "prior": PRESETS[name]["prior"]})
    base = {key: value for key, value in to_dict(config.parts[0]).items() if key not in ("stages", "finish")}
    missing = [row for _, row in rows(name) if "missing" in row]
    obsolete = {
        f"{row['setting']} = {row['expected']}" for row in missing if accepted(base, row["setting"], row["expected"])
    }
    assert not obsolete, f"these are accepted now, so that the config can have them: {sorted(obsolete)}"


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_is_whole(name):
    """Every value is settled in one way, has a reason that the table explains, and its repository a commit."""
    for part in ("released", "variants"):
        for where, row in rows(name, part):
            assert {"key", "value"} < set(row), where
            assert "none" in row or "differs" in row or "setting" in row, (where, row)
            assert ("expected" in row) == ("setting" in row), (where, row)
            assert row.get("none", "same") in TABLE["reasons"], (where, row)
            assert set(row) <= {"key", "value", "setting", "expected", "stage", "how", "missing", "none", "differs"}
    for file in PRESETS[name]["released"]:
        assert len(TABLE["commits"][file["repository"]]) == 40
    assert PRESETS[name]["prior"] in catalogue.known()


def test_every_published_config_is_in_the_table():
    published = {name for name in shipped() if not read_config(name).get("recipe", True)}
    assert published - set(PRESETS) == OURS


def test_the_numbers_of_the_table(record_property):
    """How many values there are, and how each is settled; ``pytest -s`` prints them by preset."""
    total: Counter[str] = Counter()
    for name in PRESETS:
        counts = Counter(kind(row) for _, row in rows(name))
        total += counts
        print(f"{name}: {sum(counts.values())} values, {dict(counts)}")
    print(f"all: {total.total()} values, {dict(total)}")
    for word, count in total.items():
        record_property(word, count)
    assert total.total() > 2_000
    assert total["setting"] > 800


# fsd-paper and csd-paper are formulas of papers whose programs say something else or were not released; vsd-esd is
# vsd-prolificdreamer with one setting; no program has sds-milestones or cds-mvdream
OURS = {"fsd-paper", "csd-paper", "vsd-esd", "sds-milestones", "cds-mvdream"}
