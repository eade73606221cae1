"""The objects that a user names on the command line: splats, and runs with the snapshots that they kept."""

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

__all__ = ["Source", "find", "gather", "labels", "stride"]

IN_MEMORY = 4  # splats of one run, at most


@dataclass(frozen=True)
class Source:
    """One object on the page: its splats by step, all moved and scaled as the last one."""

    path: Path
    steps: dict[int, Path]  # the files by step, ascending; a single file is at step 0
    frame: Frame | None  # the axes of files that do not name theirs
    clean: bool = False  # whether invalid Gaussians are left out or mended
    _splats: dict[int, Splat] = field(default_factory=dict, repr=False)  # those in memory by step, the latest last

    def at(self, step: int) -> Splat:
        """The last splat up to ``step``, or else the first one, in the unit ball.

        Raises:
            BadFile: it cannot be read.
        """
        last = max((own for own in self.steps if own <= step), default=min(self.steps))
        if last not in self._splats:
            self._splats[last] = Splat.of(_read(self.steps[last], self.frame, self.clean), self.ball)
        while len(self._splats) > IN_MEMORY:
            del self._splats[next(iter(self._splats))]
        return self._splats[last]

    @functools.cached_property
    def ball(self) -> UnitBall:
        """The ball around the last splat."""
        return ball_of(_read(self.steps[max(self.steps)], self.frame, self.clean))


def find(path: Path, frame: Frame | None = None, clean: bool = False) -> Source:
    """Return the splats of the file or the run at ``path``; none of them is read yet.

    The splat of a finished run is that of its last step. An unfinished run does not say which step that was: there the
    last snapshot serves, and without snapshots its splat is at step 0.

    Raises:
        BadFile: there is nothing at ``path``, or a folder without a splat.
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


def gather(paths: Sequence[Path], frame: Frame | None = None, clean: bool = False) -> tuple[list[Source], list[Path]]:
    """Return the splats of each path, and the paths that are left out because they hold none.

    ``outputs/*/*`` in a shell also names tables, pictures and folders of other commands.

    Raises:
        BadFile: nothing is at a path, or none of them holds a splat.
    """
    splats = [path for path in paths if _may_be_shown(path)]
    skipped = [path for path in paths if splats and path not in splats]
    return [find(path, frame, clean) for path in splats or paths], skipped


def labels(sources: Sequence[Source]) -> list[str]:
    """The shortest ends of the paths that differ: at least the name, and for a folder also the folder around it."""
    paths = [source.path.absolute() for source in sources]
    return [as_unicode(_end(path, [other for other in paths if other != path])) for path in paths]


def stride(sources: Sequence[Source]) -> tuple[int, int, int]:
    """First and last step of all sources, and the largest stride that hits every step between."""
    steps = sorted({step for source in sources for step in source.steps})
    return steps[0], steps[-1], math.gcd(*(step - steps[0] for step in steps)) or 1


def _end(path: Path, others: Sequence[Path]) -> str:
    for count in range(2 if path.is_dir() else 1, len(path.parts)):
        if all(path.parts[-count:] != other.parts[-count:] for other in others):
            return "/".join(path.parts[-count:])
    return str(path)


def _iterations(folder: Path) -> int:
    """The number of steps of a finished run; 0 without a valid summary."""
    try:
        return int(read_json(folder / SUMMARY)["iterations"])
    except (BadFile, ValueError, KeyError, TypeError):
        return 0


def _may_be_shown(path: Path) -> bool:
    """Whether a path holds a splat, or a broken file whose reader says what is wrong."""
    if path.is_dir():
        return (path / SPLAT).exists() or bool(snapshots(path))
    try:
        return may_be_splat(path)
    except BadFile:
        return True


@functools.lru_cache(maxsize=1)
def _read(path: Path, frame: Frame | None, clean: bool) -> Gaussians:
    return open_splat(path).resolve(frame, "--frame", clean)
