"""A target with its folder: case after case, each from a seed and a number alone, whatever came before."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fuzz.judge import Verdict, judged
from fuzz.mutate import spoil
from fuzz.targets import TARGETS, Target

from gsdistill.core.errors import UserError


@dataclass(frozen=True)
class Rig:
    """One target, whose folder is as it was built but for the one file that is spoilt."""

    name: str
    target: Target
    sound: dict[Path, bytes]

    @staticmethod
    def built(name: str, folder: Path) -> Rig:
        """Fill an empty folder, and read a file of each kind: no case pays for what that imports and compiles."""
        target = TARGETS[name]
        target.build(folder)
        rig = Rig(name, target, {path: path.read_bytes() for path in target.files(folder)})
        for path in {path.suffix: path for path in rig.sound}.values():
            with contextlib.suppress(UserError):
                target.read(path)
        return rig

    def case(self, seed: int, number: int) -> tuple[Path, bytes]:
        """Which file is spoilt, and what it then holds."""
        rng = Random(f"{seed} {self.name} {number}")
        path = rng.choice(list(self.sound))
        data = self.sound[path]
        if rng.random() < 0.05:  # two files become one
            other = self.sound[rng.choice(list(self.sound))]
            data = data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
        return path, spoil(data, self.target.ways(path), rng)

    def judge(self, path: Path, data: bytes) -> Verdict:
        """Let the target have a spoilt file, and mend it."""
        path.write_bytes(data)
        try:
            return judged(self.target.read, path)
        finally:
            path.write_bytes(self.sound[path])
