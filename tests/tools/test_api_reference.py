"""The reference of the library: what leads nowhere is seen, and docstrings are shown as they are written."""

from __future__ import annotations

import re

import labs
import pytest
import tooling

import gsdistill

pytest.importorskip("sphinx", reason="needs the extra docs")
reference = tooling.tool("readme/api_reference")

SOUND = '''"""Letters: :func:`first`, :class:`Two`, :mod:`gsdistill.core.errors`, :func:`gsdistill.core.errors.tell`.

    x_t = alpha_t x0 + |sigma_t| eps*
    ``not code``

And so on.
"""

from pathlib import Path
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import did_you_mean

__all__ = ["LIMIT", "Any", "Two", "Way", "first"]

Way = Float[Tensor, ""]
B = TypeVar("B")

# How many
# there are.
LIMIT = 3


class Any(Generic[B]):
    """Holds :obj:`lab_of_letters.B`."""


class Two:
    """Has :meth:`second`, :data:`LIMIT` and :attr:`size`; 2 * 3 * |4|, eps_ and x_."""

    size: int = 2  # :func:`first` of all
    other: Path | None = None

    def second(self, place: Path) -> "Two":
        """As :func:`did_you_mean`.

        Raises:
            ConfigError: no such place. OSError: it is not there.
        """


def first(two: Two) -> None:
    """As :meth:`Two.second`."""


def _hidden() -> None:
    """As :func:`first`."""
'''


@pytest.fixture
def complaints(tmp_path, monkeypatch, capsys):
    """Of a module with this text, beside one of ours, what is said of it."""
    monkeypatch.setattr(reference, "FIRST", {})
    monkeypatch.setattr(reference, "modules", lambda: ["gsdistill.core.errors", "lab_of_letters"])
    monkeypatch.setattr(gsdistill, "__all__", [])
    monkeypatch.syspath_prepend(tmp_path)

    def of(text: str, check: bool = True) -> str:
        reference.ModuleAnalyzer.cache.clear()
        with labs.lab(tmp_path, lab_of_letters=text):
            count = reference.build(tmp_path / "html", check)
        said = capsys.readouterr().err
        assert bool(count) == bool(said)
        return said

    return of


def test_what_is_sound_is_not_complained_of(complaints):
    assert complaints(SOUND) == ""


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (":func:`first`, ", ":func:`third`, ", "func reference target not found: third"),
        (":meth:`second`, ", ":meth:`third`, ", "meth reference target not found: third"),
        (":meth:`second`, ", ":meth:`pathlib.Path.second`, ", "not found: pathlib.Path.second"),
        (":attr:`size`", ":attr:`weight`", "attr reference target not found: weight"),
        (":data:`LIMIT`", ":data:`LIMITS`", "data reference target not found: LIMITS"),
        (":func:`gsdistill.core.errors.tell`", ":func:`gsdistill.core.errors.say`", "not found: gsdistill.core"),
        (":func:`did_you_mean`", ":func:`tell`", "func reference target not found: tell"),
        ('"""As :func:`first`.', '"""As :func:`third`.', "func reference target not found: third"),
        ("# :func:`first` of all", "# :func:`third` of all", "func reference target not found: third"),
        ("ConfigError:", "ConfigMistake:", "exc reference target not found: ConfigMistake"),
        ("eps_ and x_.", "``eps", "Inline literal start-string without end-string"),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_named(complaints, old, new, named):
    assert SOUND.count(old) == 1
    assert named in complaints(SOUND.replace(old, new))


def test_the_page_shows_what_was_written(complaints, tmp_path):
    assert complaints(SOUND, check=False) == ""
    page = (tmp_path / "html" / "lab_of_letters.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert "x_t = alpha_t x0 + |sigma_t| eps*\n``not code``" in text
    assert "2 * 3 * |4|, eps_ and x_." in text
    assert "How many\nthere are." in text and "first() of all" in text
    assert 'href="#lab_of_letters.Two.second"' in page and 'href="#lab_of_letters.first"' in page
    assert "_hidden" not in text


def test_every_module_has_its_page_and_none_is_listed_twice():
    first = [f"gsdistill.{name}" for group in reference.FIRST.values() for name in group]
    assert len(first) == len(set(first)) and set(first) <= set(reference.modules())
    assert len(reference.modules()) > 200
