"""All that needs a GPU, in parts that each take 20 to 200 seconds, on a bare machine without network.

    tools/gpu_check.sh OUTDIR [PART...] [--wheels WHEELDIR] [--copy DIR] [--budget SECONDS] [--small]
    tools/gpu_check.sh --list

Without a PART all of them are gone through in the order of ``--list``, which tells their seconds and what to look at
first, until the next one would not be done within the budget (420 seconds); the same command again goes on from there.
A part that has come out is not run again, unless it is named; one that failed is, after those that have not run yet.
All is in OUTDIR: ``parts/NAME`` has a part's log, figures and result, ``work`` the environment, caches and models that
the parts share. After every part come ``summary.json`` and ``results.tar.gz``, with all of ``parts``, each in one
piece; ``--copy`` puts them into another folder too, for a machine from which few files come back:

    tools/gpu_check.sh outputs/gpu --wheels wheels --copy "$OUT"

Each part has a limit of its own, after which it is ended with status 124. The exit status is 1 where any part has
failed. A full form without a GPU fails, in ``install``; ``--small`` goes through on a CPU, in minutes.

What no test on a processor shows, and where it is to be seen first:
- ``install``: that gsplat's own compiled kernels load, without which nothing else runs;
- ``tests``: whether a step waits for the device (test_waiting, under torch's sync debug mode "error"), and whether
  gsplat's kernels, whose compiler contracts a * b - c * d, keep to the tolerances of test_backends;
- ``resume``: phases and peak memory that are the GPU's, and a checkpoint that comes back onto it;
- ``profile``: kernels launched singly, waits in a step, and nchwToNhwc before and after each group norm: layouts;
- ``bench`` beside ``contiguous`` (NCHW in place of channels last), ``untried`` (cuDNN without trials), ``graph`` and
  ``compiled`` (750 launches and diffusers' Python saved): ``gsdistill bench --compare`` shows two of them;
- ``sdxl`` beside ``sdxl_recomputed``: the peak of the autoencoder in float32 at 1024 px, and what a second forward
  costs; ``vsd``: whether its student's update is still a matter of launches;
- ``test_compiled``: CUDA graphs under torch.compile, last, since it waits for a compiler.
Not here: gradients through a float16 encoder of real weights, of which random ones tell nothing (compare two runs, by
--model.precision float16 and bfloat16); and a second GPU: ``gsdistill bench --device cuda:1 --prior shapes``.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path
from typing import Any

from parts import PARTS, Part

ROOT = Path(__file__).parents[2]
BUDGET = 420  # seconds
NONE_RAN = 5  # as pytest's own status where it finds no test
TIMED_OUT = 124  # as timeout's
PLACE = ("device", "devices", "memory_gib", "driver", "cuda", "torch", "gsplat", "gsdistill", "python")


class Check:
    """The folder of a check."""

    def __init__(self, out: Path, small: bool, wheels: Path | None, copy: Path | None) -> None:
        self.out, self.small, self.copy = out, small, copy
        self.work, self.parts = out / "work", out / "parts"
        work = {
            "XDG_CACHE_HOME": "cache", "TORCH_EXTENSIONS_DIR": "extensions", "TORCHINDUCTOR_CACHE_DIR": "inductor",
            "TRITON_CACHE_DIR": "triton",
        }  # fmt: skip
        self.environment = {
            **os.environ, **{name: str(self.work / folder) for name, folder in work.items()}, "HF_HUB_OFFLINE": "1",
            "PATH": f"{self.work / 'venv' / 'bin'}:{os.environ['PATH']}", "BASE": sys.executable,
            "WORK": str(self.work), "WHEELS": str(wheels or ""), "COPY": str((copy or out).resolve()),
        }  # fmt: skip
        if small:  # threads of one program wait for each other where other programs share the cores
            self.environment.setdefault("OMP_NUM_THREADS", "1")

    def result(self, name: str) -> dict[str, Any] | None:
        """What has come of a part; none where it has not run to its end."""
        return _read(self.parts / name / "result.json")

    def failed(self) -> list[str]:
        """The parts that have failed."""
        return [part.name for part in PARTS if (self.result(part.name) or {}).get("status")]

    def ready(self) -> bool:
        """Whether the environment is there, in which all other parts run."""
        return (self.work / "venv").is_dir() and (self.result("install") or {}).get("status") == 0

    def left(self) -> list[Part]:
        """The parts that have not come out, those that failed last, in the form that is asked for."""
        results = {part.name: self.result(part.name) for part in PARTS if self.line(part)}
        todo = [part for part in PARTS if part.name in results and (results[part.name] or {"status": 1})["status"]]
        return sorted(todo, key=lambda part: results[part.name] is not None)

    def line(self, part: Part) -> str | None:
        """What a part runs."""
        return part.small if self.small else part.line

    def run(self, part: Part) -> int:
        """Run a part, and keep what has come of it; its status."""
        folder = self.parts / part.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.work.mkdir(exist_ok=True)
        environment = {**self.environment, "PART": str(folder)}
        if capability := (_read(self.parts / "install" / "figures.json") or {}).get("capability"):
            environment.setdefault("TORCH_CUDA_ARCH_LIST", capability)
        line, began = str(self.line(part)), time.monotonic()
        with (folder / "log.txt").open("w") as log:
            print(line, file=log, flush=True)
            status = _call(["bash", "-euo", "pipefail", "-c", line], part.limit, environment, log)
        if (folder / "tests.xml").is_file():
            counts = _counts(folder / "tests.xml")
            _write(folder / "figures.json", counts)
            status = status or (0 if counts["ran"] else NONE_RAN)
        _write(folder / "result.json", {"status": status, "seconds": round(time.monotonic() - began, 1)})
        return status

    def keep(self) -> None:
        """Write the summary and the archive of all parts anew."""
        place = _read(self.parts / "install" / "figures.json") or {}
        parts = {part.name: self.told(part) for part in PARTS if (self.parts / part.name).is_dir()}
        absent = [part.name for part in PARTS if not self.line(part)]
        _write(
            self.out / "summary.json",
            {
                **{name: place.get(name) for name in PLACE}, "small": self.small, "parts": parts,
                "left": [part.name for part in self.left()], "not_in_this_form": absent,
            },
        )  # fmt: skip
        draft = self.out / "results.tar.gz.part"
        with tarfile.open(draft, "w:gz") as archive:
            for name in ("summary.json", "parts"):
                archive.add(self.out / name, name)
        draft.replace(self.out / "results.tar.gz")
        if self.copy:
            for name in ("summary.json", "results.tar.gz"):
                shutil.copyfile(self.out / name, self.copy / f"{name}.part")
                (self.copy / f"{name}.part").replace(self.copy / name)

    def told(self, part: Part) -> dict[str, Any]:
        """A part in the summary; one without a result was cut short, with the command that ran it."""
        found = _read(self.parts / part.name / "figures.json") or {}
        figures = {path: _pick(found, path) for path in part.figures}
        figures = {path: value for path, value in figures.items() if value is not None}
        return {**(self.result(part.name) or {"status": None, "seconds": None}), "figures": figures}


def _call(command: list[str], limit: float, environment: dict[str, str], log: Any) -> int:
    """Run a command with all that it starts, for ``limit`` seconds at most; nothing of it outlives the call."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        print(f"ended after {limit} seconds, its limit", file=log)
        return TIMED_OUT
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _counts(path: Path) -> dict[str, int]:
    """How many tests ran, were skipped and failed, by pytest's report."""
    suites = list(ElementTree.parse(path).iter("testsuite"))
    tests, skipped, failed, errors = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped", "failures", "errors")
    )
    return {"ran": tests - skipped, "skipped": skipped, "failed": failed + errors}


