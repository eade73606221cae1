"""gsdistill without what Windows lacks, simulated in processes of their own (see windows.py); it was not run there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gsdistill.core.device import peak_memory
from gsdistill.disk.paths import file_of
from gsdistill.run import changes
from gsdistill.run.watch import SIGNALS
from gsdistill.settings.registry import is_own, label_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the simulation reads Linux's /proc")
TESTS = Path(__file__).parent
OTHERS = ("torch", "numba", "psutil")
SETTINGS = {"prompt": "a red torus", "prior": "shapes", "iterations": 4, "views": 1, "resolution": 32}
SETTINGS |= {"finish": "none", "checkpoint_every": 0}


def there(folder: Path, program: str, *words: str, others: tuple[str, ...] = ()) -> str:
    """What a program prints that runs to its end as if under Windows; ``others``: libraries that come first."""
    file = folder / "program.py"
    head = f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom windows import become\nbecome(*{others})\n"
    file.write_text(head + program, encoding="utf-8")
    command = [sys.executable, str(file), *words]
    letters = {**os.environ, "PYTHONIOENCODING": "cp1252"}  # of a pipe under Windows
    done = subprocess.run(command, cwd=folder, env=letters, capture_output=True, text=True, encoding="cp1252")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_simulation_lacks_and_refuses_what_windows_does(tmp_path):
    program = """
import mmap, msvcrt, os, signal

def refused(work, *words):
    try:
        work(*words)
    except OSError as error:
        return error.errno
    return 0

for name in ("fcntl", "resource", "pwd", "termios"):
    try:
        __import__(name)
    except ImportError:
        print(name)
print([name for name in ("fork", "getuid", "O_NONBLOCK", "sched_getaffinity") if hasattr(os, name)])
print(hasattr(signal, "SIGHUP"), refused(os.open, ".", os.O_RDONLY))
open("a", "wb").write(b"text")
file = open("a", "rb")
print(refused(os.unlink, "a"), refused(os.replace, "a", "b"), refused(os.fsync, file.fileno()))
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
file.close()
open("b", "wb").close()
print(refused(os.replace, "b", "a"))
mapped.close()
print(refused(os.replace, "b", "a"))
one, other = os.open("a", os.O_RDWR), os.open("a", os.O_RDWR)
print(refused(msvcrt.locking, one, 2, 1), refused(msvcrt.locking, other, 2, 1))
"""
    lost = ["fcntl", "resource", "pwd", "termios", "[]", "False 13", "13 13 9", "13", "0", "0 13"]
    assert there(tmp_path, program).splitlines() == lost


def test_every_module_can_be_imported(tmp_path):
    program = """
import importlib, pkgutil, gsdistill
for module in pkgutil.walk_packages(gsdistill.__path__, "gsdistill."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""
    assert len(there(tmp_path, program, others=OTHERS).split()) > 200


STOPPED = """
import json, signal, sys
from rich.console import Console
from gsdistill.core.errors import Stopped
from gsdistill.generate import run
from gsdistill.run.config import resolve
from gsdistill.training.listener import Listener

class Stop(Listener):
    def on_step(self, step, run):
        if step.number == 2:
            signal.raise_signal(signal.SIGTERM)

settings = json.loads(sys.argv[1])
try:
    run(resolve(settings), Console(quiet=True), listeners=[Stop()])
except Stopped as error:
    print(signal.Signals(error.number).name)
print(run(resolve(settings | {"resume": True}), Console(quiet=True)))
"""


WHOLE = """
import json, sys
from rich.console import Console
from gsdistill.generate import run
from gsdistill.run.config import resolve
run(resolve(json.loads(sys.argv[1])), Console(quiet=True), extras=False)
"""


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_end(tmp_path):
    settings = {**SETTINGS, "output": str(tmp_path / "run")}
    assert there(tmp_path, STOPPED, json.dumps(settings), others=OTHERS).split() == ["SIGTERM", str(tmp_path / "run")]
    plain = [sys.executable, "-c", WHOLE, json.dumps({**SETTINGS, "output": str(tmp_path / "whole")})]
    subprocess.run(plain, cwd=tmp_path, check=True, capture_output=True)  # a process of its own, as the other one was
    ends = [(tmp_path / name / "gaussians.ply").read_bytes() for name in ("run", "whole")]
    assert ends[0] == ends[1]
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"turntable.mp4", "report.html", "evaluation.json"} < left and not left & {"checkpoints", ".lock"}
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["peak_memory_mb"] is None


