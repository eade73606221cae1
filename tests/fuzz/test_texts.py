"""Texts, settings and command lines that once were read for ever, filled the memory or ended in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz.common import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile, ConfigError, UserError
from gsdistill.disk.places import slug
from gsdistill.disk.read import brief, parse_json, read_bytes, read_json, read_text
from gsdistill.run.config import RunConfig
from gsdistill.run.prompts import read_prompts
from gsdistill.scene.ply import read_vertices
from gsdistill.settings.config import from_dict, to_dict
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.yaml import LARGEST, dump, load_yaml

# --- what is no file


@pytest.mark.parametrize("read", [read_text, read_json, load_yaml, read_vertices, read_prompts])
def test_a_pipe_a_device_and_a_folder_are_no_files(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is a pipe or a device" in refused(read, tmp_path / "pipe")
    assert "it is a pipe or a device" in refused(read, "/dev/zero")
    assert "it is a folder" in refused(read, tmp_path)
    assert "cannot be read" in refused(read, tmp_path / ("x" * 5000))
    assert "cannot be read" in refused(read, "zero\0in the name")


def test_a_file_is_read_to_a_limit(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    assert "larger than 4 bytes" in refused(lambda p: read_bytes(p, 4), path)


def test_text_has_one_kind_of_line_end_and_no_mark(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path) == "a\nb\nc\n"
    path.write_bytes(b"abc\xff")
    assert "not UTF-8 text: invalid start byte at byte 3" in refused(read_text, path)


def test_a_name_with_a_zero_is_refused_before_it_is_used(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text('prompt: x\noutput: "a\\0b"\n')
    assert "is no name of a file" in refused(lambda p: from_dict(RunConfig, load_yaml(p)), path, ConfigError)
    with pytest.raises(ConfigError, match="is no name of a file"):
        from_dict(RunConfig, {"prompt": "x", "output": "\ud800"})


# --- YAML


def nested(levels: int) -> str:
    """Aliases of aliases, nine of each: 9^levels values."""
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(["a0: &a0 [x, x]", *lines, ""])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (nested(12), "line 2: not valid YAML: aliases are not read"),
        ("a: &a [*a]\n", "aliases are not read"),
        ("<<: {a: 1}\n<<: {a: 2}\n", "given twice"),
        ("a: !!python/object/apply:os.system ['touch never']\n", "is not read"),
        ("[" * 60_000, "nested too deeply"),
        ("{a: " * 10_000, "nested too deeply"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ('a: "\\ud800"\n', "surrogates not allowed"),
        ("a: \0\n", "unacceptable character"),
        ("? [1, 2]\n: 3\n", "unhashable"),
        ("#" * (LARGEST + 1), "larger than 65,536 bytes"),
    ],
)
def test_yaml_that_grows_runs_or_never_ends(text, words, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert words in refused(load_yaml, path)


def calls(read: Callable[[], object]) -> int:
    """How many functions are entered while something is read."""
    entered = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal entered
        entered += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read()
    finally:
        sys.setprofile(before)
    return entered


def test_the_work_of_the_slowest_yaml_grows_as_its_size(tmp_path):
    path, work = tmp_path / "a.yaml", {}
    for values in (1000, 2000, LARGEST // 2 - 8):
        path.write_text("a: [" + "1," * values + "]")
        work[values] = calls(lambda: load_yaml(path)) / values
        assert len(load_yaml(path)["a"]) == values
    assert max(work.values()) < 1.05 * min(work.values())


def test_a_value_that_stands_twice_is_written_twice(tmp_path):
    same = [1.0, 2.0]
    (tmp_path / "a.yaml").write_text(dump({"a": same, "b": same}))
    assert load_yaml(tmp_path / "a.yaml") == {"a": same, "b": same}


# --- JSON


@pytest.mark.parametrize(
    ("text", "words"),
    [("[" * 100_000, "nested too deeply"), ('{"a": "\\udfff"}', "surrogates not allowed"),
     ("9" * 5000, "Exceeds the limit"), ("[1]", "expected a JSON object, found [1]"), ("", "Expecting value"),
     ("{} {}", "Extra data")],
)  # fmt: skip
def test_json_that_is_none(text, words):
    with pytest.raises(BadFile, match=r"^here: ") as caught:
        parse_json(text, "here")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_finite_number_is_none():
    assert parse_json('{"a": NaN, "b": [Infinity, -Infinity, 1e999, 1.5]}', "here") == {
        "a": None,
        "b": [None, None, None, 1.5],
    }


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_a_message_shows_any_value_in_one_short_line(value):
    text = brief([value])
    assert "\n" not in text and len(text) < 250


def test_a_message_shows_a_long_value_cut():
    assert len(brief("x" * 10_000)) == len(brief(10**4000)) == 80
    assert len(brief([[["x" * 99] * 99] * 99])) == 243


# --- settings


@given(st.text() | st.floats() | st.integers())
def test_a_schedule_is_read_or_refused(text):
    try:
        ramp = Ramp.parse(text)
    except UserError as error:
        assert "\n" not in str(error) or "\n" in str(text)
        return
    assert all(np.isfinite(ramp(progress)) for progress in (0.0, 0.3, 1.0)) and Ramp.parse(str(ramp)) == ramp


@settings(deadline=None)
@given(st.text())
def test_any_prompt_is_a_name_of_a_folder(prompt):
    name = slug(prompt)
    assert 0 < len(name) <= 80 and name.isascii() and not {*"/\\.\0"} & {*name}


ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.text(max_size=3), max_size=3)
)


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from([*to_dict(RunConfig("x")), "x"]), ODD | st.dictionaries(st.text(max_size=9), ODD, max_size=3)
    )
)
def test_settings_of_any_types_are_read_or_refused(values):
    try:
        found = from_dict(RunConfig, {"prompt": "x", **values})
    except UserError:
        return
    assert from_dict(RunConfig, to_dict(found)) == found


def test_a_whole_number_fits_into_a_tensor():
    with pytest.raises(ConfigError, match=r"iterations = 10000.* is too large a whole number"):
        from_dict(RunConfig, {"prompt": "x", "iterations": 10**30})


# --- the command line itself


@pytest.mark.parametrize(
    "words",
    [["generate", "--config", "/dev/zero"], ["render", "\udcff.ply"], ["generate", "--prompt", "\udcff"], ["\udcff"],
     ["generate", "--prompt", "x", "--seed", "1e400"], ["generate", "--prompt", "x", "--seed", "0x10"],
     ["generate", "--prompt", "x", "--optim.means", "nan"], ["generate", "--prompt", "x", "--views", "9" * 30],
     ["generate", "--prompt="], ["generate", "--", "--"], ["list", "x" * 100_000], ["", ""]],
)  # fmt: skip
def test_an_odd_command_line_is_one_line_and_code_2(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert execute([*words, *["--dry-run"] * (words[0] == "generate")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1


def test_no_shell_sees_a_traceback(tmp_path):
    """A process of its own, whose bytes are no UTF-8 and whose config is a pipe that nobody writes."""
    os.mkfifo(tmp_path / "pipe.yaml")
    for words in ([b"render", b"\xff.ply"], [b"generate", b"--config", b"pipe.yaml"]):
        done = subprocess.run(
            [sys.executable.encode(), b"-m", b"gsdistill", *words], cwd=tmp_path, capture_output=True, timeout=60,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and done.stderr.startswith(b"error: "), done
