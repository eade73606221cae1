"""Kill runs of `gsdistill generate` and let them go on: what is lost by it, which must be nothing.

    PYTHONPATH=tests python -m faults.drills --kills 200 --output outputs/drills

Short runs with checkpoints after every step, growing and pruning, and each method by turns. A process gets SIGKILL at a
moment drawn evenly from the life of a whole run; the next one is told --resume, and is killed in its turn, until one
ends before its moment, or after eight kills. Where nothing was kept yet, which --resume says, --overwrite begins anew.
Every third kill waits from the drawn moment on for a file that is being written. Most processes are forks of one that
has imported what they need; those of every tenth run are whole, imports and all. Then --sweep kills one run just before
the first change that it makes in its folder, one before the second, and so on to the last; and again over a finished
run, with --overwrite.

After each kill every file that stands under its name must be whole; and the end must equal, bit for bit, that of a run
of the same settings that was never stopped, with no draft left over.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from faults.judge import PHASES, damaged, differences, drafts, phase
from faults.processes import launch, preload, signal_before

from gsdistill.cli.flags import settings_of
from gsdistill.core.device import processor
from gsdistill.disk.write import write_json
from gsdistill.settings.registry import names

ROOT = Path(__file__).resolve().parents[2]
SHORT = (
    *("--prompt", "a red torus", "--views", "1", "--checkpoint-every", "0", "--log-every", "1", "--snapshots", "3"),
    *("--preview-every", "4", "--densify.enabled", "--densify.grow-grad2d", "0.3"),
    *("--init.count", "200"),
)
STUDENTS = ("diffusers.models.unets.unet_2d_condition",)  # which VSD alone needs, and takes seconds for
REST = (None, None, None)  # a refusal to go on, a new beginning, and the end
AIMED, WHOLE = 3, 10  # every so manieth kill waits for a draft; the processes of every so manieth run are whole
MOST = 8  # kills of one run at random, which may then go on to its end


@dataclass(frozen=True)
class Settings:
    """What is killed, and how often."""

    # folder of the runs; those that ended as they should are removed
    output: Path
    # at least so many processes are killed at random; the last run still goes on to its end
    kills: int = 200
    # of the moments
    seed: int = 0
    # by turns; the sweep is of the first
    methods: tuple[str, ...] = tuple(names("gsdistill.distillation"))
    # steps of a run
    iterations: int = 12
    # also kill before each change that a run makes
    sweep: bool = False
    # file of the figures
    json: Path = ROOT / "tools" / "readme" / "results" / "fault-drills.json"


@dataclass(frozen=True)
class Blow:
    """When to kill."""

    after: float = 0.0  # seconds of the process's life
    aimed: bool = False  # from there on, as soon as there is a draft
    change: int = 0  # instead: before so manieth change of the run's folder
    path: str = ""  # counting only those of paths with this in them


@dataclass(frozen=True)
class Victim:
    """A run that is killed."""

    method: str
    words: tuple[str, ...]  # its command line
    folder: Path
    truth: Path  # the folder of one with the same settings that nobody stopped
    whole: bool = False  # in processes from their start on, no forks
    earlier: Path | None = None  # the folder of a finished run with other settings, over a copy of which it goes


@dataclass(frozen=True)
class Kill:
    """One process that was killed."""

    method: str
    whole: bool
    blow: Blow
    seconds: float  # that it had
    phase: str
    drafts: tuple[str, ...]  # the files that it was writing


@dataclass(frozen=True)
class Outcome:
    """One run that was killed some times and came to its end, and all that was wrong with it."""

    kills: tuple[Kill, ...]
    anew: int  # times that nothing was kept yet
    wrong: tuple[str, ...]


def victim(
    method: str, iterations: int, folder: Path, truth: Path, whole: bool = False, earlier: Path | None = None
) -> Victim:
    """A run of a method, whose folder is made empty, or a copy of that of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    if earlier:
        shutil.copytree(earlier, folder)
    words = ("generate", "--method", method, *SHORT, "--iterations", str(iterations), "--output", str(folder))
    return Victim(method, words, folder, truth, whole, earlier)


def undisturbed(one: Victim, *more: str) -> float:
    """Do a run that nobody stops; returns its seconds."""
    with launch([*one.words, *more], one.folder.with_suffix(".log"), new=one.whole) as process:
        if process.wait() != 0:
            raise SystemExit(f"a run that nobody stopped failed: {process.text}")
    return time.monotonic() - process.began


def strike(one: Victim, more: Iterable[str], blow: Blow | None) -> tuple[int, float, str]:
    """Start the run, and kill it unless it has ended before; returns exit code, seconds and what it said."""
    first = [partial(signal_before, blow.change, blow.path or str(one.folder))] if blow and blow.change else []
    with launch([*one.words, *more], one.folder.with_suffix(".log"), one.whole, first) as process:
        if blow and not blow.change:
            process.until(lambda: time.monotonic() - process.began >= blow.after)
            if blow.aimed:
                process.until(lambda: bool(drafts(one.folder)))
            process.signal(signal.SIGKILL)
        code = process.wait()
    return code, round(time.monotonic() - process.began, 3), process.text


def nothing_kept(one: Victim, said: str) -> bool:
    """Whether a refusal to resume is right: there is no checkpoint, or all of the earlier run."""
    if one.earlier and "is finished, with other settings" in said:
        return not differences(one.folder, one.earlier)
    return "no checkpoint" in said


