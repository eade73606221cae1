"""Finds classes by name. The file name is the registry: ``distillation/cds.py`` holds the method ``cds``.

A name is written with hyphens where the file has underscores: ``scene/init/point_e.py`` is ``point-e``.

A registered package has a ``base.py`` with an abstract class, which ``INTERFACE`` in its ``__init__.py`` names, and one
module per implementation with exactly one public concrete subclass. ``NOT_LISTED`` names its other modules.

If the package has a ``GROUP``, classes from outside are accepted too: ``module:Class`` of a module that Python finds,
``file.py:Class`` of any file, and the entry points of that group in installed packages, by their names. Loading such a
class runs its code, so code that only looks at files of others uses :func:`at_hand`, which loads nothing. The classes
are frozen dataclasses whose fields are their settings, unless the package's ``MADE_WITH`` lists other arguments.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from gsdistill.core.errors import ConfigError, did_you_mean, first_line, tell
from gsdistill.disk.paths import absolute, expanded, file_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "OWN", "at_hand", "broken", "installed", "is_own", "label_of", "load", "load_own", "names", "only_looking",
    "origin", "own_name", "same_name", "summary", "tell_of_twin",
]  # fmt: skip

OWN = "module:Class or file.py:Class"
_CALLED: dict[object, str] = {}  # the name by which each class from outside was loaded
_LOOKING = ContextVar("looking", default=False)


def names(package: str, base_modules: Collection[str] = ("base",)) -> list[str]:
    """Return the names registered in ``package`` (``gsdistill.distillation``), sorted, without importing them."""
    return sorted({*_shipped(package, base_modules), *installed(_group(package))})


def load(package: str, name: str, kind: str = "method") -> type:
    """Import the class called ``name`` of ``package``; ``kind`` says in messages what is named, as in "initialiser".

    Raises:
        ConfigError: there is no such name, or as :func:`load_own`. TypeError: a module of the package does not hold
            exactly one such class.
    """
    if not isinstance(name, str):  # YAML may hold anything
        raise ConfigError(f"{kind} = {name!r} is no name; expected text")
    home, group, shipped = importlib.import_module(package), _group(package), _shipped(package)
    if name in shipped:
        tell_of_twin(name, group, kind)
        return _one_class(importlib.import_module(f"{package}.{name.replace('-', '_')}"), _interface(package))
    if group and (":" in name or name.endswith(".py") or name in installed(group)):
        return load_own(name, group, _interface(package), kind, getattr(home, "MADE_WITH", ()))
    known = names(package)
    unknown = f"unknown {kind} '{name}'.{did_you_mean(name, known)} Available: {', '.join(known)}"
    raise ConfigError(f"{unknown}, or one of your own as {OWN}" if hasattr(home, "GROUP") else unknown)


def at_hand(package: str, name: str, kind: str = "method") -> type | None:
    """The class that :func:`load` returns; None if there is none, or it is from outside and not loaded yet."""
    with only_looking(), suppress(ConfigError):
        return load(package, name, kind)


def load_own(name: str, group: str, interface: type, kind: str, made_with: Sequence[str] = ()) -> type:
    """Import a class from outside: ``module:Class``, ``file.py:Class``, or the name of an entry point of ``group``.

    Raises:
        ConfigError: there is no such class, or it cannot be imported; several installed packages have that name; it is
            not a concrete subclass of ``interface``; it does not take the arguments ``made_with``, or, if there are
            none, is not a frozen dataclass.
    """
    return _checked(_outside(name, group, kind), interface, f"{kind} '{name}'", made_with)


@contextmanager
def only_looking() -> Iterator[None]:
    """In the block, naming a class from outside that this process has not loaded yet is an error: nothing is loaded."""
    before = _LOOKING.set(True)
    try:
        yield
    finally:
        _LOOKING.reset(before)


def is_own(name: str) -> bool:
    """Whether a text looks like a name from outside: ``module:Class``, ``file.py:Class``, or ``file.py`` alone."""
    place, _, label = name.rpartition(":")
    module = bool(place) and all(part.isidentifier() for part in place.split("."))
    return name.endswith(".py") or (label.isidentifier() and (module or place.endswith(".py")))


def tell_of_twin(name: str, group: str, kind: str) -> None:
    """Warn if an installed package uses ``name``, which is one of ours, for a class of its own."""
    if same := installed(group).get(name):
        tell(f"the {kind} '{name}' is gsdistill's own; that of {_package(same[0])} is {same[0].value}: name it so")


def _outside(name: str, group: str, kind: str) -> Any:
    """The object from outside that ``name`` names, of any type. Raises as :func:`load_own`."""
    subject = f"{kind} '{name}'"
    if entries := installed(group).get(name):
        if len(entries) > 1:
            several = " and ".join(f"{_package(entry)} ({entry.value})" for entry in entries)
            raise ConfigError(f"{subject} is of {several}: give the name in brackets of one of them")
        called, text = name, entries[0].value
    else:
        called = text = _whole(name, kind)
    if _LOOKING.get():
        if item := next((thing for thing, known in _CALLED.items() if known == called), None):
            return item
        raise ConfigError(f"{subject} is of a class from outside, which is not loaded only to look")
    place, _, label = text.rpartition(":")
    if not place or not label.isidentifier():
        raise ConfigError(f"{subject} names no class; write {OWN}, as in ./mine.py:Mine")
    module = _of_file(Path(place), subject) if place.endswith(".py") else _of_module(place, label, subject)
    item = getattr(module, label, None)
    if item is None:
        public = [key for key, value in vars(module).items() if inspect.isclass(value) and not key.startswith("_")]
        raise ConfigError(f"{subject}: there is no '{label}' in {place}.{did_you_mean(label, public)}")
    if callable(item):
        _CALLED.setdefault(item, called)
    return item


def own_name(cls: type) -> str:
    """Return the name by which :func:`load` finds a class: its file's name for ours, else the name it was loaded by.

    A class that was not loaded by name is ``module:Class``, or ``file.py:Class`` if it is in the program's main file.
    """
    module = cls.__module__
    if module.startswith("gsdistill."):
        return module.rpartition(".")[2].replace("_", "-")
    if cls in _CALLED:
        return _CALLED[cls]
    main = getattr(sys.modules.get(module), "__file__", None) if module == "__main__" else None
    return f"{absolute(main) if main else module}:{cls.__qualname__}"


def same_name(one: Any, other: Any) -> bool:
    """Whether two names mean the same class; paths in them may be relative."""
    return one == other or _whole(str(one), "name") == _whole(str(other), "name")


def label_of(name: str) -> str:
    """A short name for titles and folders: the class in the name of a class from outside, any other name unchanged."""
    return name.rpartition(":")[2] if is_own(name) else name


def summary(package: str, name: str) -> str:
    """Return a line that says what ``name`` is, without importing it.

    For ours it is the first line of the module's docstring, for an entry point the package that it comes from.
    """
    group = _group(package)
    if name in installed(group) and name not in _shipped(package):
        return origin(name, group)
    spec = importlib.util.find_spec(f"{package}.{name.replace('-', '_')}")
    source = spec.loader.get_source(spec.name) if spec and spec.loader else ""  # type: ignore[attr-defined]
    return (ast.get_docstring(ast.parse(source or "")) or "").partition("\n")[0]


def origin(name: str, group: str) -> str:
    """The class and the package that an entry point's name stands for."""
    return ", ".join(f"{entry.value} of {_package(entry)}" for entry in installed(group)[name])


