"""Which settings may differ between a run and the command that resumes it.

Two paths are equal if they lead to the same file. Runs of earlier versions hold paths as they were typed, relative to
the folder in which the run was started.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gsdistill.core.errors import ConfigError
from gsdistill.disk.paths import file_of, paths_in, there
from gsdistill.run.read import CONFIG
from gsdistill.settings.config import defaults, merge, setting_fields
from gsdistill.settings.registry import at_hand, load
from gsdistill.settings.yaml import load_yaml

__all__ = ["BEFORE", "OF_KINDS", "check_places", "checked_changes", "command", "completed", "differing", "leaves"]

# Settings that do not change the optimisation, and may differ. recipe only decides the values of others.
_FREE = (
    *("recipe", "output", "log_every", "preview_every", "checkpoint_every", "snapshots", "logs"),
    *("export.formats", "export.frame", "export.sh_pad", "model.recompute_encoder"),
)
# Settings that older runs do not have, with the values that mean the same as their absence.
BEFORE: Mapping[str, Any] = {
    "finish": {"name": "none"},
    "stages": [],
    "particles": 1,
    "pictures": {"depth": 0.0, "flip": 0.0, "normals": 0.0},
    "cameras": {
        "name": "orbit", "elevation_law": "angle", "gamma": 1.0, "relative_distance": False, "strata": None,
        "turned": True, "shared": [], "jitter_position": 0.0, "jitter_target": 0.0, "jitter_up": 0.0,
    },
    "prompts": {"phrases": "suffix", "f_cuts": [1.0, 1.0, 1.0, 1.0]},
    "optim": {"means_unit": "extent", "rule": "adam", "eps": 1e-15, "weight_decay": 0.0, "max_grad_norm": 0.0},
    "regularizers": dict.fromkeys(
        (
            *("sparsity", "depth_sparsity", "opaque", "tv", "depth_tv", "disparity_tv", "z_variance", "convex"),
            *("mean_scale", "total_scale", "bulk", "position", "outlying"),
        ),
        0.0,
    ),
}  # fmt: skip
# Likewise those of initialisers and densifiers, each of which has some of them.
OF_KINDS: Mapping[str, Any] = {
    "init": {
        "spacing": "own", "deviation": None, "colors": "cloud", "copies": 1, "spread": 0.0,
        "shell": 0, "shell_reach": 0.01, "shell_tint": 0.0,
    },
    "densify": {"together": False},
}  # fmt: skip
_HOMES = {
    "init": "gsdistill.scene.init", "densify": "gsdistill.scene.densify",
    "background": "gsdistill.training.backgrounds",
}  # fmt: skip
# Settings that may never differ: they have had their effect, or the checkpoint holds their state.
_FIXED = (
    *("method.name", "densify.name", "optim.rule", "background.degree", "background.width", "background.layers"),
    *("prior", "representation", "particles", "init", "init_prompt", "seed"),
)


def command(folder: Path) -> str:
    """The command that goes on with the run in ``folder``, quoted for this system's shell."""
    quoted = shlex.quote(str(folder)) if os.sep == "/" else subprocess.list2cmdline([str(folder)])
    return f"gsdistill generate --config {quoted} --resume"


def check_places(config: Any, folder: Path) -> None:
    """Refuse to continue the run in ``folder`` if a file or folder that ``config`` names is missing.

    Raises:
        ConfigError: one is missing; the message names the setting and, if it can be found, where the run has the file.
    """
    lost = [(name, value) for name, value in paths_in(config) if name != "output" and not there(file_of(str(value)))]
    if not lost:
        return
    before = load_yaml(folder / CONFIG) if there(folder / CONFIG) else {}
    old, home = dict(leaves(before)), _started_in(before, folder)
    for name, value in lost:
        missing, flag = f"{name} = '{value}': there is no such file or folder", f"--{name.replace('_', '-')}"
        saved = old.get(name)
        places = [home / text for text in (saved if isinstance(saved, list) else [saved]) if isinstance(text, str)]
        alike = [place for place in places if len(places) == 1 or place.name == Path(value).name]
        if here := next((place for place in alike if there(file_of(str(place)))), None):
            raise ConfigError(f"{missing}; the run in {folder} has it at {here}: name it with {flag}")
        if Path(value).is_absolute():  # else it may be a name on the hub
            raise ConfigError(f"{missing}; say where it is now with {flag} and --accept-changes")


