"""HTML from Python: text is escaped unless it is markup already, and a page may load only what it names.

A page carries its style and its script, and a Content-Security-Policy that allows these two by their hashes and nothing
that is not asked for: no network, no plugins, no forms, no inline handlers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from gsdistill.disk.texts import shown
from gsdistill.disk.write import write_bytes

__all__ = ["Attributes", "Html", "element", "joined", "part", "write_page"]

Attributes: TypeAlias = Mapping[str, "str | int | float | bool | None"]

_EMPTY = ("circle", "img", "input", "line", "link", "meta", "path", "rect")  # elements without children
# What no page may hold, and what shows the letters around it in another order than they have (Unicode's UAX 9).
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is markup."""


def element(name: str, attributes: Attributes, *children: str) -> Html:
    """Return an element; children that are not :class:`Html` are text.

    An attribute that is None or False is left out, one that is True has no value.
    """
    given = "".join(
        f" {key}" if value is True else f' {key}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{given}/>" if name in _EMPTY else f"<{name}{given}>{joined(children)}</{name}>")


def joined(parts: Iterable[str], between: str = "") -> Html:
    """Return parts one after the other; those that are not :class:`Html` are text."""
    return Html(between.join(part if isinstance(part, Html) else _escaped(part) for part in parts))


def part(name: str) -> str:
    """Return the text of a file that lies beside this module: a style or a script."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def write_page(path: Path, title: str, body: Html, style: str, script: str, sources: str) -> None:
    """Write a page whose pictures and videos may come from ``sources``, such as ``data:``.

    Raises:
        OutputError: the file cannot be written.
    """
    policy = (
        f"default-src 'none'; img-src {sources}; media-src {sources}; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    head = (
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("title", {}, title),
        element("link", {"rel": "icon", "href": "data:,"}),
        element("style", {}, Html(style)),
    )
    page = (
        element("head", {}, joined(head, "\n")),
        element("body", {}, body, "\n", element("script", {}, Html(script))),
    )
    write_bytes(path, f"<!doctype html>\n{element('html', {'lang': 'en'}, joined(page))}\n".encode())


def _escaped(text: str) -> str:
    return html.escape(_CONTROL.sub("\ufffd", shown(text)))


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
