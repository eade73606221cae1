"""`gsdistill bench` from its flags to the table and the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from gsdistill import runconfig, stages
from gsdistill.bench.figures import FILES, environment, figures, read_figures
from gsdistill.bench.flops import matmul_ceiling
from gsdistill.bench.report import compare, show
from gsdistill.bench.settings import BenchFlags
from gsdistill.bench.timing import measure
from gsdistill.config import from_dict
from gsdistill.device import choose, prepare
from gsdistill.errors import ConfigError
from gsdistill.files import write_json
from gsdistill.flags import parse, peek
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.prior.pretrained import Pretrained
from gsdistill.prior.random_weights import architecture, random_prior
from gsdistill.runflags import check_threads, read

__all__ = ["bench", "loaded", "measured"]

PROMPT = "a red torus"  # what the text says has no part in the speed


def bench(argv: Sequence[str], console: Console) -> None:
    """Measure, or compare two measurements, as the flags say.

    Raises:
        ConfigError: a flag that means nothing here. UserError: of any kind that the run itself would raise.
    """
    if peek(argv, "compare") is not None:
        _compare(argv, console)
        return
    config, prior, target, flags = loaded(argv, console)
    console.print(f"{flags.warmup} steps, then {flags.steps} that are timed, on {target}", markup=False)
    found = measured(config, prior, target, flags)
    show(console, found)
    if flags.json:
        write_json(flags.json, found)


def loaded(argv: Sequence[str], console: Console) -> tuple[runconfig.RunConfig, Prior, torch.device, BenchFlags]:
    """What the flags ask for: the run's settings, its prior on its device, and bench's own flags.

    Raises:
        ConfigError: a flag that means nothing here. UserError: of any kind that the run itself would raise.
    """
    name = peek(argv, "random-weights")
    name = peek(argv, "random_weights") if name is None else name
    over = {} if name is None else {"prior": architecture(name)}
    flags, base, given = read(BenchFlags, argv, "bench", {"prompt": PROMPT, "finish": "none"}, over)
    config = runconfig.resolve(stages.over(base, given), lambda line: console.print(line, markup=False))
    _check(config, flags, given)
    target = choose(config.device)
    prepare(target, config.deterministic)
    make = load_prior if name is None else random_prior
    return config, make(config.prior, target, config.model), target, flags


def measured(config: runconfig.RunConfig, prior: Prior, device: torch.device, flags: BenchFlags) -> dict[str, Any]:
    """The figures of one run's steps with a prior that is loaded, and of where they were measured."""
    timing = measure(config, prior, device, flags.steps, flags.warmup)
    dtype = prior.products if isinstance(prior, Pretrained) else torch.float32
    ceiling = matmul_ceiling(device, dtype)
    own = {"random_weights": flags.random_weights is not None, "steps": flags.steps, "warmup": flags.warmup}
    return {**figures(timing, ceiling, config, own), "environment": environment(device, ceiling.dtype)}


def _compare(argv: Sequence[str], console: Console) -> None:
    flags = from_dict(BenchFlags, parse([(BenchFlags, {})], argv, prog="gsdistill bench --compare", description=""))
    if flags != BenchFlags(compare=flags.compare):
        raise ConfigError("--compare reads two files and measures nothing: it takes no other flag")
    before, after = (read_figures(path) for path in flags.compare or ())
    compare(console, before, after)


def _check(config: runconfig.RunConfig, flags: BenchFlags, given: dict[str, Any]) -> None:
    """Refuse what means nothing for a measurement."""
    if idle := [name for name in FILES if name in given]:
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