def differing(now: Mapping[str, Any], before: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The settings that differ from those ``before`` and change the optimisation: a line with both values, by name.

    ``folder`` is the run's, which relative paths of older runs are found from.
    """
    new, home = dict(leaves(now)), _started_in(before, folder)
    said = {name for name, _ in leaves(_spelt_out(before))}
    old = {name: value for name, value in leaves(completed(before)) if name in said or name in new}
    changed = [name for name, value in old.items() if name not in _FREE and not _same(new.get(name), value, home)]
    return {name: f"{name} = {new.get(name)} (was {old[name]})" for name in changed}


def completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, which an earlier version may have saved, with those that came since as they were then."""
    whole = _spelt_out(merge(BEFORE, saved))
    for key, later in OF_KINDS.items():
        part = whole.get(key)
        if isinstance(part, Mapping) and (cls := at_hand(_HOMES[key], str(part.get("name")), key)):
            whole[key] = {**{name: value for name, value in later.items() if name in setting_fields(cls)}, **part}
    return whole


def _spelt_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the settings of backgrounds, of which earlier versions saved the names alone."""
    whole = dict(settings)
    if isinstance(name := whole.get("background"), str):
        whole["background"] = {"name": name, **defaults(load(_HOMES["background"], name, "background"))}
    if isinstance(stages := whole.get("stages"), (list, tuple)):
        whole["stages"] = [_spelt_out(own) if isinstance(own, Mapping) else own for own in stages]
    return whole


def checked_changes(now: Mapping[str, Any], before: Mapping[str, Any], folder: Path, accept: bool) -> list[str]:
    """The lines of :func:`differing`, if the run in ``folder`` can continue with these settings.

    Raises:
        ConfigError: settings differ without ``accept``, or one of them may not change during a run.
    """
    changed, same = differing(now, before, folder), f"{command(folder)} takes those of the run"
    gone = [name for name, value in leaves(before) if str(value).startswith("/") and not there(file_of(str(value)))]
    fixed = [changed[name] for name in changed if name not in gone and {name, name.partition(".")[0]} & {*_FIXED}]
    if fixed:
        raise ConfigError(f"the run in {folder} cannot change {', '.join(fixed)} on its way; {same}")
    if changed and not accept:
        raise ConfigError(
            f"--resume needs the settings of the run in {folder}, but {', '.join(changed.values())}; {same}, and "
            "--accept-changes goes on with these"
        )
    return list(changed.values())


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting that is not a mapping itself, with its dotted name."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _same(new: Any, old: Any, home: Path) -> bool:
    """Whether two values of a setting are equal, or are paths to the same file, the old one relative to ``home``."""
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return all(_same(*pair, home) for pair in zip(new, old, strict=True))
    if new == old or not (isinstance(new, str) and isinstance(old, str) and new.startswith("/")):
        return new == old
    here, before = file_of(new), home / file_of(old)
    same_class = new.removeprefix(here) == old.removeprefix(file_of(old))
    return same_class and there(here) and there(before) and before.samefile(here)


def _started_in(settings: Mapping[str, Any], folder: Path) -> Path:
    """The working directory in which a run was started, if its folder ends as ``output`` does; else the present one."""
    output, whole = settings.get("output"), folder.absolute()
    tail = Path(output).parts if isinstance(output, str) else ("outputs", *whole.parts[-2:])
    beside = 0 < len(tail) < len(whole.parts) and whole.parts[-len(tail) :] == tail
    return whole.parents[len(tail) - 1] if beside else Path()
