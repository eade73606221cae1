"""Spoil what a user may hand over, file after file, and see that each is read or refused in one line.

    PYTHONPATH=tests python -m fuzz.readers [--mutations N] [--target NAME] [--seed N] [--json FILE]

The targets and the ways to spoil their files are those of tests/fuzz. Five hundred cases at a time run in a process of
their own, whose memory is watched; one that dies, hangs for more than 10 s or takes more than 1 GB is a finding, as is
any error that is not ours. A finding is kept as the file that makes it and the place where it arose, and makes the exit
code 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from fuzz.judge import Verdict
from fuzz.rig import Rig
from fuzz.targets import TARGETS
from rich.console import Console
from rich.table import Table

from gsdistill.disk.write import write_bytes, write_json, write_text

BATCH = 500
FORK = multiprocessing.get_context("fork")


@dataclass
class Tally:
    """What became of a target's mutations."""

    kinds: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: float = 0.0

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        self.kinds[verdict.kind] += 1
        self.slowest, self.peak = max(self.slowest, verdict.seconds), max(self.peak, verdict.megabytes)

    def row(self) -> dict[str, Any]:
        """As figures."""
        return {
            "mutations": self.kinds.total(),
            "read": self.kinds["read"],
            "refused": self.kinds["refused"],
            "findings": self.kinds["finding"],
            "slowest_seconds": round(self.slowest, 2),
            "peak_megabytes": round(self.peak),
        }


def work(rig: Rig, seed: int, numbers: range, answers: Connection) -> None:
    """Judge the cases of those numbers, in a process of its own."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    for number in numbers:
        answers.send(rig.judge(*rig.case(seed, number)))
    answers.close()


def verdicts(rig: Rig, seed: int, count: int) -> Iterator[tuple[int, Verdict]]:
    """The verdict on each case by its number; one that ended its process is a finding."""
    done = 0
    while done < count:
        ours, theirs = FORK.Pipe(duplex=False)
        worker = FORK.Process(target=work, args=(rig, seed, range(done, min(done + BATCH, count)), theirs))
        worker.start()
        theirs.close()
        end = min(done + BATCH, count)
        try:
            while done < end:
                found = ours.recv()
                yield done, found
                done += 1
        except EOFError:
            worker.join()
            yield done, Verdict("finding", f"the process ended with {worker.exitcode}", 0.0, 0.0)
            done += 1
        worker.join()


def fuzz(name: str, seed: int, count: int, findings: Path, console: Console) -> dict[str, Any]:
    """Spoil the files of one target."""
    tally, seen = Tally(), set()
    with TemporaryDirectory() as folder:
        rig = Rig.built(name, Path(folder))
        for number, verdict in verdicts(rig, seed, count):
            tally.add(verdict)
            place = re.sub(r"\d+|'[^']*'", "", verdict.told[-200:])
            if verdict.kind == "finding" and place not in seen:
                seen.add(place)
                path, data = rig.case(seed, number)
                kept = findings / f"{name.replace(' ', '-')}-{seed}-{number}"
                write_bytes(kept / path.name, data)
                write_text(kept / "told.txt", f"{path.relative_to(folder)}\n{verdict.told}\n")
                console.print(f"{kept / path.name}\n{verdict.told}", markup=False, highlight=False, soft_wrap=True)
    return tally.row()


def main() -> None:
    """Read the command line and fuzz. Exits with 1 if anything was found."""
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork, which then waits for it
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutations", type=int, default=100_000, help="in all, or of the one target")
    parser.add_argument("--target", choices=("all", *TARGETS), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--findings", type=Path, default=Path("outputs/fuzz-findings"), help="folder of what was found")
    given, console = parser.parse_args(), Console()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not outlive a fork
    rows = {}
    for name, target in TARGETS.items():
        if given.target in ("all", name):
            count = given.mutations if given.target == name else given.mutations * target.share // 100
            rows[name] = fuzz(name, given.seed, count, given.findings, console)
            console.print(f"{name}: {rows[name]}", markup=False, highlight=False, soft_wrap=True)
    table = Table("target", "mutations", "read", "refused", "findings", "slowest s", "peak MB")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:,}" for value in row.values()))
    console.print(table)
    if given.json:
        write_json(given.json, {"mutations": given.mutations, "seed": given.seed, "targets": rows})
    if any(row["findings"] for row in rows.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
