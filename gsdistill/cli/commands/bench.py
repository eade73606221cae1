"""``gsdistill bench``: the seconds of a run's steps, or the ratios of two measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gsdistill.cli.commands.base import Command
from gsdistill.cli.flags import parse_flags, peek
from gsdistill.cli.run_flags import RunFlags, check_threads, read_run_flags
from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.terminal import terminal
from gsdistill.disk.write import write_json
from gsdistill.settings.config import from_dict

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from gsdistill.prior.base import Prior
    from gsdistill.run.config import RunConfig

__all__ = ["Bench", "loaded"]

PROMPT = "a red torus"  # the text does not change the speed
MOST_STEPS = 1000  # the clock keeps the time of each


@dataclass(frozen=True)
class Bench(RunFlags, Command):
    """Time the steps of a run by phase, with any setting of `gsdistill generate`, and compare two measurements.

    The timed steps are spread evenly over the run, so that what changes during it is met as in a whole one.
    """

    COMMON: ClassVar[tuple[str, ...]] = (
        *("steps", "warmup", "method", "prior", "random_weights", "views", "resolution", "init", "config", "device"),
        *("threads", "json", "compare"),
    )

    # Take the real network, untrained and without a download: sd21-base, sdxl, if or mvdream.
    random_weights: str | None = None
    steps: int = bounded(30, low=1, high=MOST_STEPS)  # Time so many steps.
    warmup: int = bounded(5, low=1, high=MOST_STEPS)  # Make so many before them, in which kernels are compiled.
    json: Path | None = None  # Write the measurement to this file too.
    compare: tuple[Path, Path] | None = None  # Show the ratios of two such files, B over A, and measure nothing.

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Measure, or compare two measurements."""
        console = terminal()
        if peek(argv, "compare") is not None:
            _compare(argv, console)
            return
        from gsdistill.bench.figures import measure
        from gsdistill.bench.report import show

        config, prior, target, flags = loaded(argv, console)
        console.print(f"{flags.warmup} steps, then {flags.steps} that are timed, on {target}", markup=False)
        measurement = measure(config, prior, target, flags.steps, flags.warmup, flags.random_weights is not None)
        show(console, measurement)
        if flags.json:
            write_json(flags.json, measurement)


def loaded(argv: Sequence[str], console: Console) -> tuple[RunConfig, Prior, torch.device, Bench]:
    """The settings of the run that ``argv`` describes, its prior, the device, and the flags of ``bench`` itself.

    Raises:
        ConfigError: a flag that has no meaning for ``bench``. UserError: of any kind that the run itself would raise.
    """
    from gsdistill.core.device import choose, prepare
    from gsdistill.prior.loading import load_prior
    from gsdistill.prior.random_weights import architecture, random_prior
    from gsdistill.run.config import resolve
    from gsdistill.run.stages import over

    name = peek(argv, "random-weights")
    name = peek(argv, "random_weights") if name is None else name
    network = {} if name is None else {"prior": architecture(name)}
    flags, base, typed = read_run_flags(Bench, argv, {"prompt": PROMPT, "finish": "none"}, network)
    config = resolve(over(base, typed), lambda line: console.print(line, markup=False))
    _check(config, flags, typed)
    target = choose(config.device)
    prepare(target, config.deterministic)
    make = load_prior if name is None else random_prior
    return config, make(config.prior, target, config.model), target, flags


def _compare(argv: Sequence[str], console: Console) -> None:
    from gsdistill.bench.figures import read_figures
    from gsdistill.bench.report import compare

    flags = from_dict(Bench, parse_flags([(Bench, {})], argv, prog="gsdistill bench --compare", description=""))
    if flags != Bench(compare=flags.compare):
        raise ConfigError("--compare reads two files and measures nothing: it takes no other flag")
    before, after = (read_figures(path) for path in flags.compare or ())
    compare(console, before, after)


def _check(config: RunConfig, flags: Bench, typed: dict[str, Any]) -> None:
    """Refuse flags that have no meaning for a measurement. Raises ConfigError."""
    from gsdistill.bench.figures import FILES
    from gsdistill.prior.random_weights import architecture

    if idle := [name for name in FILES if name in typed]:
        flag = idle[0].replace("_", "-")
        raise ConfigError(
            f"--{flag} is of the files of a run, and bench writes none of them; --json FILE keeps figures"
        )
    check_threads(flags, config)
    if flags.random_weights and config.prior != architecture(flags.random_weights):
        raise ConfigError(
            f"--random-weights {flags.random_weights} and --prior {config.prior} exclude each other: the first one is "
            "the prior"
        )
