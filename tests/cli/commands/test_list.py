"""``gsdistill list``: one name of a kind, and how to cite methods."""

import re
from pathlib import Path

import pytest
import yaml

from gsdistill import distillation
from gsdistill.cli.commands.list import bibtex
from gsdistill.cli.main import execute
from gsdistill.settings.registry import names

ROOT = Path(__file__).parents[3]
METHODS = names("gsdistill.distillation")
ARXIV = re.compile(r"\d{4}\.\d{5}")
NEEDED = {"inproceedings": {"booktitle", "year", "eprint", "archiveprefix"}, "misc": set()}


def answer(capsys, *words: str) -> str:
    assert execute(["list", *words]) == 0
    return capsys.readouterr().out


def refusal(capsys, *words: str) -> str:
    assert execute(["list", *words]) == 2
    return capsys.readouterr().err.removeprefix("error: ").strip()


def read(text: str) -> dict[str, dict[str, str]]:
    """The entries of a BibTeX file by key, after a narrow grammar: a field a line, values in braces that balance."""
    found: dict[str, dict[str, str]] = {}
    for block in text.strip().split("\n\n"):
        head, *lines = [line for line in block.split("\n") if not line.startswith("% ")]
        kind, key = re.fullmatch(r"@(inproceedings|misc)\{([a-z]+(?:\d{4}[a-z0-9]+)?),", head).groups()
        assert key not in found and lines.pop() == "}" and block.isascii()
        fields = dict(re.fullmatch(r"  ([a-z]+) = \{(.+)\},", line).groups() for line in lines)
        assert len(fields) == len(lines) and {"author", "title", *NEEDED[kind]} <= set(fields), key
        for value in fields.values():
            depths = [value[:end].count("{") - value[:end].count("}") for end in range(len(value) + 1)]
            assert min(depths) == depths[-1] == 0, value
        found[key] = fields
    return found


BIB = (Path(distillation.__file__).parent / "references.bib").read_text(encoding="utf-8")
ENTRIES = read(BIB)
PAPERS = {entry["eprint"]: key for key, entry in ENTRIES.items() if "eprint" in entry}


def papers_of(method: str) -> list[str]:
    """The arXiv numbers of a method's docstring, its own paper first."""
    source = (Path(distillation.__file__).parent / f"{method.replace('-', '_')}.py").read_text(encoding="utf-8")
    return ARXIV.findall(source.split('"""')[1])


@pytest.mark.parametrize("method", METHODS)
def test_every_paper_of_a_methods_docstring_is_cited(method, capsys):
    papers = papers_of(method)
    assert papers
    entries = read(answer(capsys, "methods", method, "--bibtex"))
    assert list(entries) == ["gsdistill", *(PAPERS[paper] for paper in papers)]


@pytest.mark.parametrize("page", ["README.md", "gsdistill/distillation/README.md"])
def test_the_pages_name_the_paper_that_is_cited_first(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if re.match(r"\| `[\w-]+`", line) and ARXIV.search(line)]
    for method in METHODS:
        (row,) = [row for row in rows if f"`{method}`" in row.split("|")[1]]
        named = re.findall(r"`([\w-]+)`", row.split("|")[1])
        assert {papers_of(name)[0] for name in named} <= set(ARXIV.findall(row))
        if page != "README.md":
            assert set(ARXIV.findall(row)) == {papers_of(method)[0]}


def test_all_methods_are_cited_once_under_their_names(capsys):
    text = answer(capsys, "methods", "--bibtex")
    assert read(text) == ENTRIES
    assert "\n\n% sds, ssd\n@misc{tang2023stable,\n" in text


def test_entries_are_of_people_and_of_the_years_of_their_papers():
    for key, entry in ((key, entry) for key, entry in ENTRIES.items() if key != "gsdistill"):
        people = entry["author"].split(" and ")
        assert len(people) > 2 and all(re.fullmatch(r"\S.*, \S.*", person) for person in people), people
        assert len(set(people)) == len(people) and "others" not in people
        assert entry["archiveprefix"] == "arXiv"
        assert int(entry["year"]) - 2000 - int(entry["eprint"][:2]) in (0, 1)
        assert key.startswith(people[0].partition(",")[0].lower() + entry["year"])


def test_gsdistill_is_cited_as_its_citation_file_says(capsys):
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    ours = read(answer(capsys, "methods", "sds", "--bibtex"))["gsdistill"]
    plain = {field: value.replace("{", "").replace("}", "") for field, value in ours.items()}
    assert plain == {
        "author": cited["authors"][0]["name"],
        "title": cited["title"],
        "note": f"Version {cited['version']}",
    }


def test_a_method_from_outside_has_no_entry_here():
    assert list(read(bibtex(["theirs"]))) == ["gsdistill"]


def test_one_name_of_a_kind_or_of_all(capsys):
    assert [line.split()[0] for line in answer(capsys, "inits", "sphere").splitlines()] == ["sphere"]
    words = [line.split()[0] for line in answer(capsys, "all", "sds").splitlines()]
    assert words == ["methods", "sds", "finishes", "sds"]


def test_of_the_vocabulary_one_world_or_one_kind_of_words(capsys):
    shapes = answer(capsys, "vocabulary", "shapes").splitlines()
    assert {line.split()[0] for line in shapes} == {"shapes:"} and "torus" in "".join(shapes)
    (food,) = answer(capsys, "vocabulary", "food").splitlines()
    assert food.startswith("  objects: food") and "burger" in food
    assert refusal(capsys, "vocabulary", "fod").startswith("unknown name 'fod'. Did you mean 'food'?")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("methods sdss", "unknown name 'sdss'. Did you mean 'sds'? See gsdistill list methods"),
        ("inits --bibtex", "only methods have references: gsdistill list methods --bibtex"),
        ("--bibtex", "only methods have references: gsdistill list methods --bibtex"),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused(capsys, words, message):
    assert refusal(capsys, *words.split()) == message
