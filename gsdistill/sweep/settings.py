"""The settings of a sweep. Nothing heavy is imported here, because the command line reads it for its help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.threads import Threads
from gsdistill.disk.paths import file_of, may_be_path
from gsdistill.disk.places import slug
from gsdistill.run.prompts import read_prompts, sampled
from gsdistill.settings.registry import label_of, load, names

__all__ = ["SweepSettings", "shown", "steps_of"]


@dataclass(frozen=True)
class SweepSettings(Threads):
    """What a sweep runs and compares, and where its files go.

    Raises:
        ConfigError: a method, a finish or a config is unknown, a value is missing or given twice.
        BadFile: the file of prompts cannot be read, or holds no prompt.
    """

    # Names of `gsdistill list methods`, or classes of your own as file.py:Class.
    methods: tuple[str, ...] = ("sds", "ssd", "cds", "fsd", "asd", "csd")
    prompts: tuple[str, ...] = ()  # What to make, each in quotes.
    # More prompts: a text file with one on each line, or a name of `gsdistill list prompts`.
    prompt_file: str | None = field(default=None, metadata=may_be_path())
    sample: int | None = bounded(None, low=1)  # Only so many prompts of the file or list, drawn at random.
    sample_seed: int = bounded(0, low=0)  # Another seed draws others.
    seeds: tuple[int, ...] = bounded((0, 1, 2), low=0, high=2**32 - 1)  # Each prompt is run with each of them.
    iterations: int = bounded(300, low=1)  # Steps of every run in the comparison with equal steps.
    # What is equal for all methods, steps or network evaluations; both: one comparison of each kind.
    equal: Literal["steps", "evaluations", "both"] = "both"
    # Compare also a second run of each, which goes on from the end of the first with this finish, a name of
    # `gsdistill list finishes`; none: only the methods alone.
    finish: str = "none"
    finish_iterations: int = bounded(60, low=1)  # Steps of the finish, if there is one, beyond those of the method.
    configs: tuple[str, ...] = ()  # Settings of a method over its recipe: ssd=mine.yaml.
    prior: str = field(default="shapes", metadata=may_be_path())  # A name of `gsdistill list priors`, or a folder.
    prior_figures: bool = False  # Also measure what the prior sees in each splat: fronts, and how the prompt fits.
    device: str = "auto"  # As of `gsdistill generate`.
    output: Path = Path("outputs/sweep")  # Folder of the runs and of the comparison.
    run: bool = True  # Carry out the runs that are left; without it only compare finished ones.

    def __post_init__(self) -> None:
        listed = names("gsdistill.distillation")
        for method in (*self.methods, *self.own_configs):
            if method not in listed:
                load("gsdistill.distillation", method)
        if self.finish not in names("gsdistill.training.finish"):
            load("gsdistill.training.finish", self.finish, "finish")
        methods = [shown(method) for method in self.methods]
        for what, values in (("methods", methods), ("prompts", self.all_prompts), ("seeds", self.seeds)):
            if not values:
                raise ConfigError(f"no {what}; name at least one, as in --{what} {_EXAMPLES[what]}")
            _refuse_twins(what, values)
        for method, config in self.own_configs.items():
            if method not in self.methods:
                raise ConfigError(f"configs: '{method}={config}' is for none of the methods {', '.join(self.methods)}")

    @cached_property
    def all_prompts(self) -> tuple[str, ...]:
        """``prompts``, then those of the file or list, or the sample of them.

        Raises:
            ConfigError: there is no such list, or a sample that cannot be drawn.
            BadFile: the file cannot be read, or holds no prompt.
        """
        if self.prompt_file is None:
            if self.sample is not None:
                raise ConfigError(f"sample = {self.sample} is for the prompts of --prompt-file, which is not given")
            return self.prompts
        listed = read_prompts(self.prompt_file)
        if self.sample is None:
            return (*self.prompts, *listed)
        if self.sample > len(listed):
            raise ConfigError(f"sample = {self.sample}: {self.prompt_file} holds {len(listed)} prompts")
        return (*self.prompts, *sampled(listed, self.sample, self.sample_seed))

    @property
    def own_configs(self) -> dict[str, str]:
        """The entries of ``configs``, config by method.

        Raises:
            ConfigError: an entry is not ``method=config``, or a method has two.
        """
        pairs = [entry.partition("=") for entry in self.configs]
        for method, equals, config in pairs:
            if not (method and equals and config):
                raise ConfigError(f"configs: '{method}{equals}{config}' is not method=config, as in ssd=mine.yaml")
        _refuse_twins("configs", [method for method, *_ in pairs])
        return {method: config for method, _, config in pairs}


def shown(method: str) -> str:
    """A method's name in tables and folders; ``file:Class`` for a class in a file, as other files may have its name."""
    file = file_of(method)
    return method if file == method else f"{Path(file).stem}:{label_of(method)}"


def steps_of(iterations: int, finish_steps: int) -> str:
    """The steps of a run in words: those of its method, and those of the finish, if it has one."""
    return f"{iterations - finish_steps} + {finish_steps}" if finish_steps else str(iterations)


_EXAMPLES = {"methods": "sds ssd", "prompts": "'a red torus' 'a blue chair'", "seeds": "0 1 2"}


def _refuse_twins(what: str, values: Iterable[str | int]) -> None:
    """Raise ConfigError where two values would share their runs' folders."""
    for folder, count in Counter(slug(str(value)) for value in values).most_common(1):
        if count > 1:
            raise ConfigError(f"{what}: '{folder}' is given {count} times; name each once")
