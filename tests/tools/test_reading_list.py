"""The reading list counts what is in the source, and fails where that is too much or gone."""

from __future__ import annotations

import pytest
import tooling

reading_list = tooling.tool("reading_list")
Reading = reading_list.Reading


def test_a_method_needs_at_most_five_hundred_lines(capsys):
    assert reading_list.main() == 0
    lines = capsys.readouterr().out.splitlines()
    counts = [int(line.split()[0]) for line in lines if line[:4].strip()]
    assert sum(counts[:-1]) == counts[-1] == reading_list.total() <= 500


def test_parts_are_counted_with_decorators_and_docstrings(tmp_path, monkeypatch):
    source = '"""One.\n\nTwo.\n"""\nX = (\n    1,\n)\n\n\n@a\n@b\nclass C:\n    """C."""\n\n    y: int\n\n    @d\n'
    source += "    def f(self):\n        return 1\n\n    def g(self): ...\n"
    (tmp_path / "m.py").write_text(source)
    monkeypatch.setattr(reading_list, "ROOT", tmp_path)
    parts = ("docstring", "X", "C", "C (head)", "C.f", "C.g")
    assert reading_list.ranges(Reading("m.py", "", parts)) == [(1, 4), (5, 7), (10, 21), (10, 16), (17, 19), (21, 21)]
    assert reading_list.ranges(Reading("m.py", "")) == [(1, 21)]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading("gsdistill/nothing.py", ""), "gsdistill/nothing.py is not there"),
        (
            Reading("gsdistill/settings/ramp.py", "", ("Ramp", "Stair")),
            "gsdistill/settings/ramp.py no longer has Stair",
        ),
    ],
)
def test_what_is_gone_is_named(reading, message, monkeypatch, capsys):
    monkeypatch.setattr(reading_list, "READING", (reading,))
    assert reading_list.main() == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_too_much_fails(monkeypatch, capsys):
    monkeypatch.setattr(reading_list, "MOST", 10)
    assert reading_list.main() == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("lines in all, 10 at most")
