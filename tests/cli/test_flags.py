"""From words to plain values, and the page of help: every flag, its default and its limits, at any width."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from gsdistill.cli.flags import behind, parse_flags, peek, settings_of
from gsdistill.cli.main import PACKAGE, execute
from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.distillation.sds import SDS
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import load, names


@dataclass(frozen=True)
class Inner:
    """What is inside."""

    rate: Ramp = bounded(Ramp(1, 2), low=0)  # of change
    kind: Literal["one", "two", 3] = "one"  # of it


@dataclass(frozen=True)
class Outer:
    """Do a thing.

    It takes 100 % of the time.
    """

    COMMON: ClassVar[tuple[str, ...]] = ("title", "quick")

    source: Path = field(metadata={"positional": True})  # what is read
    more: tuple[Path, ...] = field(default=(), metadata={"positional": True})  # what else is
    title: str | None = None  # The name of it.
    quick: bool = False  # Make haste.
    safe: bool = True  # whether it is
    range: tuple[float, float] = bounded((0.0, 1.0), low=-90, high=90)  # from and to
    pair: tuple[Path, Path] | None = None  # of files
    seeds: tuple[int, ...] = (0,)  # of each
    inner: Inner = field(default_factory=Inner)


def given(*words):
    return parse_flags([(Outer, {})], words, "do", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--title x", {"title": "x"}),
        ("--title=x", {"title": "x"}),
        ("--title=", {"title": ""}),
        ("--title none", {"title": None}),
        ("--title -x", {"title": "-x"}),
        ("--title=--x", {"title": "--x"}),
        ("--quick", {"quick": True}),
        ("--quick --no-quick", {"quick": False}),
        ("--no-safe", {"safe": False}),
        ("--safe", {"safe": True}),
        ("--range -10 -1e-3", {"range": [-10, -1e-3]}),
        ("--range -.5 +5", {"range": [-0.5, 5]}),
        ("--pair a b", {"pair": ["a", "b"]}),
        ("--pair none", {"pair": None}),
        ("--pair=none", {"pair": None}),
        ("--range=-10 3", {"range": [-10, 3]}),
        ("--seeds=1 2", {"seeds": [1, 2]}),
        ("--seeds 1 2 3", {"seeds": [1, 2, 3]}),
        ("--seeds", {"seeds": []}),
        ("--inner.rate -1:2:sqrt", {"inner": {"rate": "-1:2:sqrt"}}),
        ("--inner.rate 7 --inner.kind 3", {"inner": {"rate": "7", "kind": 3}}),
    ],
)
def test_words_become_the_plain_values_that_a_config_file_holds(words, found):
    assert given("here", *words.split()) == {"source": "here", **found}


def test_arguments_stand_anywhere_and_the_last_takes_all_that_are_left():
    assert given("a") == {"source": "a"}
    assert given("--quick", "a", "--title", "t", "b", "--safe", "c") == {
        "source": "a", "more": ["b", "c"], "title": "t", "quick": True, "safe": True,
    }  # fmt: skip
    assert given("--quick", "--", "-a", "--title") == {"source": "-a", "more": ["--title"], "quick": True}
    with pytest.raises(ConfigError, match=r"^SOURCE is missing; see do --help$"):
        given("--quick")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a --titel x", "unknown flag '--titel'. Did you mean '--title'? See do --help"),
        ("a --tit x", "unknown flag '--tit'. Did you mean '--title'? See do --help"),
        ("a --inner.rat 3",
         "unknown flag '--inner.rat'. Did you mean '--inner.rate'? Allowed: --inner.rate, --inner.kind"),
        ("a -q", "unknown flag '-q'. See do --help"),
        ("a --title", "the flag '--title' lacks a value; see do --help"),
        ("a --range 3", "the flag '--range' takes 2 values; see do --help"),
        ("a --range 3 --quick", "the flag '--range' takes 2 values; see do --help"),
        ("a --pair", "the flag '--pair' takes 2 values; see do --help"),
        ("a --range none", "the flag '--range' takes 2 values; see do --help"),
        ("a --quick=1", "the flag '--quick' takes no value; see do --help"),
    ],
)  # fmt: skip
def test_a_mistyped_flag_is_one_line(words, message):
    with pytest.raises(ConfigError) as caught:
        given(*words.split())
    assert str(caught.value) == message


@pytest.mark.parametrize("pair", [("--pair", "a", "b"), ("--pair=a", "b"), ("--pair", "none")])
def test_a_tuple_takes_as_many_words_as_it_has_and_leaves_the_arguments(pair):
    assert given(*pair, "x", "y") == {
        "source": "x", "more": ["y"], "pair": ["a", "b"] if pair[-1] == "b" else None,
    }  # fmt: skip


def test_the_flags_of_a_named_setting_follow_its_name():
    @dataclass(frozen=True)
    class Run:
        method: object = field(default_factory=SDS, metadata={"pick": lambda name: SDS, "name": "sds"})

    found = parse_flags([(Run, {})], ["--method", "sds", "--method.t-min", "0.1"], "do", "")
    assert found == {"method": {"name": "sds", "t_min": "0.1"}}


def test_peek_sees_the_last_value_and_behind_all_words_up_to_the_next_flag():
    words = ["--a", "1", "--b=2", "3", "--a=4", "--c"]
    assert [peek(words, flag) for flag in "abcd"] == ["4", "2", None, None]
    assert [behind(words, flag) for flag in "abd"] == [["4"], ["2", "3"], []]
    assert behind(["--a", "red", "torus", "--b"], "a") == ["red", "torus"]


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        settings_of(Outer, words, "do")
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_the_short_help_shows_common_flags_and_the_whole_one_all_by_rooms(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert help_of(capsys, "--help") == (
        "usage: do SOURCE [MORE ...] [FLAGS]\n\nDo a thing.\n\n"
        "  --title TEXT  The name of it.\n  --quick       Make haste.\n\n"
        "It takes 100 % of the time.\n\n`do --help-all` shows all 10 flags.\n"
    )
    assert help_of(capsys, "--help-all") == (
        "usage: do SOURCE [MORE ...] [FLAGS]\n\nDo a thing.\n\n"
        "  SOURCE                what is read (required)\n"
        "  MORE                  what else is\n"
        "  --title TEXT|none     The name of it.\n"
        "  --quick               Make haste.\n"
        "  --safe, --no-safe     whether it is (default: yes)\n"
        "  --range FLOAT FLOAT   from and to (default: 0 1; at least -90 and at most 90)\n"
        "  --pair PATH PATH|none\n"
        "                        of files\n"
        "  --seeds [INT ...]     of each (default: 0)\n\n"
        "inner:\n  What is inside.\n\n"
        "  --inner.rate RAMP     of change (default: 1:2; at least 0)\n"
        "  --inner.kind {one,two,3}\n"
        "                        of it (default: one)\n\n"
        "It takes 100 % of the time.\n"
    )


@pytest.mark.parametrize("columns", [40, 80, 300])
@pytest.mark.parametrize("command", names(PACKAGE))
def test_every_page_of_help_fits_the_terminal(command, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert execute([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    prose = [line for line in lines if "--" not in line and "{" not in line and not line.startswith("usage:")]
    assert max(map(len, prose)) <= min(columns, 100)


def test_a_terminal_without_room_has_help_too(capsys, monkeypatch):
    pages = []
    for columns in ("1", "2", "20"):
        monkeypatch.setenv("COLUMNS", columns)
        pages.append(help_of(capsys, "--help-all"))
    assert pages[0] == pages[1] == pages[2]


@pytest.mark.parametrize("command", [name for name in names(PACKAGE) if hasattr(load(PACKAGE, name), "COMMON")])
def test_the_short_help_has_every_flag_that_is_called_common(command, capsys):
    assert execute([command, "--help"]) == 0
    text = capsys.readouterr().out
    for name in load(PACKAGE, command).COMMON:
        assert f"\n  --{name.replace('_', '-')} " in text


def test_the_help_of_generate_fits_on_a_screen_in_whole_sentences(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert execute(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 45
    flags = text.partition("\n\n  --")[2].partition("\n\n")[0]
    for entry in flags.split("\n  --"):
        words = " ".join(entry.split("  ", 1)[1].split())
        assert words[0].isupper()
        assert words.partition(" (default: ")[0].partition(" (required")[0].endswith(".")
    assert "`gsdistill generate --help-all` shows all " in text
    assert "A RAMP is" in text


@pytest.mark.slow
def test_a_flag_with_two_values_keeps_neither_silently(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert execute(["generate", "--prompt", "a red torus", "--seed", "1", "--prompt", "a blue cube"]) == 2
    assert "the flag '--prompt' is given twice: 'a red torus' and 'a blue cube'" in capsys.readouterr().err
    assert execute(["generate", "--prompt", "a red torus", "--seed", "1", "--seed=1", "--dry-run"]) == 0
