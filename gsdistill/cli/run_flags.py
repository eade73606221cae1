"""The flags of a command that makes steps of a run: a config, and every setting of the run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gsdistill.cli.flags import behind, parse_flags, peek
from gsdistill.core.errors import ConfigError
from gsdistill.core.threads import Threads
from gsdistill.disk.paths import may_be_path
from gsdistill.settings.config import from_dict, merge, setting_fields
from gsdistill.settings.registry import own_name

if TYPE_CHECKING:
    from gsdistill.run.config import RunConfig

__all__ = ["RunFlags", "check_threads", "read_run_flags"]


@dataclass(frozen=True)
class RunFlags(Threads):
    """The flags that a run's settings do not have."""

    # Take settings from a YAML file, the folder of an earlier run, or a name of `gsdistill list configs`.
    config: str | None = field(default=None, metadata=may_be_path())
    # Read the prompt from a text file with one line, in place of --prompt.
    prompt_file: str | None = field(default=None, metadata=may_be_path())
    offline: bool = False  # Never ask the network; use what is on this machine, as with HF_HUB_OFFLINE=1.


F = TypeVar("F", bound=RunFlags)


def read_run_flags(
    command: type[F], argv: Sequence[str], basis: Mapping[str, Any] = {}, over: Mapping[str, Any] = {}
) -> tuple[F, dict[str, Any], dict[str, Any]]:
    """Return a command's own flags, the settings below the typed ones, and the typed settings of the run.

    The settings below are the config over ``basis``, then ``over``, then the typed names on which other flags and
    defaults depend: method, init, cameras, densify, background, finish, prior, device and quality. Threads and offline
    take effect here.

    Raises:
        ConfigError: an unknown flag, config or name, or several prompts. BadFile: a file cannot be read.
    """
    from gsdistill.models.hub import go_offline
    from gsdistill.run import stages
    from gsdistill.run.config import RunConfig, fill_settings, read_config
    from gsdistill.run.prompts import read_prompts

    if len(words := behind(argv, "prompt")) > 1:
        raise ConfigError(
            f"{' '.join(map(repr, words))} are several prompts: put one in quotes, as in --prompt 'a red torus'; "
            "gsdistill sweep --prompts 'a red torus' 'a blue cube' makes several"
        )
    file = peek(argv, "config")
    choices = ("method", "init", "cameras", "densify", "background", "finish", "prior", "device", "quality")
    chosen = {choice: value for choice in choices if (value := peek(argv, choice))}
    base = stages.over(stages.over(merge(basis, read_config(file) if file else {}), over), chosen)
    sources = [(command, {}), (RunConfig, fill_settings(base))]
    typed = parse_flags(sources, argv, prog=f"gsdistill {own_name(command)}", description=inspect.getdoc(command) or "")
    flags = from_dict(command, {flag: typed.pop(flag) for flag in setting_fields(command) if flag in typed})
    flags.take()
    if flags.offline:
        go_offline()
    if flags.prompt_file:
        if "prompt" in typed:
            raise ConfigError("--prompt and --prompt-file exclude each other")
        typed["prompt"], *more = read_prompts(flags.prompt_file)
        if more:
            counted = f"{flags.prompt_file} holds {1 + len(more)} prompts, one on each line, and this command takes one"
            raise ConfigError(f"{counted}; gsdistill sweep --prompt-file {flags.prompt_file} makes them all")
    return flags, base, typed


def check_threads(flags: RunFlags, config: RunConfig) -> None:
    """Refuse a number of threads other than the one that a deterministic run takes on a CPU.

    Raises:
        ConfigError: another number is asked for.
    """
    from gsdistill.core.device import choose

    if config.deterministic and flags.threads not in (None, 1) and choose(config.device).type == "cpu":
        raise ConfigError(f"--deterministic takes one thread on a CPU, not --threads {flags.threads}")
