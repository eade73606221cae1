"""What may differ between the settings of a run and those with which it is resumed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gsdistill.errors import ConfigError

__all__ = ["command", "differences", "differing", "leaves"]

# Settings that do not change the optimisation, and may differ.
_FREE = (
    *("output", "log_every", "preview_every", "checkpoint_every", "snapshots"),
    *("export.formats", "export.frame", "export.sh_pad"),
)
# Settings that have had their effect, or whose state is in the checkpoint, and may never differ.
_FIXED = ("method.name", "prior", "init", "init_prompt", "seed")


def command(folder: Path) -> str:
    """What to type to go on with the run in ``folder``."""
    return f"gsdistill generate --config {shlex.quote(str(folder))} --resume"


def differing(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, str]:
    """The settings that differ from those ``before`` and change the optimisation: by name, a line with both values."""
    new, old = dict(leaves(now)), dict(leaves(before))
    other = [name for name, value in old.items() if new.get(name) != value and name not in _FREE]
    return {name: f"{name} = {new.get(name)} (was {old[name]})" for name in other}


def differences(now: Mapping[str, Any], before: Mapping[str, Any], folder: Path, accepted: bool) -> list[str]:
    """What :func:`differing` finds, where the run in ``folder`` can go on so.

    Raises:
        ConfigError: settings differ and that is not ``accepted``, or one of them cannot change on the way.
    """
    told, same = differing(now, before), f"{command(folder)} takes those of the run"
    fixed = [line for name, line in told.items() if name in _FIXED or name.partition(".")[0] in _FIXED]
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
