"""A settings class with a field that no line of YAML can say is refused in one sentence, wherever it is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional

import labs
import pytest
import torch

from gsdistill.cli.main import execute
from gsdistill.core.errors import ConfigError
from gsdistill.run.config import RunConfig
from gsdistill.settings.config import defaults, from_dict
from gsdistill.settings.kinds import ALLOWED, kinds_of
from gsdistill.settings.ramp import Ramp


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Every:
    """All that a setting can be."""

    a: bool = True
    b: int | None = None
    c: tuple[float, ...] = ()
    d: Optional[tuple[Path, str]] = None  # noqa: UP045
    e: Literal["x", 3] = "x"
    f: Ramp = Ramp(1.0, 0.0)
    g: Inner = field(default_factory=Inner)
    h: tuple[tuple[int, int], ...] = ()


def test_what_yaml_can_say_is_taken():
    assert from_dict(Every, defaults(Every)) == Every()
    kinds_of(RunConfig)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (list[int], "list[int]"), (dict, "dict"), (torch.Tensor, "torch.Tensor"), (tuple, "tuple"),
        (tuple[list, ...], "tuple[list, ...]"), (set[str] | None, "set[str] | None"), (complex, "complex"),
        (Sequence[int], "collections.abc.Sequence[int]"),
    ],
    ids=str,
)  # fmt: skip
def test_what_it_cannot_say_is_named_with_its_class(kind, told):
    odd = dataclass(frozen=True)(type("Odd", (), {"__annotations__": {"what": kind}, "what": None}))
    with pytest.raises(ConfigError) as caught:
        from_dict(odd, {})
    assert str(caught.value) == f"{__name__}.Odd.what is of type {told}, which no setting can be; allowed: {ALLOWED}"


SOURCE = """
from __future__ import annotations
from dataclasses import dataclass, field
from gsdistill import Distillation

@dataclass(frozen=True)
class Listed(Distillation):
    many: list[int] = field(default_factory=list)
    def gradient(self, moment, state): ...

@dataclass(frozen=True)
class Unknown(Distillation):
    what: Nothing = None
    def gradient(self, moment, state): ...
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Listed", ".Listed.many is of type list[int], which no setting can be; allowed: bool, int, float, str, Path"),
        ("Unknown", ".Unknown cannot be read: name 'Nothing' is not defined"),
    ],
)
def test_the_command_says_it_of_a_class_of_ones_own(name, told, tmp_path, capsys):
    with labs.lab(tmp_path, mine=SOURCE):
        for more in ([], ["--help"], ["--method.many", "1"]):
            assert execute(["generate", "--prompt", "a red torus", "--method", f"./mine.py:{name}", *more]) == 2
            assert told in capsys.readouterr().err
