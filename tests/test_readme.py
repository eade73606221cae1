"""The pages in Markdown: links lead somewhere, files that are named are there, commands are understood."""

from __future__ import annotations

import contextlib
import pkgutil
import re
import shlex
from pathlib import Path

import labs
import pytest
import yaml

from gsdistill import __version__
from gsdistill.cli.main import PACKAGE, execute
from gsdistill.distillation import GROUP
from gsdistill.settings.registry import load, names

ROOT = Path(__file__).parents[1]
ROOMS = ("assets", "configs", "gsdistill", "tests", "tools")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))])
PAGES = [page for page in PAGES if "node_modules" not in page.parts]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/[\w./-]*\w")
DOTTED = re.compile(r"(?<![\w./])gsdistill(?:\.\w+)+")
NO_MODULE = {GROUP, "gsdistill.json"}  # a group of entry points, a file of a model
BLANK = re.compile(r"(?<![A-Z])(?:NAME|METHOD)(?![A-Z])")  # what the reader fills in

every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def slugs(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?)\s*$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return {slug + (f"-{found[:i].count(slug)}" if slug in found[:i] else "") for i, slug in enumerate(found)}


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere, those to other sites aside."""
    links = LINK.findall(CODE.sub("", FENCE.sub("", text)))
    return [link for link in links if not re.match(r"\w+:", link) and not leads(page, text, *link.partition("#")[::2])]


def leads(page: Path, text: str, name: str, anchor: str) -> bool:
    """Whether a link from a page with this text leads to a file of ours and, with an anchor, to a heading of it."""
    if name:
        page = (page.parent / name).resolve()
        if not page.is_relative_to(ROOT) or not page.exists():
            return False
        text = page.read_text(encoding="utf-8") if anchor else ""
    return not anchor or anchor in slugs(text)


def commands(text: str) -> list[list[str]]:
    """The words behind `gsdistill` of every command of a page, of a block of bash or within a sentence."""
    lines = [line for kind, block in FENCE.findall(text) if kind == "bash" for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in CODE.findall(FENCE.sub("", text))]
    parts = [shlex.split(part, comments=True) for line in lines if "gsdistill " in line for part in line.split("&&")]
    return [words[1:] for words in parts if words and Path(words[0]).name == "gsdistill" and words[1:]]


@pytest.fixture
def unperformed(tmp_path, monkeypatch):
    """Command lines are read as ever, in a folder with the files of the pages' blocks; nothing of them is performed."""
    blocks = [text for page in PAGES for _, text in FENCE.findall(page.read_text(encoding="utf-8"))]
    sources = {match[1]: text for text in blocks if (match := re.match(r'"""(\w+)\.py:', text))}
    for name in set(names(PACKAGE)) - {"generate", "play2d", "bench"}:
        monkeypatch.setattr(load(PACKAGE, name), "perform", lambda command, console: None)
    monkeypatch.setattr("gsdistill.generate.run", lambda config, console, listeners=(): None)
    monkeypatch.setattr("gsdistill.cli.foresight.foresee", lambda config: [])
    monkeypatch.setattr("gsdistill.viewer.live.LiveView", lambda *settings: contextlib.nullcontext())
    monkeypatch.setattr("gsdistill.laboratory.folder.perform", lambda *settings: None)
    for name in (
        *(
            "prior.loading.load_prior",
            "prior.random_weights.random_prior",
            "bench.figures.measure",
            "bench.report.show",
        ),
        *("cli.commands.bench.write_json", "bench.figures.read_figures", "bench.report.compare"),
    ):
        monkeypatch.setattr(f"gsdistill.{name}", lambda *settings: {})
    with labs.lab(tmp_path, **sources) as folder:
        (folder / "tools").symlink_to(ROOT / "tools")
        yield folder


def test_the_pages_are_where_we_look():
    assert len(PAGES) > 15
    assert {ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "gsdistill" / "README.md"} <= set(PAGES)


def test_the_front_page_is_short():
    assert (ROOT / "README.md").stat().st_size <= 8000


@every_page
def test_every_link_leads_to_what_is_there(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_seen():
    text = "# One\n[a](#one) [b](#two) [c](README.md) [d](MISSING.md) [e](README.md#none) [f](https://x.org/#g)\n"
    text += "[![h](none.png)](../outside.md) `[code](none)`\n```\n[block](none)\n# Two\n```\n"
    wrong = ["#two", "MISSING.md", "README.md#none", "none.png", "../outside.md"]
    assert broken(ROOT / "x.md", text) == wrong


def test_headings_have_githubs_anchors():
    text = "# A prior of one's own\n## `view`, or [a link](b.md#c)\n## C_d (e)\n## Again\n## Again\n"
    assert slugs(text) == {"a-prior-of-ones-own", "view-or-a-link", "c_d-e", "again", "again-1"}


@every_page
def test_every_file_of_ours_that_is_named_is_there(page):
    named = {name for name in PATH.findall(page.read_text(encoding="utf-8")) if not BLANK.search(name)}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@every_page
def test_every_name_of_ours_is_there(page):
    for name in set(DOTTED.findall(page.read_text(encoding="utf-8"))) - NO_MODULE:
        pkgutil.resolve_name(name)


@every_page
def test_every_command_is_understood(page, unperformed, capsys):
    for words in commands(page.read_text(encoding="utf-8")):
        if len(words) == 1:
            assert words[0] in {*names(PACKAGE), "COMMAND"}
        elif not BLANK.search(" ".join(words[2:])):
            assert execute(words) == 0, f"gsdistill {' '.join(words)}: {capsys.readouterr().err}"


def test_every_config_is_understood(unperformed, capsys):
    blocks = [block for page in PAGES for block in FENCE.findall(page.read_text(encoding="utf-8"))]
    for text in (text for kind, text in blocks if kind == "yaml"):
        Path("block.yaml").write_text(text)
        words = ["generate", "--prompt", "a red torus", "--config", "block.yaml"]
        assert execute(words) == 0, f"{text}: {capsys.readouterr().err}"


def test_a_command_that_is_not_understood_is_seen(unperformed, capsys):
    text = "`gsdistill list nothing`\n```bash\na && .venv/bin/gsdistill generate --prompt cube --metod sds  # b\n```\n"
    found = commands(text)
    assert found == [["generate", "--prompt", "cube", "--metod", "sds"], ["list", "nothing"]]
    assert [execute(words) for words in found] == [2, 2]


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__ and cited["license"] == "Apache-2.0" and cited["cff-version"] == "1.2.0"
