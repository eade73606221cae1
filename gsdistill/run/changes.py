"""What may differ between the settings of a run and those with which it is resumed.

A path is compared by what it leads to. Runs of earlier versions have paths as they were typed, relative to where the
run was started.
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
from gsdistill.run.folder import CONFIG
from gsdistill.settings.yaml import load_yaml

__all__ = ["BEFORE", "check_places", "command", "differences", "differing", "leaves"]

# Settings that do not change the optimisation, and may differ; recipe decides what others are, no more.
_FREE = (
    *("recipe", "output", "log_every", "preview_every", "checkpoint_every", "snapshots", "logs"),
    *("export.formats", "export.frame", "export.sh_pad", "model.recompute_encoder"),
)
# Settings that are newer than some runs, and what was so before.
BEFORE: Mapping[str, Any] = {"finish": {"name": "none"}, "stages": []}
# Settings that have had their effect, or whose state is in the checkpoint, and may never differ.
_FIXED = ("method.name", "densify.name", "prior", "representation", "init", "init_prompt", "seed")


def command(folder: Path) -> str:
    """What to type to go on with the run in ``folder``."""
    quoted = shlex.quote(str(folder)) if os.sep == "/" else subprocess.list2cmdline([str(folder)])
    return f"gsdistill generate --config {quoted} --resume"


def check_places(config: Any, folder: Path) -> None:
    """Refuse to go on with the run in ``folder`` where a file or folder is not where the settings say.

    Raises:
        ConfigError: the setting, and where the run has it, as far as that can be told.
    """
    lost = [(name, value) for name, value in paths_in(config) if name != "output" and not there(file_of(str(value)))]
    if not lost:
        return
    before = load_yaml(folder / CONFIG) if there(folder / CONFIG) else {}
    old, home = dict(leaves(before)), _started_in(before, folder)
    for name, value in lost:
        told, flag = f"{name} = '{value}': there is no such file or folder", f"--{name.replace('_', '-')}"
        held = old.get(name)
        places = [home / text for text in (held if isinstance(held, list) else [held]) if isinstance(text, str)]
        alike = [place for place in places if len(places) == 1 or place.name == Path(value).name]
        if found := next((place for place in alike if there(file_of(str(place)))), None):
            raise ConfigError(f"{told}; the run in {folder} has it at {found}: name it with {flag}")
        if Path(value).is_absolute():  # else it may be a name on the hub
            raise ConfigError(f"{told}; say where it is now with {flag} and --accept-changes")


def differing(now: Mapping[str, Any], before: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The settings that differ from those ``before`` and change the optimisation: by name, a line with both values.

    ``folder`` is that of the run.
    """
    earlier = {name: value for name, value in BEFORE.items() if name in now}
    new, old, home = dict(leaves(now)), dict(leaves({**earlier, **before})), _started_in(before, folder)
    other = [name for name, value in old.items() if name not in _FREE and not _same(new.get(name), value, home)]
    return {name: f"{name} = {new.get(name)} (was {old[name]})" for name in other}


def differences(now: Mapping[str, Any], before: Mapping[str, Any], folder: Path, accepted: bool) -> list[str]:
    """What :func:`differing` finds, where the run in ``folder`` can go on so.

    Raises:
        ConfigError: settings differ and that is not ``accepted``, or one of them cannot change on the way.
    """
    told, same = differing(now, before, folder), f"{command(folder)} takes those of the run"
    gone = [name for name, value in leaves(before) if str(value).startswith("/") and not there(file_of(str(value)))]
    fixed = [told[name] for name in told if name not in gone and {name, name.partition(".")[0]} & {*_FIXED}]
    if fixed:
        raise ConfigError(f"the run in {folder} cannot change {', '.join(fixed)} on its way; {same}")
    if told and not accepted:
        raise ConfigError(
            f"--resume needs the settings of the run in {folder}, but {', '.join(told.values())}; {same}, and "
            "--accept-changes goes on with these"
        )
    return list(told.values())


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _same(new: Any, old: Any, home: Path) -> bool:
    """Whether two values of a setting are equal, or lead to the same place, the old one from ``home``."""
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return all(_same(*pair, home) for pair in zip(new, old, strict=True))
    if new == old or not (isinstance(new, str) and isinstance(old, str) and new.startswith("/")):
        return new == old
    here, before = file_of(new), home / file_of(old)
    same_class = new.removeprefix(here) == old.removeprefix(file_of(old))
    return same_class and there(here) and there(before) and before.samefile(here)


def _started_in(settings: Mapping[str, Any], folder: Path) -> Path:
    """The working directory in which a run was started, if it lies where its ``output`` says, else the one of now."""
    output, whole = settings.get("output"), folder.absolute()
    tail = Path(output).parts if isinstance(output, str) else ("outputs", *whole.parts[-2:])
    beside = 0 < len(tail) < len(whole.parts) and whole.parts[-len(tail) :] == tail
    return whole.parents[len(tail) - 1] if beside else Path()
