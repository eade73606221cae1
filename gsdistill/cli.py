"""The ``gsdistill`` command: a few commands, each a settings class whose fields are its flags.

A user's mistake is one line on stderr and exit code 2, an interrupt is 130; ``--traceback`` anywhere shows where it
arose. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rich.console import Console
from rich.text import Text

from gsdistill import __version__
from gsdistill.bench.settings import BenchFlags
from gsdistill.config import bounded, defaults, from_dict, merge, setting_fields, to_yaml
from gsdistill.convert import ExportCommand
from gsdistill.draw import RenderCommand
from gsdistill.edit.command import EditCommand
from gsdistill.errors import ConfigError, Stopped, UserError, did_you_mean
from gsdistill.evaluation.settings import EvaluateCommand
from gsdistill.flags import parse, peek, settings_of
from gsdistill.listing import ListCommand
from gsdistill.pages.settings import GalleryCommand, ReportCommand
from gsdistill.paths import may_be_path
from gsdistill.runflags import RunFlags, check_threads, read
from gsdistill.sweep.settings import SweepSettings
from gsdistill.terminal import notice, notices_told, terminal
from gsdistill.threads import Threads
from gsdistill.viewer.settings import ViewCommand

__all__ = ["execute"]

T = TypeVar("T")


@dataclass(frozen=True)
class GenerateFlags(RunFlags):
    """Turn a prompt into a splat: a scene of 3D Gaussians that any viewer of splats shows.

    A RAMP is a number, or one that changes over the run, or each of its stages: 101:51 (linear), 700:100:sqrt,
    1:0:cosine@0.6 (ends at 60 %).
    """

    COMMON: ClassVar[tuple[str, ...]] = (
        *("prompt", "prompt_file", "config", "method", "prior", "init", "quality", "iterations", "seed", "output"),
        *("threads", "viewer", "dry_run", "resume", "overwrite"),
    )

    viewer: bool = False  # Show the splat in the browser while it is optimised.
    port: int = bounded(8080, low=0, high=65535)  # of the viewer; if it is taken, the next free one; 0: any
    dry_run: bool = False  # Check everything, print the settings as YAML and what the run will take, and stop.


@dataclass(frozen=True)
class Play2dFlags(Threads):
    """Distil points or pictures without a scene, with any method and prior, or repeat what a paper claims."""

    demo: str | None = None  # A name of `gsdistill list demos`, whose settings are then the flags; none: free play.
    output: Path | None = None  # The folder of the picture and the figures; none: outputs/play2d/<name>.
    overwrite: bool = False  # Replace an earlier run in the output folder.


@dataclass(frozen=True)
class DoctorCommand:
    """Show what is installed, which device serves, which models are at hand, and how to get what is missing."""

    prior: str | None = field(default=None, metadata=may_be_path())  # Look at one prior, named as for `generate`.
    run: bool = False  # Make a short run, of about 20 seconds, and compare its figures with expected ones.

    def __post_init__(self) -> None:
        if self.run and self.prior:
            raise ConfigError("--run tries the shapes prior, and --prior only looks at one: take one of both")


def execute(argv: Sequence[str]) -> int:
    """Run one command line.

    Returns 0, 2 for a user's mistake, 130 for an interrupt, 128 and its number for another signal that a run was
    stopped by in order, 141 for a lost reader.
    """
    traceback = "--traceback" in argv
    words = [word for word in argv if word != "--traceback"]
    try:
        with notices_told():
            return _dispatch(words)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else int(signal.SIGINT)
        notice("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}", "")
        return 128 + number
    except BrokenPipeError:  # the reader of our output has left; nothing may be flushed to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        line = _told(error)
        if line is None:
            raise
        if traceback:
            Console(stderr=True).print_exception()
        notice("error: ", line)
        return 2
    except SystemExit as stop:  # after the help was printed
        return int(stop.code or 0)


def _told(error: Exception) -> str | None:
    """What a user is told of an error; None where it is ours to mend."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):  # the file system refuses: a folder without access, a name too long
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    from gsdistill.device import failure, out_of_memory

    if out_of_memory(error):
        return "out of memory; ask for less at once: smaller pictures, fewer of them, or fewer Gaussians"
    if told := failure(error):
        return f"the GPU or its driver failed: {told}; --device cpu does without it, and `gsdistill doctor` tries it"
    return None


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        _overview()
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"gsdistill {__version__}")
        return 0
    if words[0] not in COMMANDS:
        kind = "flag" if words[0].startswith("-") else "command"
        hint = did_you_mean(words[0], COMMANDS)
        raise ConfigError(f"unknown {kind} '{words[0]}'.{hint} Available: {', '.join(COMMANDS)}")
    cls, perform = COMMANDS[words[0]]
    if isinstance(perform, str):
        module, _, name = perform.partition(":")
        command = _read(cls, words[1:], words[0])
        getattr(importlib.import_module(module), name)(command, terminal())
    else:
        perform(words[1:])
    return 0


