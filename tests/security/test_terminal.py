"""What is printed of files and of words cannot command the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from gsdistill.cli.main import execute
from gsdistill.core.terminal import printable, terminal

ROOT = Path(__file__).parents[2] / "gsdistill"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # the sequences that rich's styles are made of
HOSTILE = (
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b]0;another window\x07",
    "\x1b]52;c;cm0gLXJm\x07",  # writes into the clipboard
    "\x1bP+q544e\x1b\\",
    "\x9b31m",  # of one byte in Latin-1
    "one\rtwo",
    "abc\b\b\bxyz",
    "\u202egnp.exe\u202c",
    "a\u2028b\u2029c",
    "\ud800",
)


def printed(show) -> str:
    """What a console that believes to be a colour terminal writes."""
    console = terminal()
    console.file, console._force_terminal, console._color_system = io.StringIO(), True, None
    show(console)
    return console.file.getvalue()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize(
    "show",
    [
        lambda console, text: console.print(text, markup=False),
        lambda console, text: console.print(Text(text, style="bold red"), soft_wrap=True),
        lambda console, text: console.print(table(text)),
        lambda console, text: console.print("before", Text(text), "after", sep=text),
        lambda console, text: console.log(text),
        lambda console, text: console.rule(text),
    ],
    ids=["words", "text", "table", "parts", "log", "rule"],
)
def test_nothing_but_lines_and_letters_comes_out(show, text):
    out = COLOURS.sub("", printed(lambda console: show(console, text)))
    assert out and all(letter.isprintable() or letter == "\n" for letter in out)


def table(text: str) -> Table:
    made = Table("name", text, title=text)
    made.add_row(text, Text(text, style="green"))
    return made


def test_rich_alone_lets_it_through():
    console = Console(file=io.StringIO())
    console.print(Text(HOSTILE[1]))
    assert "\x1b]0;" in console.file.getvalue()


def test_plain_words_tables_and_bars_look_as_ever():
    def show(console: Console) -> None:
        console.print("über [bold]alles[/bold] 杯 \U0001f408", table("x"), Text("soft " * 80), soft_wrap=True)
        console.print(7, {"a": [1, 2]})

    plain = Console(file=io.StringIO(), force_terminal=True, color_system=None)
    show(plain)
    assert printed(show) == plain.file.getvalue()


def test_a_bar_still_moves():
    def show(console: Console) -> None:
        with Progress(console=console) as progress:
            progress.add_task("going", total=2, completed=1)
            console.print("said \x1b[2J meanwhile")

    out = printed(show)
    assert "50%" in out and "said \\x1b[2J meanwhile" in out
    assert out.startswith("\x1b[?25l"), "a bar hides the cursor"


@given(st.text(st.characters()))
def test_what_is_printable_stays(text):
    shown = printable(text)
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert shown == text or not all(letter.isprintable() or letter == "\n" for letter in text)
    assert printable(shown) == shown


@pytest.mark.parametrize("words", [["doctor", "--prior"], ["evaluate"], ["gallery"], ["view"], ["render"]])
def test_no_command_lets_a_folder_command_the_terminal(words, tmp_path, capfd):
    folder = tmp_path / "\x1b]0;another window\x07\x1b[2J\u202e"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "\\u001b[2JEvil\\u202e"}')
    execute([*words, str(folder)])
    out, err = capfd.readouterr()
    assert "another window" in out + err
    assert all(letter.isprintable() or letter == "\n" for letter in COLOURS.sub("", out + err))


def test_consoles_that_reach_the_terminal_are_made_in_one_place():
    """Others are for nobody to see, or for who asked for a traceback."""
    made = re.compile(r"(?<!\w)(?:Console|_Terminal)\((?!quiet=True|file=StringIO|stderr=True\)\.print_exc)")
    assert [path.name for path in ROOT.rglob("*.py") if made.search(path.read_text(encoding="utf-8"))] == [
        "terminal.py"
    ]
