"""The script for a GPU machine: the order of its parts, what is kept, and that no part asks for what is not there."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import tooling

from gsdistill.cli.commands.bench import Bench
from gsdistill.cli.commands.generate import Generate
from gsdistill.cli.run_flags import read_run_flags
from gsdistill.learning.trainer import TrainerSettings
from gsdistill.prior.random_weights import architecture
from gsdistill.run.config import resolve
from gsdistill.settings.config import merge

pytest.importorskip("tomllib", reason="gpu_check.sh wants Python 3.11")

SCRIPT = tooling.TOOLS / "gpu_check.sh"
parts = tooling.tool("gpu/parts")  # which the next one imports
tool = tooling.tool("gpu/check")

INSTALL = """mkdir -p "$WORK/venv/bin"
echo '{"device": "H200", "torch": "2.11", "driver": "580", "capability": "9.0"}' >"$PART/figures.json"
"""
NOTE = 'echo {} >>"$WORK/../calls"\n'
JUNIT = '<testsuites><testsuite tests="9" skipped="{}" failures="{}" errors="0"/></testsuites>'


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Puts parts of these lines into the place of the real ones, runs them, and returns status and calls."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*argv: str, limit: int = 20, install: str = INSTALL, small: str | None = None, **lines: str):
        table = [
            tool.Part(name, 10, limit, "this", NOTE.format(name) + line, small, ("value", "ran", "nothing.here"))
            for name, line in {"install": install, **lines}.items()
        ]
        monkeypatch.setattr(tool, "PARTS", tuple(table))
        calls = tmp_path / "out" / "calls"
        calls.unlink(missing_ok=True)
        status = tool.main([str(tmp_path / "out"), *argv])
        return status, calls.read_text().split() if calls.exists() else []

    return run


def summary(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def statuses(tmp_path: Path) -> dict[str, int]:
    return {name: part["status"] for name, part in summary(tmp_path)["parts"].items()}


def alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return not re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except FileNotFoundError:
        return False


def test_all_parts_in_order_and_the_summary_of_each(check, tmp_path):
    status, calls = check(a="""echo '{"value": 2.00004, "more": 1}' >"$PART/figures.json" """, b="true")
    assert status == 0 and calls == ["install", "a", "b"]
    found = summary(tmp_path)
    assert (found["device"], found["torch"], found["driver"], found["small"]) == ("H200", "2.11", "580", False)
    assert found["parts"]["a"]["figures"] == {"value": 2.0} and found["left"] == []
    assert found["parts"]["a"]["seconds"] >= 0


def test_the_archive_is_whole_after_every_part(check, tmp_path):
    """Each part looks for what the one before it has left."""
    look = 'tar tzf "$WORK/../results.tar.gz" >"$PART/seen"\ngrep -q parts/{}/result.json "$PART/seen"\n'
    status, _ = check(a=look.format("install") + "! grep -q parts/a/ $PART/seen", b=look.format("a"))
    assert status == 0
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
        names = archive.getnames()
        assert json.load(archive.extractfile("summary.json")) == summary(tmp_path)
    assert {"summary.json", "parts/b/log.txt", "parts/b/result.json", "parts/b/seen"} <= {*names}
    assert not any("work" in name or name.endswith(".part") for name in names)


def test_the_two_files_that_come_back_lie_in_another_folder_too(check, tmp_path):
    (tmp_path / "back").mkdir()
    check("--copy", str(tmp_path / "back"), a="true")
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"summary.json", "results.tar.gz"}
    for path in (tmp_path / "back").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_what_has_come_out_is_not_run_again_unless_it_is_named(check):
    lines = {"a": "true", "b": "true"}
    check(**lines)
    assert check(**lines) == (0, [])
    assert check("b", **lines) == (0, ["b"])


@pytest.mark.parametrize("argv", [[], ["b", "a"]])
def test_a_part_that_fails_stops_no_other_and_is_named(argv, check, tmp_path, capsys):
    status, calls = check(*argv, a="exit 3", b="true")
    assert status == 1 and calls == ["install", "a", "b"]
    assert capsys.readouterr().out.splitlines()[-1] == "failed: a"
    assert statuses(tmp_path) == {"install": 0, "a": 3, "b": 0} and summary(tmp_path)["left"] == ["a"]


def test_a_command_that_fails_in_the_middle_of_a_part_ends_it(check, tmp_path):
    check(a="false | cat\ntrue", b='echo "$nothing"\ntrue')
    assert all(status for name, status in statuses(tmp_path).items() if name != "install")


def test_what_failed_is_run_again_after_what_has_not_run(check):
    check("a", a="exit 3", b="true")
    assert check(a="true", b="true") == (0, ["b", "a"])


def test_nothing_runs_without_an_environment(check, capsys):
    status, calls = check(install="exit 4", a="true")
    assert status == 1 and calls == ["install"]
    assert "left, 10 s: a" in capsys.readouterr().out


def test_an_environment_comes_before_a_part_that_is_named(check, tmp_path):
    assert check("b", a="true", b="true")[1] == ["install", "b"]
    (tmp_path / "out/work/venv/bin").rmdir()
    (tmp_path / "out/work/venv").rmdir()  # a fresh machine, to which the results were brought
    assert check("b", a="true", b="true")[1] == ["install", "b"]


def test_a_part_is_ended_at_its_limit_with_all_that_it_has_started(check, tmp_path):
    wait = 'sleep 60 &\necho $! >"$PART/child"\nsleep 60'
    status, calls = check(limit=1, a=wait, b="true")
    assert status == 1 and calls[-1] == "b" and statuses(tmp_path) == {"install": 0, "a": 124, "b": 0}
    folder = tmp_path / "out/parts/a"
    assert not alive(int((folder / "child").read_text()))
    assert (folder / "log.txt").read_text().endswith("ended after 1 seconds, its limit\n")


def test_an_interrupted_part_leaves_no_process_and_is_run_again(check, tmp_path, monkeypatch):
    pids, popen = [], subprocess.Popen

    class Interrupted(popen):
        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None and "exit 9" in self.args[-1]:
                pids.append(self.pid)
                raise KeyboardInterrupt
            return super().wait(timeout)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            check(a="true", b="sleep 60\nexit 9", c="true")
    assert pids and not alive(*pids) and statuses(tmp_path) == {"install": 0, "a": 0}
    assert check(a="true", b="true", c="true") == (0, ["b", "c"])


def test_stops_before_the_budget_is_exceeded_and_goes_on(check, tmp_path, monkeypatch, capsys):
    def seconds() -> float:
        """Each part takes the ten that it should."""
        calls = tmp_path / "out" / "calls"
        return 10.0 * len(calls.read_text().split()) if calls.exists() else 0.0

    monkeypatch.setattr(tool, "time", SimpleNamespace(monotonic=seconds))
    lines = dict.fromkeys("abc", "true")
    assert check("--budget", "25", **lines) == (0, ["install", "a"])
    out = capsys.readouterr().out.splitlines()
    assert "left, 20 s: b c" in out and "go on by the same command" in out
    assert summary(tmp_path)["left"] == ["b", "c"]
    assert check("--budget", "5", **lines) == (0, ["b"])  # the first one always


@pytest.mark.parametrize(("skipped", "failed", "status", "counts"), [(9, 0, 5, 0), (4, 0, 0, 5), (4, 1, 1, 5)])
def test_tests_that_were_all_skipped_are_a_failure(skipped, failed, status, counts, check, tmp_path):
    write = f"echo '{JUNIT.format(skipped, failed)}' >\"$PART/tests.xml\"\nexit {int(failed > 0)}"
    check(a=write)
    assert statuses(tmp_path)["a"] == status
    assert summary(tmp_path)["parts"]["a"]["figures"] == {"ran": counts}


def test_what_is_built_is_built_once_and_for_this_gpu(check, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    check(a='printenv TORCH_CUDA_ARCH_LIST TORCH_EXTENSIONS_DIR XDG_CACHE_HOME HF_HUB_OFFLINE >"$PART/seen"')
    work = tmp_path / "out/work"
    assert (tmp_path / "out/parts/a/seen").read_text().split() == ["9.0", f"{work}/extensions", f"{work}/cache", "1"]


def test_the_small_form_takes_its_own_lines_and_a_folder_of_its_own(check, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    line = INSTALL + NOTE.format("small-$OMP_NUM_THREADS")
    assert check("--small", small=line, a="exit 3") == (0, ["small-1", "small-1"])
    assert summary(tmp_path)["small"] is True
    with pytest.raises(SystemExit, match="2"):
        check(a="true")
    assert "holds a check in its small form" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "OUTDIR is missing"),
        (["out", "bensh"], "no part 'bensh'. Did you mean 'bench'? Parts: install, resume"),
        (["out", "compiled", "--small"], "'compiled' has no small form"),
        (["out", "--wheels", "nowhere"], "nowhere is no folder"),
        (["out", "--copy", "nowhere"], "nowhere is no folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        tool.main(argv)
    assert said in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_lists_every_part(capsys):
    assert tool.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [part.name for part in parts.PARTS]


@pytest.mark.parametrize(
    ("able", "chosen"), [("python3.12 python3", "python3"), ("python3.12", "python3.12"), ("", "python3")]
)
def test_prefers_a_python_that_has_torch(able, chosen, tmp_path):
    for name in ("python3", "python3.12"):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\ncase "$1" in -c) exit {int(name not in able.split())} ;; esac\necho "{name} $*"\n')
        fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    for given, expected in ({}, chosen), ({"PYTHON": sys.executable}, None):
        command = ["bash", str(SCRIPT), "--list"]
        done = subprocess.run(command, env={**environment, **given}, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"{expected} {tooling.TOOLS}/gpu/check.py --list" if expected else "install ")


# The real parts.


def commands(line: str) -> list[list[str]]:
    """The words of each command of a part."""
    return [shlex.split(text) for text in re.split(r"\n|\|\||&&", line)]


FORMS = [(part, form) for part in parts.PARTS for form in ("line", "small") if getattr(part, form)]
DEVICES = {"line": "cuda", "small": "cpu"}


def test_a_call_of_the_whole_budget_ends_before_it_is_cut():
    short = [part for part in parts.PARTS if part.name != "objects"]  # a training, which takes what there is
    assert [part for part in short if not 20 <= part.seconds <= part.limit <= 200] == []
    assert tool.BUDGET + max(part.limit - part.seconds for part in parts.PARTS) < 600
    first = parts.PARTS[: [part.name for part in parts.PARTS].index("sdxl") + 1]
    assert sum(part.seconds for part in first) <= tool.BUDGET


@pytest.mark.slow
@pytest.mark.parametrize(("part", "form"), FORMS, ids=lambda value: getattr(value, "name", value))
def test_a_part_asks_only_for_what_there_is(part, form):
    line, device = getattr(part, form), DEVICES[form]
    assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0
    for words in commands(line):
        if "--device" in words:
            place = words.index("--device") + 1
            assert words[place] == device
            words[place] = "cpu"  # no other one is here
        match words:
            case ["python", "-m", "gsdistill", "generate", *flags]:
                _, base, given = read_run_flags(Generate, flags)
            case (
                ["python", "-m", "gsdistill", "bench", *flags]
                | ["python", "-c", _, "bench", *flags]
                | ["python", "tools/bench/profile_steps.py", _, *flags]
            ):
                chosen = flags[flags.index("--random-weights") + 1 :][:1] if "--random-weights" in flags else []
                over = {"prior": architecture(chosen[0])} if chosen else {}
                _, base, given = read_run_flags(Bench, flags, {"prompt": "a red torus"}, over)
            case ["python", "-m", "pytest", *flags]:
                assert all((tooling.TOOLS.parent / word).is_file() for word in flags if word.startswith("tests/"))
                continue
            case ["python", "-m", "gsdistill", "prior", "pack", _, _]:
                continue
            case [_, program, *flags] if program.startswith("tools/"):
                text = (tooling.TOOLS.parent / program).read_text()
                text += inspect.getsource(TrainerSettings) if "TrainerSettings" in text else ""
                assert all(flag in text or flag[2:] in text for flag in flags if flag.startswith("--"))
                continue
            case _:
                assert not words or words[0] in ("test", "cp", "rm", "tar", "-"), (
                    f"{words} is of no kind that is known here"
                )
                continue
        assert base["device"] == "cpu"
        resolve(merge(base, given))