def _overview() -> None:
    console = terminal(highlight=False)
    console.print("usage: gsdistill COMMAND [FLAGS]\n", markup=False)
    for name, (cls, _) in COMMANDS.items():
        console.print(f"  {name:<10}{(cls.__doc__ or '').splitlines()[0]}", markup=False, soft_wrap=True)
    console.print("\n`gsdistill COMMAND --help` shows its flags; `--version` the version;", markup=False)
    console.print("`--traceback` with any command shows where an error arose.", markup=False)


def _read(cls: type[T], argv: Sequence[str], name: str) -> T:
    """Return the settings of a command that stands on its own."""
    command = settings_of(cls, argv, prog=f"gsdistill {name}")
    if isinstance(command, Threads):
        command.take()
    return command


def _generate(argv: Sequence[str]) -> None:
    from gsdistill import generate, runconfig, stages

    flags, base, given = read(GenerateFlags, argv, "generate")
    notices: list[str] = []
    if given.get("resume") and flags.config and Path(flags.config).is_dir():
        given.setdefault("output", flags.config)  # wherever the folder has been moved to
    config = runconfig.resolve(stages.over(base, given), notices.append)
    check_threads(flags, config)
    for line in notices:
        notice("", line)
    if flags.dry_run:
        from gsdistill.foresight import foresee

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


def _sweep(argv: Sequence[str]) -> None:
    settings = _read(SweepSettings, argv, "sweep")
    from gsdistill.sweep.report import report
    from gsdistill.sweep.run import carry_out

    if settings.run:
        carry_out(settings, terminal())
    report(settings, terminal())


def _play2d(argv: Sequence[str]) -> None:
    from gsdistill.laboratory.folder import perform
    from gsdistill.laboratory.play import Play, fill
    from gsdistill.registry import load

    demo = peek(argv, "demo")
    cls: type[Any] = load("gsdistill.laboratory.demos", demo, "demonstration") if demo else Play
    chosen = {name: value for name in ("method", "prior", "world") if (value := peek(argv, name))}
    base = {} if demo else fill(chosen)
    sources = [(Play2dFlags, {"demo": demo}), (cls, base)]
    given = parse(sources, argv, prog="gsdistill play2d", description=inspect.getdoc(Play2dFlags) or "")
    flags = from_dict(Play2dFlags, {f: given.pop(f) for f in setting_fields(Play2dFlags) if f in given})
    flags.take()
    perform(from_dict(cls, merge(base, given)), flags.output, flags.overwrite, terminal())


def _bench(argv: Sequence[str]) -> None:
    from gsdistill.bench.command import bench

    bench(argv, terminal())


def _report(argv: Sequence[str]) -> None:
    command = _read(ReportCommand, argv, "report")
    from gsdistill.pages.report import write_report
    from gsdistill.runconfig import RunConfig

    terminal().print(Text(str(write_report(command.run, defaults(RunConfig), command.evaluate))), soft_wrap=True)


def _doctor(argv: Sequence[str]) -> None:
    command = _read(DoctorCommand, argv, "doctor")
    from gsdistill.doctor import findings, report

    if command.prior is not None:
        from gsdistill.doctor_prior import prior_findings

        report(terminal(highlight=False), prior_findings(command.prior))
    elif command.run:
        from gsdistill.selftest import selftest

        if failed := report(terminal(highlight=False), selftest(), "failed"):
            raise UserError(f"the self-test failed: {failed[0].name}")
    else:
        report(terminal(highlight=False), findings())


# The settings of each command, and what carries it out: a function of its words, or the place of one of the settings
# and a console, which is imported when it is called.
COMMANDS: dict[str, tuple[type[Any], Callable[[Sequence[str]], None] | str]] = {
    "generate": (GenerateFlags, _generate),
    "view": (ViewCommand, "gsdistill.viewer.command:view"),
    "gallery": (GalleryCommand, "gsdistill.pages.gallery:gallery"),
    "export": (ExportCommand, "gsdistill.convert:export"),
    "edit": (EditCommand, "gsdistill.edit.command:edit"),
    "render": (RenderCommand, "gsdistill.draw:render"),
    "evaluate": (EvaluateCommand, "gsdistill.pages.evaluate:evaluate"),
    "report": (ReportCommand, _report),
    "sweep": (SweepSettings, _sweep),
    "play2d": (Play2dFlags, _play2d),
    "bench": (BenchFlags, _bench),
    "list": (ListCommand, "gsdistill.listing:listing"),
    "doctor": (DoctorCommand, _doctor),
}