COMMANDS = """
export chair.ply chair.sog
export chair.ply chair.spz
export chair.ply chair.obj --mesh
edit chair.ply smaller.ply --remove-floaters
edit smaller.ply smaller.ply --scale 0.5 --overwrite
render chair.ply --frames 2 --size 32 --output pictures
evaluate chair.ply --truth chair.ply
sweep --methods sds csd --prompts 'a red torus' --seeds 0 --iterations 2 --output sweep
report sweep/runs/a-red-torus/sds-seed0-2steps
gallery sweep
bench --method sds --steps 2 --warmup 1 --json bench.json
play2d --demo trap --output trap
generate --prompt 'a red torus' --prior shapes --method ./mine.py:Mine --resolution 32 --dry-run
doctor
list all
"""


@pytest.mark.slow
def test_every_command_does_its_work(tmp_path):
    program = """
import shlex
from gsdistill.cli.main import execute

for line in sys.argv[1].strip().splitlines():
    code = execute(shlex.split(line))
    print("code", code, line)
"""
    (tmp_path / "chair.ply").write_bytes((TESTS / "data" / "chair.ply").read_bytes())
    head = "from dataclasses import dataclass\nfrom gsdistill.distillation.sds import SDS\n\n"
    mine = f"{head}\n@dataclass(frozen=True)\nclass Mine(SDS):\n    pass\n"
    (tmp_path / "mine.py").write_text(mine, encoding="utf-8")
    told = there(tmp_path, program, COMMANDS, others=(*OTHERS, "transformers")).splitlines()
    codes = [line.split(maxsplit=2)[1:] for line in told if line.startswith("code ")]
    assert codes == [["0", line] for line in COMMANDS.strip().splitlines()]
    assert [path for path in tmp_path.rglob("*") if set('<>:"\\|?*') & set(path.name)] == []


def test_a_lock_is_of_one_process_and_leaves_no_file(tmp_path):
    program = """
import subprocess, sys
from pathlib import Path
from gsdistill.disk.lock import Claim

with Claim(Path("a.lock")) as claim:
    print(len(sys.argv), claim.take(), claim.take())
    if len(sys.argv) == 1:
        subprocess.run([sys.executable, __file__, "child"])
    sys.stdout.flush()
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"])
    print(Path("a.lock").exists())
"""
    found = there(tmp_path, program)
    assert sorted(found.splitlines()) == ["1 True True", "2 False False", "2 True True", "False"]


def test_files_are_read_byte_for_byte_and_folders_refused(tmp_path):
    program = r"""
from gsdistill.core.errors import BadFile
from gsdistill.disk.read import open_file
from gsdistill.disk.write import temporary_folder, write_bytes

write_bytes("a", b"1\r\n2\x1a3")
with open_file("a") as file:
    print(file.read())
try:
    open_file(".")
except BadFile as error:
    print(error)
print(temporary_folder())
"""
    expected = [r"b'1\r\n2\x1a3'", ".: cannot be read: Permission denied", "None"]
    assert there(tmp_path, program).splitlines() == expected


@pytest.mark.parametrize("file", [r"C:\work\mine.py", r"mine.py", r"..\my work\mine.py", r"\\host\share\mine.py"])
def test_a_class_in_a_file_is_named_behind_any_path(file):
    name = f"{file}:Mine"
    assert (file_of(name), label_of(name), is_own(name)) == (file, "Mine", True)
    assert file_of(file) == file and is_own(file)


@pytest.mark.parametrize("folder", [r"C:\models\sd15", r"\\host\share\sd15", "sd15"])
def test_the_drive_of_a_folder_is_no_module(folder):
    assert file_of(folder) == folder and not is_own(folder)


def test_the_command_that_goes_on_is_quoted_for_its_shell(monkeypatch):
    monkeypatch.setattr(changes.os, "sep", "\\")
    told = [changes.command(folder) for folder in (r"C:\runs\a", r"C:\my runs\a")]
    quoted = [r"C:\runs\a", r'"C:\my runs\a"']
    assert told == [f"gsdistill generate --config {folder} --resume" for folder in quoted]


def test_here_nothing_of_it_is_lost():
    assert SIGNALS == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    assert peak_memory(torch.device("cpu")) > 1 << 20
