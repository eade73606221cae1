"""The interface of a writer, which writes Gaussians to a file of one format. The extension follows from the name of its
module: ``compressed_ply`` is ``.compressed.ply``.

Every writer gets finite float32 on the CPU, in the axes of the file, with quaternions of length one, and only has to
lay out the numbers.
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

    expected: ClassVar[Frame] = "rdf"  # the axes that viewers of the format expect
    needs_extra: ClassVar[bool] = False  # whether it needs a package of the extra `formats`
    highest_degree: ClassVar[int] = 3  # of the spherical harmonics that the format can hold
    read_by_all: ClassVar[frozenset[str]] = frozenset()  # names of the RenderOptions that every reader of it reads
    read_by_us: ClassVar[bool] = False  # whether it also holds the others, which only gsdistill reads

    frame: Frame | None = None  # axes to write; none: the expected ones
    sh_pad: int | None = None  # least SH degree to write; missing coefficients are zeros

    def check(self) -> None:
        """Check the settings and the installation, before there is anything to write.

        Raises:
            ConfigError: ``sh_pad`` is more than the format can hold.
            NotInstalled: the format's package is missing; the error names the command that installs it.
        """
        extension = f".{own_name(type(self)).replace('-', '.')}"
        if (self.sh_pad or 0) > self.highest_degree:
            above = f" above degree {self.highest_degree}" if self.highest_degree else ""
            raise ConfigError(f"sh_pad = {self.sh_pad}: {extension} holds no view-dependent colour{above}")
        if self.needs_extra:
            require("formats", f"writing {extension}", "gsply")

    def write(self, gaussians: Gaussians, path: Path | str) -> list[str]:
        """Write Gaussians in world axes to ``path``, atomically.

        Returns sentences for the user about what the format stores differently from the scene, or adds; mostly none.

        Raises:
            OutputError: the file cannot be written, there is no Gaussian, one has a number that is not finite, or a
                quaternion is zero.
            ConfigError, NotInstalled: as :meth:`check`.
        """
        self.check()
        gaussians = to_device(gaussians, "cpu")  # first, because what follows uses float64, which some devices lack
        _check_sound(gaussians, path)
        ready = _plain(to_frame(gaussians, self.axes), self.sh_pad)
        with atomic_path(path) as draft:
            return self.encode(ready, draft) + self._lost_options(gaussians.options)

    def _lost_options(self, options: RenderOptions) -> list[str]:
        """A sentence about the options that other readers of the file do not read, if they are not the usual ones."""
        others = replace(options, **{name: getattr(RenderOptions, name) for name in self.read_by_all})
        if not others.unusual():
            return []
        stored = "only gsdistill reads" if self.read_by_us else "the format cannot store"
        return [f"{stored} that it is drawn with {others}; other programs draw it differently"]

    @property
    def axes(self) -> Frame:
        """The axes that are written."""
        return self.frame or self.expected

    @abstractmethod
    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write Gaussians to the new file ``draft``: float32 on the CPU, in the file's axes, quaternions of length one.

        Returns the same as :meth:`write`.
        """


def _check_sound(gaussians: Gaussians, path: Path | str) -> None:
    """Raise OutputError for what no reader accepts: no Gaussians, numbers not finite in float32, zero quaternions."""
    if not len(gaussians):
        raise OutputError(f"{path}: there is no Gaussian to write")
    infinite = {name: int((~value.float().isfinite()).sum()) for name, value in gaussians.tensors().items()}
    listed = ", ".join(f"{name} ({count})" for name, count in infinite.items() if count)
    if listed:
        raise OutputError(f"{path}: values that are NaN or infinite among {len(gaussians)} Gaussians: {listed}")
    zero = int((gaussians.quats.double().norm(dim=-1) < 1e-12).sum())
    if zero:
        raise OutputError(
            f"{path}: the quaternion is zero, which is no rotation, for {zero} of {len(gaussians)} Gaussians"
        )


def _plain(gaussians: Gaussians, sh_pad: int | None) -> Gaussians:
    """The scene as detached float32 on the CPU, with quaternions of length one and SH of at least degree ``sh_pad``."""
    plain = on_processor(gaussians)
    missing = max(0, ((sh_pad or 0) + 1) ** 2 - plain.sh.shape[1])
    sh = torch.nn.functional.pad(plain.sh, (0, 0, 0, missing))
    return replace(plain, quats=_unit(plain.quats), sh=sh)


def _unit(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """The quaternions at length one; those whose length is one to float32 precision keep their bits."""
    exact = quats.double()
    length = exact.norm(dim=-1, keepdim=True)
    return torch.where((length - 1.0).abs() < 2e-7, quats, (exact / length).float())