def _pick(found: Any, path: str) -> Any:
    """The value behind a dotted path, of which a number is the place in a list; none where there is none."""
    for name in path.split("."):
        try:
            found = found[int(name) if isinstance(found, list) else name]
        except (KeyError, IndexError):
            return None
    return round(found, 4) if isinstance(found, float) else found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, value: Any) -> None:
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def options(argv: list[str]) -> argparse.Namespace:
    """The command line; a mistake ends with status 2."""
    parser = argparse.ArgumentParser(
        prog="gpu_check.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUTDIR", type=Path, nargs="?")
    parser.add_argument("parts", metavar="PART", nargs="*")
    parser.add_argument("--wheels", type=Path, metavar="WHEELDIR", help="where packages come from that are not here")
    parser.add_argument("--copy", type=Path, metavar="DIR", help="a folder for summary.json and results.tar.gz, too")
    parser.add_argument("--budget", type=int, help=f"seconds of this call: {BUDGET}, with --small no end")
    parser.add_argument("--small", action="store_true", help="a form for a CPU and little time")
    parser.add_argument("--list", action="store_true", help="name the parts and end")
    found = parser.parse_intermixed_args(argv)
    if found.list:
        return found
    if found.out is None:
        parser.error("OUTDIR is missing, the folder for what is found")
    known = {part.name: part.small if found.small else part.line for part in PARTS}
    for name in found.parts:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            parser.error(f"there is no part '{name}'.{hint} Parts: {', '.join(known)}")
        if known[name] is None:
            parser.error(f"the part '{name}' has no small form: it needs a GPU")
    for folder in filter(None, (found.wheels, found.copy)):
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    before = _read(found.out / "summary.json")
    if before and before["small"] != found.small:
        form = "small" if before["small"] else "full"
        parser.error(f"{found.out} holds a check in its {form} form; take another OUTDIR")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the parts that are asked for, and tell what is left."""
    asked = options(sys.argv[1:] if argv is None else argv)
    if asked.list:
        for part in PARTS:
            small = "" if part.small else " (not with --small)"
            print(f"{part.name:18}{part.seconds:4} s, at most {part.limit:3}: {part.look}{small}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    asked.out.mkdir(parents=True, exist_ok=True)
    check = Check(asked.out.resolve(), asked.small, asked.wheels and asked.wheels.resolve(), asked.copy)
    todo = [part for part in PARTS if part.name in asked.parts] if asked.parts else check.left()
    if todo and todo[0].name != "install" and not check.ready():
        todo = [PARTS[0], *todo]
    budget = asked.budget or (None if asked.small else BUDGET)
    began, left = time.monotonic(), list(todo)
    for part in todo:
        spent = time.monotonic() - began
        if part is not todo[0] and budget and spent + part.seconds > budget:
            break
        print(f"== {part.name}: {part.look} ({part.seconds} s, at most {part.limit})", flush=True)
        status = check.run(part)
        left.remove(part)
        check.keep()
        print(*(check.parts / part.name / "log.txt").read_text(errors="replace").splitlines()[-12:], sep="\n")
        told = check.told(part)
        print(f"== {part.name}: status {status}, {told['seconds']} s, {json.dumps(told['figures'])}", flush=True)
        if status and part.name == "install":
            break
    if left:
        print(f"left, {sum(part.seconds for part in left)} s:", *(part.name for part in left))
        print(f"go on by the same command{' with these parts alone' if asked.parts else ''}")
    failed = check.failed()
    print(f"failed: {' '.join(failed)}" if failed else f"what ran has come out: {check.out / 'summary.json'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
