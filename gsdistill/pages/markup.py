"""Pages from the Jinja templates beside this module. All text in them is escaped.

A page holds its style and its script. Its Content-Security-Policy allows these two by their hashes, pictures and videos
from the sources that the caller names, and nothing else: no network, no plugins, no forms, no inline handlers.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from gsdistill.disk.texts import as_unicode
from gsdistill.disk.write import write_bytes

__all__ = ["readable", "templates", "write_page"]

_HERE = Path(__file__).parent
# Letters that no page may hold, and those that change the order in which others are shown (Unicode's UAX 9).
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def readable(value: str | int | float) -> str:
    """A number for people: commas between thousands, three digits of fractions, powers of ten from 1e15 on.

    A text stays as it is.
    """
    if isinstance(value, str):
        return value
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    if isinstance(value, int) or abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1 else f"{value:.3g}"


def write_page(path: Path, name: str, sources: str, **values: Any) -> None:
    """Write the page of the template ``name`` with ``values``, and with the style and the script of the same name.

    ``sources`` says where its pictures and videos may come from, such as ``data:``.

    Raises:
        OutputError: the file cannot be written.
    """
    from markupsafe import Markup  # which jinja2 brings

    style, script = _read("page.css") + _read(f"{name}.css"), _read(f"{name}.js")
    policy = (
        f"default-src 'none'; img-src {sources}; media-src {sources}; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    template = templates().get_template(f"{name}.html")
    write_bytes(path, template.render(policy=policy, style=Markup(style), script=Markup(script), **values).encode())


@cache
def templates() -> Any:
    """Jinja's environment: it escapes everything except markup, and a missing name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "finalize": _clean}
    environment = Environment(loader=FileSystemLoader(_HERE), trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters["readable"] = readable
    return environment


def _clean(value: Any) -> Any:
    """A value as templates write it: markup as it is, text without the letters that no page may hold."""
    return value if hasattr(value, "__html__") else _CONTROL.sub("\ufffd", as_unicode(str(value)))


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
