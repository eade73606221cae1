"""What a person named on the command line: a splat, or a run with the splats that it kept on its way."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gsdistill.core.errors import BadFile
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians
from gsdistill.disk.read import read_json
from gsdistill.disk.texts import as_unicode
from gsdistill.run.read import SPLAT, SUMMARY, snapshots
from gsdistill.scene.extent import UnitBall
from gsdistill.scene.read import may_be_splat, open_splat
from gsdistill.viewer.splat import Splat, ball_of

__all__ = ["Source", "find", "gathered", "labels", "stride"]

KEPT = 4  # splats of one run that stay in memory


@dataclass(frozen=True)
class Source:
    """One object on the page: its splats by step, of which the last says where all of them lie."""

    path: Path
    steps: dict[int, Path]  # ascending; of a file, itself at step 0
    frame: Frame | None
    clean: bool = False  # whether what is not sound is left out or mended
    _read: dict[int, Splat] = field(default_factory=dict, repr=False)  # by step, the latest read last

    def at(self, step: int) -> Splat:
        """The last splat up to ``step``, or the first one, within the unit ball.

        Raises:
            BadFile: it cannot be read.
        """
        reached = max((kept for kept in self.steps if kept <= step), default=min(self.steps))
        if reached not in self._read:
            self._read[reached] = Splat.of(_read(self.steps[reached], self.frame, self.clean), self.ball)
        while len(self._read) > KEPT:
            del self._read[next(iter(self._read))]
        return self._read[reached]

    @functools.cached_property
    def ball(self) -> UnitBall:
        """Where the last splat lies."""
        return ball_of(_read(self.steps[max(self.steps)], self.frame, self.clean))


def find(path: Path, frame: Frame | None = None, clean: bool = False) -> Source:
    """Return what lies at ``path``; nothing is read yet.

    The splat of a run stands for its last step, which only a finished run tells; a stopped one has a snapshot of it.

    Raises:
        BadFile: there is nothing, or a folder that holds no splat.
    """
    if not path.is_dir():
        if not path.exists():
            raise BadFile(f"{path}: there is no such file or folder")
        return Source(path, {0: path}, frame, clean)
    steps, last = snapshots(path), path / SPLAT
    if last.exists() and (done := _iterations(path)):
        steps[done] = last
    elif last.exists() and not steps:
        steps[0] = last
    if not steps:
        raise BadFile(f"{path}: holds neither gaussians.ply nor snapshots; name a splat or the folder of a run")
    return Source(path, steps, frame, clean)


def gathered(paths: Sequence[Path], frame: Frame | None = None, clean: bool = False) -> tuple[list[Source], list[Path]]:
    """Return what lies at each path, and the paths that are left out for they hold no splat.

    A shell's ``outputs/*/*`` names tables, pictures and folders of other commands beside the runs.

    Raises:
        BadFile: a path leads nowhere, or none of them holds a splat.
    """
    splats = [path for path in paths if _may_be_shown(path)]
    skipped = [path for path in paths if splats and path not in splats]
    return [find(path, frame, clean) for path in splats or paths], skipped


def labels(sources: Sequence[Source]) -> list[str]:
    """The shortest ends of the paths that tell them apart: at least a name, and of a folder also that around it."""
    paths = [source.path.absolute() for source in sources]
    return [as_unicode(_end(path, [other for other in paths if other != path])) for path in paths]


def stride(sources: Sequence[Source]) -> tuple[int, int, int]:
    """First and last step of all sources, and the largest stride that meets every step between."""
    steps = sorted({step for source in sources for step in source.steps})
    return steps[0], steps[-1], math.gcd(*(step - steps[0] for step in steps)) or 1


def _end(path: Path, others: Sequence[Path]) -> str:
    for count in range(2 if path.is_dir() else 1, len(path.parts)):
        if all(path.parts[-count:] != other.parts[-count:] for other in others):
            return "/".join(path.parts[-count:])
    return str(path)


def _iterations(folder: Path) -> int:
    """The steps of a finished run, 0 where its summary is missing or not one of ours."""
    try:
        return int(read_json(folder / SUMMARY)["iterations"])
    except (BadFile, ValueError, KeyError, TypeError):
        return 0


def _may_be_shown(path: Path) -> bool:
    """Whether a path holds a splat, or something of which whoever reads it must say what is wrong."""
    if path.is_dir():
        return (path / SPLAT).exists() or bool(snapshots(path))
    try:
        return may_be_splat(path)
    except BadFile:
        return True


@functools.lru_cache(maxsize=1)
def _read(path: Path, frame: Frame | None, clean: bool) -> Gaussians:
    return open_splat(path).resolve(frame, "--frame", clean)
