"""The settings of a run as YAML, and which of them differ from the defaults.

The run's folder is left out, because a page may be given to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gsdistill.run.changes import leaves
from gsdistill.run.read import name_in
from gsdistill.settings import config
from gsdistill.settings.registry import at_hand
from gsdistill.settings.yaml import dump

__all__ = ["as_yaml", "differences", "marked_yaml", "shown_leaves"]

_NAMED = {
    "method": ("gsdistill.distillation", "method"),
    "init": ("gsdistill.scene.init", "initialiser"),
    "cameras": ("gsdistill.scene.cameras", "law of cameras"),
    "densify": ("gsdistill.scene.densify", "densifier"),
    "background": ("gsdistill.training.backgrounds", "background"),
    "finish": ("gsdistill.training.finish", "finish"),
}
_LEFT_OUT = ("output", "resume", "accept_changes", "overwrite")
_OPEN = ("prompt",)  # settings without a default


def differences(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default of each setting that has another value, by dotted name.

    ``defaults`` are those of a whole run. The settings of a method, and of other classes that a name chooses, are
    compared with the defaults of that class. A class from outside that is not loaded has none: a page never runs code
    that a run names.
    """
    basis = {**defaults}
    for key, (package, kind) in _NAMED.items():
        if name := name_in(settings.get(key)):
            cls = at_hand(package, name, kind)
            basis[key] = {"name": name_in(defaults.get(key)), **(config.defaults(cls) if cls else {})}
    usual = shown_leaves(basis)
    shown = shown_leaves(settings).items()
    return {path: usual[path] for path, value in shown if path in usual and value != usual[path]}


def shown_leaves(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that has a default and that a page shows, by dotted name."""
    return {path: value for path, value in leaves(settings) if path not in (*_LEFT_OUT, *_OPEN)}


def marked_yaml(
    settings: Mapping[str, Any], unusual: Mapping[str, Any], path: str = "", indent: str = ""
) -> Iterator[tuple[str, str, str | None]]:
    """Yield the lines of settings as YAML: indent, text, and the default of those in ``unusual``, else None."""
    for key, value in settings.items():
        if not path and key in _LEFT_OUT:
            continue
        name = f"{path}{key}"
        if isinstance(value, Mapping) and value:
            yield indent, f"{key}:", None
            yield from marked_yaml(value, unusual, f"{name}.", f"{indent}  ")
        else:
            text = dump({key: value}).strip().replace("\n", f"\n{indent}")
            yield indent, text, as_yaml(unusual[name]) if name in unusual else None


def as_yaml(value: Any) -> str:
    """A setting's value as YAML writes it."""
    return dump({"": value}).partition(":")[2].strip()
