"""The script for a bare GPU machine, with a Python in its place that only writes down what it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "gpu_check.sh"
SMALL = ["install", "tests", "bench", "renderer", "peers"]
PARTS = [*SMALL, "bench_compiled", "peers_compiled"]

# It copies itself where a virtual environment is asked for, fails where FAIL is among its arguments, and gives the
# inline programs of the script to the real one.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
case "$*" in *"$FAIL"*) exit 7 ;; esac
case "$1 ${2:-}" in
  "-m venv") mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  "-m pytest") for word in "$@"; do case $word in --junitxml=*) cp "$JUNIT" "${word#*=}" ;; esac; done ;;
  "-c "*getpath* | "-c "*get_path*)
    if [ $# -gt 2 ]; then exec "$REAL" "$@"; else mkdir -p "$PLACE" && echo "$PLACE"; fi ;;
  "-c "*"import torch, gsdistill"*) echo there ;;
  "-c "*) exec "$REAL" "$@" ;;
esac
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the script; returns what it answered and the calls of its Python."""
    fake = tmp_path / "python"
    fake.write_text(PYTHON)
    fake.chmod(0o755)
    junit = tmp_path / "junit.xml"

    def run(*arguments: str, fail: str = "nothing of this", ran: int = 5, **more: str):
        junit.write_text(f'<testsuites><testsuite tests="9" skipped="{9 - ran}"/></testsuites>')
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        environment = {
            **os.environ, "PYTHON": str(fake), "REAL": sys.executable, "CALLS": str(calls),
            "FAIL": fail, "JUNIT": str(junit), "PLACE": str(tmp_path / "site"), **more,
        }  # fmt: skip
        command = ["bash", str(SCRIPT), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done, calls.read_text().splitlines() if calls.exists() else []

    monkeypatch.delenv("GPU_CHECK_SMALL", raising=False)
    return run


def statuses(folder: Path) -> dict[str, int]:
    parts = json.loads((folder / "summary.json").read_text())["parts"]
    return {name: part["status"] for name, part in parts.items()}


def test_goes_through_all_parts(check, tmp_path):
    done, calls = check(str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path / "out") == dict.fromkeys(PARTS, 0)
    asked = "\n".join(calls)
    assert "-m pytest -q -p no:cacheprovider" in asked and asked.count(" -m gpu\n") == 1
    assert "-m gsdistill bench --random-weights sd21-base --views 4 --resolution 512 --init.count 100000" in asked
    assert "tools/bench_renderer.py --backends cuda" in asked and "tools/bench_peer_loop.py --prior sd21-base" in asked
    assert "pip install" not in asked
    assert "5 tests ran, 4 were skipped" in done.stdout


def test_takes_packages_from_the_folder_alone(check, tmp_path):
    wheels = tmp_path / "some wheels"
    wheels.mkdir()
    done, calls = check(str(tmp_path / "out"), str(wheels))
    assert done.returncode == 0, done.stdout + done.stderr
    (install,) = [call for call in calls if "pip install" in call]
    assert f"--no-index --find-links {wheels} -r" in install


def test_takes_the_whole_folder_where_a_dependency_is_missing(check, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("a-1-py3-none-any.whl", "b-1-py3-none-any.whl"):
        (wheels / name).touch()
    done, calls = check(str(tmp_path / "out"), str(wheels), fail="--find-links")
    assert done.returncode == 0, done.stdout + done.stderr
    (_, install) = [call for call in calls if "pip install" in call]
    assert install.endswith(f"--no-index --no-deps {wheels}/a-1-py3-none-any.whl {wheels}/b-1-py3-none-any.whl")


@pytest.mark.parametrize(
    ("part", "mark"),
    [
        ("tests", "-m pytest"),
        ("bench", "/bench.json"),
        ("renderer", "bench_renderer"),
        ("peers", "/peers.json"),
        ("bench_compiled", "--model.compile"),
        ("peers_compiled", "peers_compiled.json"),
    ],
)
def test_goes_on_when_a_part_fails_and_names_it(check, tmp_path, part, mark):
    done, _ = check(str(tmp_path / "out"), fail=mark)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"failed: {part}"
    found = statuses(tmp_path / "out")
    assert [*found] == PARTS and [name for name, status in found.items() if status] == [part]


def test_tests_that_were_all_skipped_are_a_failure(check, tmp_path):
    done, _ = check(str(tmp_path / "out"), ran=0)
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "failed: tests"


def test_the_small_form_asks_for_no_gpu(check, tmp_path):
    done, calls = check(str(tmp_path / "out"), GPU_CHECK_SMALL="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["small"] is True
    asked = "\n".join(calls)
    assert [*statuses(tmp_path / "out")] == SMALL
    assert "-m gpu" not in asked and "compile" not in asked and "cuda " not in asked and "sd21-base" not in asked


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"]])
def test_says_how_it_is_called(check, arguments):
    done, calls = check(*arguments)
    assert done.returncode == 2 and "OUTDIR [WHEELDIR]" in done.stderr and not calls


def test_a_folder_of_wheels_that_is_not_there_stops_it(check, tmp_path):
    done, calls = check(str(tmp_path / "out"), str(tmp_path / "none"))
    assert done.returncode == 2 and not calls
