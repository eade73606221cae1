"""Pages from Jinja's templates, which lie beside this module: all text is escaped, and a page loads what it names only.

A page carries its style and its script, and a Content-Security-Policy that allows these two by their hashes and nothing
that is not asked for: no network, no plugins, no forms, no inline handlers.
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
# What no page may hold, and what shows the letters around it in another order than they have (Unicode's UAX 9).
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is markup, which templates write as it is."""

    def __html__(self) -> Html:
        """What Jinja asks for."""
        return self


def readable(value: str | int | float) -> str:
    """A number for people: three digits of a fraction, thousands apart, powers of ten for what has no name."""
    if isinstance(value, str):
        return value
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    if isinstance(value, int) or abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1 else f"{value:.3g}"


def write_page(path: Path, name: str, sources: str, **values: Any) -> None:
    """Write the page that the template ``name`` makes of ``values``, with the style and the script of the same name.

    ``sources`` are where its pictures and videos may come from, such as ``data:``.

    Raises:
        OutputError: the file cannot be written.
    """
    style, script = _text("page.css") + _text(f"{name}.css"), _text(f"{name}.js")
    policy = (
        f"default-src 'none'; img-src {sources}; media-src {sources}; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    template = templates().get_template(f"{name}.html")
    write_bytes(path, template.render(policy=policy, style=Html(style), script=Html(script), **values).encode())


@cache
def templates() -> Any:
    """Jinja's environment: it escapes all that is not markup, and a name that is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "finalize": _clean}
    environment = Environment(loader=FileSystemLoader(_HERE), trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters["readable"] = readable
    return environment


def _clean(value: Any) -> Any:
    """What a template is about to escape and write, without letters that a page may not hold."""
    return value if hasattr(value, "__html__") else _CONTROL.sub("\ufffd", as_unicode(str(value)))


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
