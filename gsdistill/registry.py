"""The file name is the registry: ``distillation/cds.py`` is the method ``cds``, the folder lists the methods.

A name is written with hyphens where the file has underscores: ``scene/init/point_e.py`` is ``point-e``.

A registered package has ``base.py`` with an abstract class, whose name its ``__init__.py`` gives as ``INTERFACE``, and
one module per implementation with exactly one public concrete subclass of it. Modules that only help are named in its
``NOT_LISTED``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Collection

from gsdistill.errors import ConfigError, did_you_mean

__all__ = ["load", "names", "summary"]


def names(package: str, base_modules: Collection[str] = ("base",)) -> list[str]:
    """Return the names registered in ``package`` (``gsdistill.distillation``), sorted; imports none of them."""
    home = importlib.import_module(package)
    hidden = {*base_modules, *getattr(home, "NOT_LISTED", ())}
    found = (m.name for m in pkgutil.iter_modules(home.__path__) if not m.name.startswith("_") and m.name not in hidden)
    return sorted(name.replace("_", "-") for name in found)


def load(package: str, name: str, kind: str = "method") -> type:
    """Import the module ``name`` of ``package`` and return its one public concrete subclass of the package's interface.

    Raises:
        ConfigError: no such name; ``kind`` says in the message what the name is of.
        TypeError: the module does not hold exactly one such class.
    """
    known = names(package)
    if name not in known:
        raise ConfigError(f"unknown {kind} '{name}'.{did_you_mean(name, known)} Available: {', '.join(known)}")
    interface = getattr(importlib.import_module(f"{package}.base"), importlib.import_module(package).INTERFACE)
    module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
    found = [
        item
        for label, item in vars(module).items()
        if inspect.isclass(item) and issubclass(item, interface) and item.__module__ == module.__name__
        if not label.startswith("_") and not inspect.isabstract(item)
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must hold one public concrete {interface.__name__}, found {len(found)}")
    return found[0]


def summary(package: str, name: str) -> str:
    """Return the first line of the docstring of the module ``name``, read from its source without importing it."""
    spec = importlib.util.find_spec(f"{package}.{name.replace('-', '_')}")
    source = spec.loader.get_source(spec.name) if spec and spec.loader else ""  # type: ignore[attr-defined]
    return (ast.get_docstring(ast.parse(source or "")) or "").partition("\n")[0]
