"""The contract of a writer: Gaussians to one file of one format, named by its module: ``compressed_ply`` is
``.compressed.ply``.

Every writer is handed the same: finite float32 on the CPU, in the axes of the file, quaternions of length one. So a
writer only lays out numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError, OutputError
from gsdistill.core.extras import require
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians, RenderOptions, on_processor, to_device
from gsdistill.disk.write import atomic_path
from gsdistill.scene.turn import to_frame
from gsdistill.settings.registry import own_name

__all__ = ["Writer"]


@dataclass(frozen=True)
class Writer(ABC):
    """Settings of one format; subclasses are final frozen dataclasses."""

    expected: ClassVar[Frame] = "rdf"  # the axes that viewers of the format take it to be in
    needs_extra: ClassVar[bool] = False  # whether a package of the extra `formats` writes it
    highest_degree: ClassVar[int] = 3  # of the spherical harmonics that it holds
    read_by_all: ClassVar[frozenset[str]] = frozenset()  # options of drawing that all readers of the format know
    read_by_us: ClassVar[bool] = False  # whether it has room for the others, which gsdistill reads

    frame: Frame | None = None  # axes to write; none: the expected ones
    sh_pad: int | None = None  # SH degree to fill up to with zeros

    def check(self) -> None:
        """Refuse what can be known before there is anything to write.

        Raises:
            ConfigError: harmonics are asked for that the format does not hold.
            NotInstalled: the format's package is missing, with the command that installs it.
        """
        extension = f".{own_name(type(self)).replace('-', '.')}"
        if (self.sh_pad or 0) > self.highest_degree:
            above = f" above degree {self.highest_degree}" if self.highest_degree else ""
            raise ConfigError(f"sh_pad = {self.sh_pad}: {extension} holds no view-dependent colour{above}")
        if self.needs_extra:
            require("formats", f"writing {extension}", "gsply")

    def write(self, gaussians: Gaussians, path: Path | str) -> list[str]:
        """Write Gaussians of our world to ``path``, in one piece or not at all; return what its user should know.

        Those are sentences about what the format does not hold as the scene has it, or what it adds; mostly none.

        Raises:
            OutputError: the file cannot be written, there is no Gaussian, or one of them is not sound.
            ConfigError, NotInstalled: as :meth:`check`.
        """
        self.check()
        gaussians = to_device(gaussians, "cpu")  # before the float64 that not every device has
        _check_sound(gaussians, path)
        ready = _plain(to_frame(gaussians, self.axes), self.sh_pad)
        with atomic_path(path) as draft:
            return self.encode(ready, draft) + self._told_of_drawing(gaussians.options)

    def _told_of_drawing(self, options: RenderOptions) -> list[str]:
        others = replace(options, **{name: getattr(RenderOptions, name) for name in self.read_by_all})
        if not others.unusual():
            return []
        kept = "only gsdistill reads there" if self.read_by_us else "there is no room for"
        return [f"{kept} that it is drawn with {others}; other programs draw it otherwise"]

    @property
    def axes(self) -> Frame:
        """The axes that are written."""
        return self.frame or self.expected

    @abstractmethod
    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write float32 Gaussians on the CPU, in the file's axes and with quaternions of length one, to a new file.

        Returns what :meth:`write` does.
        """


def _check_sound(gaussians: Gaussians, path: Path | str) -> None:
    """Refuse what no reader takes: nothing, numbers that float32 does not hold, rotations that are none."""
    if not len(gaussians):
        raise OutputError(f"{path}: there is no Gaussian to write")
    infinite = {name: int((~value.float().isfinite()).sum()) for name, value in gaussians.tensors().items()}
    listed = ", ".join(f"{name} ({count})" for name, count in infinite.items() if count)
    if listed:
        raise OutputError(f"{path}: values that are NaN or infinite among {len(gaussians)} Gaussians: {listed}")
    zero = int((gaussians.quats.double().norm(dim=-1) < 1e-12).sum())
    if zero:
        raise OutputError(f"{path}: the rotation is zero, which is none, for {zero} of {len(gaussians)} Gaussians")


def _plain(gaussians: Gaussians, sh_pad: int | None) -> Gaussians:
    """Detached float32 on the CPU, quaternions of length one, SH of degree ``sh_pad`` at least."""
    plain = on_processor(gaussians)
    missing = max(0, ((sh_pad or 0) + 1) ** 2 - plain.sh.shape[1])
    sh = torch.nn.functional.pad(plain.sh, (0, 0, 0, missing))
    return replace(plain, quats=_unit(plain.quats), sh=sh)


def _unit(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """Quaternions of length one; those that are as long as float32 can tell keep their bits."""
    exact = quats.double()
    length = exact.norm(dim=-1, keepdim=True)
    return torch.where((length - 1.0).abs() < 2e-7, quats, (exact / length).float())
