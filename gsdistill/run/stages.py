"""The stages of a run. Each has the settings of a run of one stage; the finish, if there is one, is the last stage.

``stages`` in a config lists the settings in which each stage differs from the run. Their ``iterations`` are
proportions, by which the steps that the finish leaves are divided. Settings that override a config, such as flags,
hold for every stage.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

from gsdistill.core.errors import ConfigError
from gsdistill.disk.paths import anchored
from gsdistill.settings.config import from_dict, merge, name_of, to_dict, unknown_setting
from gsdistill.settings.registry import label_of, same_name
from gsdistill.training.finish.none import Without

__all__ = ["checked_overrides", "fill_from_stages", "lines", "over", "stage_configs", "stage_index"]

RunConfig: TypeAlias = Any  # that of gsdistill.run.config, which imports this module
SETTINGS = (  # that a stage may override
    *("iterations", "method", "views", "resolution", "background", "cameras", "pictures", "densify", "renderer"),
    *("optim", "regularizers"),
)


def stage_configs(config: RunConfig) -> tuple[RunConfig, ...]:
    """The settings of every stage that has steps, in order, as those of a run of this stage alone."""
    if not config.stages and isinstance(config.finish, Without):
        return (config,)
    alone = replace(config, stages=(), finish=Without())
    stages = [_built(alone, own, f"stages[{i}]") for i, own in enumerate(config.stages)] or [alone]
    last = config.finish.steps(config.iterations)
    weights = [stage.iterations for stage in stages]
    ends = [round(end * (config.iterations - last) / sum(weights)) for end in accumulate(weights, initial=0)]
    if last:
        stages.append(_built(stages[-1], config.finish.overrides(stages[-1].views), "finish"))
        ends.append(config.iterations)
    counts = [after - before for before, after in pairwise(ends)]
    return tuple(replace(stage, iterations=n) for stage, n in zip(stages, counts, strict=True) if n)


def checked_overrides(config: RunConfig) -> tuple[dict[str, Any], ...]:
    """The overrides of every stage as plain values; of a class that a stage changes, all its settings are written out.

    Raises:
        ConfigError: a stage lacks its iterations, overrides a setting not in SETTINGS, or has a value not allowed.
    """
    alone, overrides = replace(config, stages=(), finish=Without()), []
    for number, own in enumerate(config.stages):
        path = f"stages[{number}]"
        if "iterations" not in own:
            raise ConfigError(f"the setting '{path}.iterations' is missing: how many steps the stage has")
        overrides.append(_resolved(to_dict(_built(alone, own, path)), own, to_dict(alone)))
    return tuple(overrides)


def fill_from_stages(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """``settings`` with ``iterations``, the sum over the stages, and ``method``, the first stage's, if it has none."""
    stages = settings.get("stages")
    if not isinstance(stages, (list, tuple)) or not all(isinstance(stage, Mapping) for stage in stages) or not stages:
        return settings
    whole, method = dict(settings), stages[0].get("method")
    counts = [stage.get("iterations") for stage in stages]
    if "iterations" not in whole and all(isinstance(count, int) and count > 0 for count in counts):
        whole["iterations"] = sum(counts)
    if "method" not in whole and (isinstance(method, str) or (isinstance(method, Mapping) and "name" in method)):
        whole["method"] = method
    return whole


def stage_index(config: RunConfig, done: int) -> int:
    """The index, from 0, of the stage that the step after ``done`` steps belongs to; the last if none is left."""
    ends = list(accumulate(part.iterations for part in stage_configs(config)))
    return min(bisect_right(ends, done), len(ends) - 1)


def lines(config: RunConfig) -> list[str]:
    """A line for the user on each stage, if there are several, and on the finish."""
    all_parts = stage_configs(config)
    own = all_parts[: len(all_parts) - bool(config.finish.steps(config.iterations))]
    shown = [f"stage {number}: {_described(part)}" for number, part in enumerate(own, 1)] if len(own) > 1 else []
    if len(own) < len(config.stages):
        shown.append(f"{len(config.stages) - len(own)} of {len(config.stages)} stages have no step of these few")
    if own != all_parts:
        shown.append(f"finish: {_described(all_parts[-1])} (--finish none for the pure method)")
    return shown


def over(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``given`` over ``settings``. It overrides their stages too, unless it has stages itself."""
    merged, stages = merge(settings, given), settings.get("stages")
    if "stages" not in given and isinstance(stages, (list, tuple)):
        merged["stages"] = [_without(own, given, settings) if isinstance(own, Mapping) else own for own in stages]
    return merged


def _without(own: Mapping[str, Any], given: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides of a stage without those that ``given`` sets; with a new class all settings of the old one go."""
    left: dict[str, Any] = {}
    for key, value in own.items():
        if key not in given or key in ("iterations", "name"):
            left[key] = value
            continue
        mine, new, base = ({"name": v} if isinstance(v, str) else v for v in (value, given[key], above.get(key)))
        if not (isinstance(mine, Mapping) and isinstance(new, Mapping)):
            continue
        base = base if isinstance(base, Mapping) else {}
        now, before = new.get("name"), mine.get("name", base.get("name"))
        if (None in (now, before) or same_name(now, before)) and (inner := _without(mine, new, base)):
            left[key] = value if isinstance(value, str) else inner
    return left


def _built(alone: RunConfig, own: Mapping[str, Any], path: str) -> RunConfig:
    """``alone``, a run of one stage, with the overrides of the stage; ``path`` names them in errors."""
    for key, value in own.items():
        if key not in SETTINGS:
            raise ConfigError(f"{path}: {unknown_setting(key, value, SETTINGS)}")
    plain = to_dict(alone)
    merged = merge({key: plain[key] for key in own}, own)
    built = anchored(from_dict(type(alone), {"prompt": alone.prompt, **merged}, path))
    return replace(alone, **{key: getattr(built, key) for key in own})


def _resolved(whole: Mapping[str, Any], own: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values in ``whole`` under the keys of ``own``; all settings of a class that is not the one in ``above``."""
    resolved = {}
    for key, value in own.items():
        now, before = whole[key], above.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and now.get("name") == before.get("name"):
            now = _resolved(now, value, before)
        resolved[key] = now
    return resolved


def _described(part: RunConfig) -> str:
    size = "" if part.resolution is None else f" at {part.resolution} px"
    steps = f"{part.iterations} step{'s' * (part.iterations > 1)}"
    return f"{steps} of {label_of(name_of(part.method))}{size}, {part.views} view{'s' * (part.views > 1)} each"
