from pathlib import Path

import pytest

from gsdistill.core import extras
from gsdistill.core.errors import NotInstalled
from gsdistill.core.extras import EXTRAS, missing, require


def test_the_extras_are_those_that_the_project_declares():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read TOML")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {name.partition(">")[0] for name in packages}
        for extra, packages in project["optional-dependencies"].items()
    }
    assert {extra: set(packages.values()) for extra, packages in EXTRAS.items()} == {
        extra: packages for extra, packages in declared.items() if extra in EXTRAS
    }


def test_what_is_missing_comes_with_the_command_that_gets_it(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "mesh", {"torch": "torch", "no_such_a": "no-such-a", "no_such_b": "no-such-b"})
    assert missing("mesh") == ["no-such-a", "no-such-b"]
    with pytest.raises(NotInstalled, match=r"^a mesh needs .*: pip install no-such-a no-such-b$"):
        require("mesh", "a mesh")
    with pytest.raises(NotInstalled, match=r"^a mesh needs no-such-b \(the .*: pip install no-such-b$"):
        require("mesh", "a mesh", "no-such-b")
    require("mesh", "a mesh", "torch")
    monkeypatch.setitem(extras.EXTRAS, "mesh", {"torch": "torch"})
    require("mesh", "a mesh")
