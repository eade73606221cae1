"""Whatever stands in a prompt, a report and a gallery have the elements and the attributes that they always have."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from pages.folder import DEFAULTS, Page, make_run
from rich.console import Console

from gsdistill.disk.write import write_json, write_text
from gsdistill.pages import markup
from gsdistill.pages.gallery import write_gallery
from gsdistill.pages.markup import templates, write_page
from gsdistill.pages.report import write_report
from gsdistill.settings.yaml import dump, load_yaml

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title></style><svg onload=alert(1)>",
    "\"><img src=x onerror='alert(1)'>",
    "' autofocus onfocus=alert(1) x='",
    "javascript:alert(1)",
    "<!--<script>",
    "]]><![CDATA[",
    "&lt;b&gt; &#60;i&#62; &",
    "a\u2028b\u2029c",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "\x00\x08\x1b[2J\x7f\x9b\ufffe",
    "{{7*7}} ${7*7} %s",
    "<base href=//evil.example><meta http-equiv=refresh content=0>",
)


def pages(root: Path, run: Path, text: str) -> list[Page]:
    """The report of a run and the gallery above it, with ``text`` wherever words can stand."""
    name = re.sub(r"[/\x00]", "", text)[:60]
    for state in ("done", "failed", "broken"):
        folder = Path(shutil.copytree(run, root / f"{name}-{state}"))
        config = {**load_yaml(run / "config.yaml"), "prompt": text, "negative_prompt": text, "init_prompt": text}
        write_text(folder / "config.yaml", dump(config))
    write_json(root / f"{name}-failed" / "failure.json", {"error": text})
    (root / f"{name}-failed" / "summary.json").unlink()
    write_text(root / f"{name}-broken" / "summary.json", "{")
    report = write_report(root / f"{name}-done", DEFAULTS)
    write_gallery(root, Console(quiet=True), title=text)
    return [Page(report), Page(root / "gallery.html")]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Page], list[Page]]:
    """The pages of plain words, and of all that is hostile."""
    run = make_run(tmp_path_factory.mktemp("run") / "run")
    plain, hostile = (tmp_path_factory.mktemp(name) for name in ("plain", "hostile"))
    return pages(plain, run, "a house of cards"), pages(hostile, run, " ".join(HOSTILE).replace("\x00", ""))


def shape(page: Page) -> list[tuple[str, list[str]]]:
    return [(name, sorted(attributes)) for name, attributes, _ in page.elements]


def test_the_elements_and_attributes_are_the_usual_ones(both):
    for plain, hostile in zip(*both, strict=True):
        assert shape(hostile) == shape(plain)
        assert "alert(1)" in hostile.source and "alert(1)" not in plain.source


def test_links_lead_to_files_below_and_scripts_are_ours(both):
    for plain, hostile in zip(*both, strict=True):
        for name, attributes, _ in hostile.elements:
            for key in ("href", "src", "data-video"):
                place = urlsplit(attributes.get(key) or "")
                assert place.scheme in ("", "data") and not place.netloc, (name, key)
                assert place.scheme or ".." not in place.path.split("/")
        for tag in ("script", "style"):
            assert [text for _, text in hostile.all(tag)] == [text for _, text in plain.all(tag)]


def test_the_policy_lets_nothing_in(both):
    for page in both[1]:
        (policy,) = (a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
        parts = dict(part.strip().partition(" ")[::2] for part in (policy or "").split(";"))
        assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
        assert "unsafe" not in (policy or "") and "http" not in (policy or "") and "*" not in (policy or "")


TEMPLATE = templates().from_string(
    '<p title="{{ words }}" data-x="{{ words }}">{{ words }}<b>{{ words | upper }}</b></p>'
)


@given(st.text(st.characters()), st.sampled_from(HOSTILE))
def test_any_text_is_read_back_as_text_and_nothing_else(text, hostile):
    """Whatever a template is given, as text or in an attribute; what no page may hold is shown as one letter."""
    for words in (text, hostile + text, text + hostile):
        source = TEMPLATE.render(words=words)
        assert re.fullmatch(r"<p title=\"[^\"<>]*\" data-x=\"[^\"<>]*\">[^<>]*<b>[^<>]*</b></p>", source)
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source)
        source.encode("utf-8")


def test_no_template_switches_the_escaping_off_and_a_name_that_is_not_given_is_an_error():
    for path in Path(markup.__file__).parent.glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape", path.read_text(encoding="utf-8")), path.name
    with pytest.raises(UndefinedError):
        templates().from_string("{{ nobody }}").render()


def test_a_title_of_any_kind(tmp_path):
    nothing = dict.fromkeys(("sortable", "cards", "methods", "broken"), ())
    for place, text in enumerate(HOSTILE):
        values = {"title": text, "keys": {}, "links": {}, "count": text, **nothing}
        write_page(tmp_path / f"{place}.html", "gallery", "data:", **values)
        page = Page(tmp_path / f"{place}.html")
        assert [name for name, _, _ in page.elements][:11] == [
            "html", "head", "meta", "meta", "meta", "meta", "title", "link", "style", "body", "header",
        ]  # fmt: skip
        assert len(page.all("script")) == 1