@cache
def installed(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name; a name has several if packages use it for different classes."""
    from importlib.metadata import entry_points

    by_name: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=group) if group else ():
        by_name.setdefault(entry.name, {})[entry.value] = entry
    return {name: list(entries.values()) for name, entries in by_name.items()}


def _package(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist else "an installed package"


def _group(package: str) -> str:
    return getattr(importlib.import_module(package), "GROUP", "")


def _interface(package: str) -> type:
    return getattr(importlib.import_module(f"{package}.base"), importlib.import_module(package).INTERFACE)


def _shipped(package: str, base_modules: Collection[str] = ("base",)) -> list[str]:
    home = importlib.import_module(package)
    hidden = {*base_modules, *getattr(home, "NOT_LISTED", ())}
    stems = (m.name for m in pkgutil.iter_modules(home.__path__) if not m.name.startswith("_") and m.name not in hidden)
    return [name.replace("_", "-") for name in stems]


def _one_class(module: ModuleType, interface: type) -> type:
    classes = [
        item
        for label, item in vars(module).items()
        if inspect.isclass(item) and issubclass(item, interface) and item.__module__ == module.__name__
        if not label.startswith("_") and not inspect.isabstract(item)
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must hold one public concrete {interface.__name__}, found {len(classes)}")
    return classes[0]


def _checked(cls: Any, interface: type, subject: str, made_with: Sequence[str]) -> type:
    """``cls`` from outside, if it can be used; raises as :func:`load_own`."""
    base = f"{interface.__module__}.{interface.__name__}"
    if not (inspect.isclass(cls) and issubclass(cls, interface)):
        raise ConfigError(f"{subject} is no subclass of {base}")
    if lacking := sorted(getattr(cls, "__abstractmethods__", ())):
        raise ConfigError(f"{subject} is abstract: it lacks {', '.join(lacking)} of {base}")
    dataclass = vars(cls).get("__dataclass_params__")
    if made_with:
        try:
            inspect.signature(cls).bind(*made_with)
        except TypeError as error:
            called = f"{cls.__name__}({', '.join(made_with)})"
            raise ConfigError(f"{subject} is made by {called}, which its __init__ does not take") from error
    elif dataclass is None or not dataclass.frozen:
        raise ConfigError(f"{subject} is no frozen dataclass: write @dataclass(frozen=True) above the class")
    return cls


def _whole(name: str, kind: str) -> str:
    """A name with the path of its file made absolute."""
    file = file_of(name)
    if file == name:
        return name
    return f"{absolute(expanded(file, kind))}:{label_of(name)}"


def _of_module(place: str, label: str, subject: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise ConfigError(f"{subject}: '{place}' is neither a module nor a file that ends with .py")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise broken(subject, error) from error
        file = Path(f"{place.replace('.', '/')}.py")
        hint = f"; the file {file} here is ./{file}:{label}" if file.is_file() else ""
        raise ConfigError(f"{subject}: there is no module '{error.name}' that Python finds{hint}") from error
    except (Exception, SystemExit) as error:
        raise broken(subject, error) from error


def _of_file(path: Path, subject: str) -> ModuleType:
    """The module of a file, imported once in a process, under a name that no import statement can use."""
    if not path.is_file():
        raise ConfigError(f"{subject}: there is no file {path}")
    main = sys.modules.get("__main__")
    if absolute(getattr(main, "__file__", None) or ".") == path and main:
        return main
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    name = f"{path.stem.replace('.', '_')}@{digest}"
    _Files.paths[name] = path
    if _Files not in sys.meta_path:
        sys.meta_path.append(_Files)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise broken(subject, error, str(path)) from error


class _Files:
    """Finds modules by file for Python's import, which runs each once even if several threads ask for it."""

    paths: ClassVar[dict[str, Path]] = {}

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, cls.paths[name]) if name in cls.paths else None


def broken(subject: str, error: BaseException, file: str = "", doing: str = "import") -> ConfigError:
    """The error for code from outside that fails while ``doing`` something, with the line in its ``file`` if known."""
    frames = traceback.extract_tb(error.__traceback__)
    at = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    where = "" if isinstance(error, SyntaxError) else f" ({at.filename}, line {at.lineno})"
    return ConfigError(f"{subject} does not {doing}: {type(error).__name__}: {first_line(error)}{where}")
