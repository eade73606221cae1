"""The figures of the house, against small packages of which they are known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import tooling

house = tooling.tool("readme/house")

FILES = {
    "README.md": "héllo\n",
    "gsdistill/__init__.py": '"""Doc."""\n',
    "gsdistill/loose.py": "from gsdistill.a import one\n\n\ndef _f(): ...\n",
    "gsdistill/a/__init__.py": "",
    "gsdistill/a/one.py": "def f():\n    from gsdistill.b.two import g\n    return g\n",
    "gsdistill/b/__init__.py": "",
    "gsdistill/b/two.py": "import gsdistill.b.deep.three\n\n\nclass C:\n    def g(self, a, b, c, d, e, f, *g): ...\n",
    "gsdistill/b/deep/three.py": "from ...a.one import f\nclass C:\n    def h(self,a,b,c,d,e,f): ...\ndef _f(): ...\n",
    "gsdistill/c.py": "if typing.TYPE_CHECKING:\n    import gsdistill.loose\nelse:\n    import gsdistill.a\n",
    "tools/t.py": "x = 1\n",
    "tests/x/test_t.py": "def h(): ...\n\n\nclass TestI:\n    def test_a(self): ...\n    async def test_b(self): ...\n",
    "docs/no.py": "not even Python",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def rows(folder: Path) -> dict[str, str]:
    return house.measure(house.read(str(folder)))[0]


def test_a_small_house_is_counted_right(tmp_path):
    table, circles = house.measure(house.read(str(write(tmp_path, FILES))))
    assert table == {
        "rooms": "5",  # __init__, loose, a, b, c
        "rooms at all levels": "6",  # and b/deep
        "loose modules": "2",
        "arrows": "4",  # loose -> a, a -> b, b -> a, c -> a
        "arrows at all levels": "5",  # loose -> a, a -> b, b -> b/deep, b/deep -> a, c -> a
        "circles": "1",
        "modules": "8",
        "the longest": "5 (gsdistill/b/two.py)",
        "function median": "1",
        "function p90": "3",
        "function max": "3",
        "functions with 7 or more parameters": "1",  # g, not h
        "names defined twice or more": "1",  # C; a name with an underscore and a method are none
        "package: lines": "21",
        "package: code": "16",
        "tools: lines": "1",
        "tools: code": "1",
        "tests: lines": "6",
        "tests: code": "4",
        "test functions": "2",
        "README bytes": "7",
    }
    assert circles == [["gsdistill.a.one", "gsdistill.b.deep.three", "gsdistill.b.two"]]  # by an import in a function


def test_without_its_lazy_import_the_circle_is_gone(tmp_path):
    files = FILES | {"gsdistill/a/one.py": "def f(): ...\n"}
    assert house.measure(house.read(str(write(tmp_path, files))))[1] == []


def test_circles_are_apart_where_one_reaches_the_other_but_not_back():
    graph = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"a", "f"}}
    assert house.circles(graph) == [["c", "d", "e"], ["a", "b"]]


def test_blanks_comments_and_docstrings_are_no_code(tmp_path):
    head = '"""A.\n\nB.\n"""\n\n# no\nx = """\n\n"""  # three lines of a string\n\n\n'
    text = head + 'def f():\n    """C."""\n    # no\n    return (\n        1\n    )\n'
    table = rows(write(tmp_path, {"gsdistill/m.py": text}))
    assert (table["package: lines"], table["package: code"]) == ("17", "7")
    assert table["function max"] == "5"  # from def to the last line, less the docstring


def test_nine_in_ten_functions_do_not_exceed_p90(tmp_path):
    functions = [f"def f{n}():\n" + "    1\n" * (n - 1) + "    2\n" for n in range(1, 21)]  # 2 to 21 lines
    table = rows(write(tmp_path, {"gsdistill/m.py": "".join(functions)}))
    assert [table[f"function {name}"] for name in ("median", "p90", "max")] == ["11", "19", "21"]


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_is_read_and_nothing_is_checked_out(tmp_path, monkeypatch, capsys):
    git(write(tmp_path, FILES), "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    before = git(tmp_path, "rev-parse", "HEAD")
    whole = house.measure(house.read(str(tmp_path)))
    (tmp_path / "gsdistill/c.py").unlink()
    monkeypatch.chdir(tmp_path)
    assert house.measure(house.read(before)) == whole
    assert house.main([before[:7], "."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        f"| | {before[:7]} | . |",
        "|---|---|---|",
        "| rooms | 5 | 4 |",
        "| rooms at all levels | 6 | 5 |",
    ]
    assert lines[-1] == "circle in .: gsdistill.a.one, gsdistill.b.deep.three, gsdistill.b.two"
    assert git(tmp_path, "status", "--porcelain") == "D gsdistill/c.py"


@pytest.mark.parametrize(
    ("files", "place", "message"),
    [
        ({}, "nowhere", "nowhere is neither a folder nor a commit of the repository here"),
        ({"tools/a.py": ""}, ".", ". has no gsdistill/ with modules in it"),
        ({"gsdistill/a.py": "def"}, ".", "gsdistill/a.py, line 1: invalid syntax"),
    ],
)
def test_what_cannot_be_read_is_one_line(files, place, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write(tmp_path, files))
    assert house.main([place]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