def drill(one: Victim, blows: Iterable[Blow | None]) -> Outcome:
    """Start the run, and again with --resume, for each blow (None: undisturbed) until it ends."""
    kills: list[Kill] = []
    anew, wrong = 0, []
    more: tuple[str, ...] = ("--overwrite",) if one.earlier else ()
    for blow in blows:
        code, seconds, said = strike(one, more, blow)
        wrong += [f"after kill {len(kills) + 1}: {line}" for line in damaged(one.folder)]
        if code == -signal.SIGKILL and blow:
            kills.append(Kill(one.method, one.whole, blow, seconds, phase(one.folder), tuple(drafts(one.folder))))
            more = ("--resume",)
        elif code == 2 and more == ("--resume",) and nothing_kept(one, said):
            anew, more = anew + 1, ("--overwrite",)
        else:
            wrong += [f"exit {code}: {said[-400:]}"] if code else differences(one.folder, one.truth)
            break
    else:
        wrong.append("it came to no end")
    wrong += [f"{name} is left over" for name in drafts(one.folder)]
    return Outcome(tuple(kills), anew, tuple(wrong))


def moments(number: int, life: float, seed: int, most: int = MOST) -> list[Blow | None]:
    """The blows at the run of a number, and then rest."""
    draw = random.Random(f"{seed} {number}")
    return [*(Blow(draw.uniform(0.0, life), (number + kill) % AIMED == 0) for kill in range(most)), *REST]


def at_random(settings: Settings) -> Iterator[Outcome]:
    """Run after run until there were enough kills; the folders of those that went wrong stay."""
    lives: dict[tuple[str, bool], float] = {}
    killed = 0
    for number in count():
        if killed >= settings.kills:
            return
        method, whole = settings.methods[number % len(settings.methods)], number % WHOLE == WHOLE - 1
        truth = settings.output / f"whole-{method}"
        if (method, whole) not in lives:
            lives[method, whole] = undisturbed(victim(method, settings.iterations, truth, truth, whole))
        folder = settings.output / f"killed-{number:03d}-{method}"
        one = victim(method, settings.iterations, folder, truth, whole)
        outcome = drill(one, moments(number, lives[method, whole], settings.seed))
        if not outcome.wrong:
            shutil.rmtree(folder)
        killed += len(outcome.kills)
        yield outcome


def at_each_change(method: str, iterations: int, output: Path, over: bool, numbers: Iterable[int]) -> Iterator[Outcome]:
    """A run for each number, killed before that change in its folder, until one makes fewer.

    ``over``: over a finished run, of another seed.
    """
    truth, earlier = output / f"short-{method}", output / f"earlier-{method}"
    undisturbed(victim(method, iterations, truth, truth))
    if over:
        undisturbed(victim(method, iterations, earlier, truth), "--seed", "1")
    for number in numbers:
        folder = output / f"swept-{number:03d}-{method}"
        one = victim(method, iterations, folder, truth, earlier=earlier if over else None)
        outcome = drill(one, [Blow(change=number), *REST])
        if not outcome.wrong:
            shutil.rmtree(folder)
        if not outcome.kills:
            return
        yield outcome


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """The counts that tests/README.md has."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    phases = Counter(kill.phase for kill in kills)
    return {
        "kills": len(kills),
        "runs": len(outcomes),
        "most_kills_of_a_run": max((len(outcome.kills) for outcome in outcomes), default=0),
        "whole_processes": sum(kill.whole for kill in kills),
        "while_a_file_was_written": sum(bool(kill.drafts) for kill in kills),
        "begun_anew": sum(outcome.anew for outcome in outcomes),
        "wrong": [line for outcome in outcomes for line in outcome.wrong],
        "phases": {name: phases[name] for name in PHASES},
        "methods": dict(Counter(kill.method for kill in kills)),
    }


def told(title: str, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Print each outcome as it comes, and then the table of phases; returns the figures."""
    kept = []
    for outcome in outcomes:
        kept.append(outcome)
        methods = {kill.method for kill in outcome.kills}
        state = "; ".join(outcome.wrong) or "equal"
        print(f"run {len(kept)}: {', '.join(methods)}, {len(outcome.kills)} kills, {state}", flush=True)
    found = figures(kept)
    print(f"\n| {title}: where the kill fell | kills |\n|---|---|")
    for name, number in found["phases"].items():
        print(f"| {name} | {number} |")
    print(f"\n{found['kills']} kills of {found['runs']} runs, {len(found['wrong'])} things wrong\n", flush=True)
    return found


def main(settings: Settings) -> None:
    """Drill, print each run and the tables, and write the figures."""
    preload(*STUDENTS)
    settings.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    found = {"random": told("random moments", at_random(settings))}
    if settings.sweep:
        for name, over in (("each change", False), ("each change, over a finished run", True)):
            found[name] = told(name, at_each_change(settings.methods[0], 3, settings.output, over, count(1)))
    plain = {key: value for key, value in asdict(settings).items() if key not in ("output", "json")}
    seconds = round(time.monotonic() - began)
    write_json(settings.json, {"settings": plain, "processor": processor(), "seconds": seconds, **found})
    if any(part["wrong"] for part in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "drills.py"))
