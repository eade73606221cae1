"""``gsdistill play2d``: distils points and pictures, without a scene."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsdistill.cli.commands.base import Command
from gsdistill.cli.flags import parse_flags, peek
from gsdistill.core.terminal import terminal
from gsdistill.core.threads import Threads
from gsdistill.settings.config import from_dict, merge, setting_fields

__all__ = ["Play2d"]


@dataclass(frozen=True)
class Play2d(Threads, Command):
    """Distil points or pictures without a scene, with any method and prior, or repeat what a paper claims."""

    demo: str | None = None  # A name of `gsdistill list demos`, whose settings are then the flags; none: free play.
    output: Path | None = None  # The folder of the picture and the figures; none: outputs/play2d/<name>.
    overwrite: bool = False  # Replace an earlier run in the output folder.

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Perform the demonstration, or free play."""
        from gsdistill.laboratory.folder import perform
        from gsdistill.laboratory.play import Play, fill
        from gsdistill.settings.registry import load

        demo = peek(argv, "demo")
        kind: type[Any] = load("gsdistill.laboratory.demos", demo, "demonstration") if demo else Play
        chosen = {name: value for name in ("method", "prior", "world") if (value := peek(argv, name))}
        base = {} if demo else fill(chosen)
        sources = [(cls, {"demo": demo}), (kind, base)]
        typed = parse_flags(sources, argv, prog="gsdistill play2d", description=inspect.getdoc(cls) or "")
        flags = from_dict(cls, {f: typed.pop(f) for f in setting_fields(cls) if f in typed})
        flags.take()
        perform(from_dict(kind, merge(base, typed)), flags.output, flags.overwrite, terminal())
