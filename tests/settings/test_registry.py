"""A file dropped into a package is a name; the name gives its one class."""

from __future__ import annotations

import importlib
import sys

import pytest

from gsdistill.core.errors import ConfigError
from gsdistill.settings.registry import load, names, summary

BASE = """
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def area(self): ...
"""
LEAF = '''"""The {name}, by Euclid.

More text."""
from shapes_pkg{n}.base import Shape
class {cls}(Shape):
    def area(self): return 1
class Helper: ...
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with the shapes disc and square, a helper module and private ones."""
    n = len(list(tmp_path.parent.iterdir()))
    name = f"shapes_pkg{n}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text('INTERFACE = "Shape"\nNOT_LISTED = ("tools",)\n')
    (folder / "base.py").write_text(BASE)
    (folder / "disc.py").write_text(LEAF.format(name="disc", cls="Disc", n=n))
    (folder / "square.py").write_text(LEAF.format(name="square", cls="Square", n=n))
    (folder / "tools.py").write_text("raise RuntimeError('a listing imports nothing')\n")
    (folder / "_private.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield name, folder, n
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


def test_the_listing_is_the_public_modules(package):
    name, folder, n = package
    assert names(name) == ["disc", "square"]
    (folder / "cone.py").write_text(LEAF.format(name="cone", cls="Cone", n=n))
    importlib.invalidate_caches()
    assert names(name) == ["cone", "disc", "square"]
    assert f"{name}.cone" not in sys.modules


def test_load_returns_the_one_class(package):
    name, _, _ = package
    assert load(name, "disc").__name__ == "Disc"
    assert load(name, "square")().area() == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("disk", "unknown shape 'disk'. Did you mean 'disc'? Available: disc, square"),
        ("zebra", "unknown shape 'zebra'. Available: disc, square"),
        ("base", "unknown shape 'base'. Available: disc, square"),
        ("tools", "unknown shape 'tools'. Available: disc, square"),
        ("_private", "unknown shape '_private'. Available: disc, square"),
        ("../disc", "unknown shape '../disc'. Did you mean 'disc'? Available: disc, square"),
        ("", "unknown shape ''. Available: disc, square"),
    ],
)
def test_an_unknown_name_lists_the_known(package, wrong, message):
    with pytest.raises(ConfigError) as caught:
        load(package[0], wrong, kind="shape")
    assert str(caught.value) == message


@pytest.mark.parametrize("classes", [(), ("One", "Two"), ("_Hidden",)])
def test_a_module_holds_exactly_one_class(package, classes):
    name, folder, n = package
    text = f"from shapes_pkg{n}.base import Shape\n"
    text += "".join(f"class {cls}(Shape):\n    def area(self): return 1\n" for cls in classes)
    (folder / "odd.py").write_text(text + "class StillAbstract(Shape): ...\n")
    importlib.invalidate_caches()
    with pytest.raises(TypeError, match="one public concrete Shape"):
        load(name, "odd")


def test_summary_reads_the_first_line_without_importing(package):
    name = package[0]
    assert summary(name, "disc") == "The disc, by Euclid."
    assert f"{name}.disc" not in sys.modules
    assert summary(name, "tools") == ""


@pytest.mark.parametrize(
    ("package_name", "expected"),
    [("gsdistill.distillation", {"sds", "cds"}), ("gsdistill.scene.init", {"ball", "ply", "point-e"})],
)
def test_everything_listed_in_the_toolkit_loads(package_name, expected):
    listed = names(package_name)
    assert expected <= set(listed)
    for name in listed:
        assert load(package_name, name).__module__ == f"{package_name}.{name.replace('-', '_')}"
        assert summary(package_name, name)
