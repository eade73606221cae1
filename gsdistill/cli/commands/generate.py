"""``gsdistill generate``: a prompt to a splat."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gsdistill.cli.commands.base import Command
from gsdistill.cli.run_flags import RunFlags, check_threads, read_run_flags
from gsdistill.core.ranges import bounded
from gsdistill.core.terminal import notice, terminal
from gsdistill.settings.config import to_yaml

__all__ = ["Generate"]


@dataclass(frozen=True)
class Generate(RunFlags, Command):
    """Turn a prompt into a splat: a scene of 3D Gaussians that any viewer of splats shows.

    A RAMP is a number, or one that changes over the run, or each of its stages: 101:51 (linear), 700:100:sqrt,
    1:0:cosine@0.6 (ends at 60 %), 0:10@0.4..0.8 (from 40 % to 80 %), 0.98:0.5:step@0.2 (jumps at 20 %).
    """

    COMMON: ClassVar[tuple[str, ...]] = (
        *("prompt", "prompt_file", "config", "method", "prior", "init", "quality", "iterations", "seed", "output"),
        *("threads", "viewer", "dry_run", "resume", "overwrite"),
    )

    viewer: bool = False  # Show the splat in the browser while it is optimised.
    port: int = bounded(8080, low=0, high=65535)  # of the viewer; if it is taken, the next free one; 0: any
    dry_run: bool = False  # Check everything, print the settings as YAML and what the run will take, and stop.

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Make the run, with a live view if that is asked for; or only say what it would take."""
        from gsdistill import generate
        from gsdistill.run import stages
        from gsdistill.run.config import resolve

        flags, base, typed = read_run_flags(cls, argv)
        notices: list[str] = []
        if typed.get("resume") and flags.config and Path(flags.config).is_dir():
            typed.setdefault("output", flags.config)  # wherever the folder has been moved to
        config = resolve(stages.over(base, typed), notices.append)
        check_threads(flags, config)
        for line in notices:
            notice("", line)
        if flags.dry_run:
            from gsdistill.cli.foresight import foresee

            for line in foresee(config):
                notice("", line)
            utf = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
            print(to_yaml(config, ascii_only=not utf), end="")
            return
        console = terminal()
        if not flags.viewer:
            generate.run(config, console)
            return
        from gsdistill.viewer.live import LiveView

        with LiveView(config.iterations, flags.port, console) as live:
            generate.run(config, console, listeners=(live,))
