"""``gsdistill edit``: merges, crops, cleans, reduces, places and recolours a splat.

The steps are always taken in this order, whatever the order of the flags: merge, crop, opacity, floaters, reduce,
scale, turn, rotate, move, colour. Each step works on the result of the one before. Transparent Gaussians are removed
before floaters, because haze connects parts. Lengths are in world units, axes are gsdistill's. Each step prints a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.cli.conversion import Conversion, read_source, write_splat
from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.disk.write import check_targets
from gsdistill.settings.ramp import shortest

if TYPE_CHECKING:
    from jaxtyping import Bool
    from rich.console import Console
    from torch import Tensor

    from gsdistill.core.structs import Gaussians

__all__ = ["Edit"]


@dataclass(frozen=True, kw_only=True)
class Edit(Conversion, PlainCommand):
    """Change a splat and write it to a new file: crop, clean, reduce, merge, scale, turn, move and recolour it."""

    merge: tuple[Path, ...] = ()  # 1. Add the Gaussians of these files, or of these folders of runs.
    # 2. Keep what has its centre in the box from xmin ymin zmin to xmax ymax zmax; +x is to the front, +z is up.
    crop_box: tuple[float, float, float, float, float, float] | None = None
    crop_ball: tuple[float, float, float, float] | None = None  # 3. Keep what has its centre in the ball x y z radius.
    min_opacity: float = bounded(0.0, low=0, below=1)  # 4. Remove what is more transparent.
    remove_floaters: bool = False  # 5. Keep the largest of the parts that hang together.
    keep_parts: int | None = bounded(None, low=1)  # With --remove-floaters: keep so many of the largest parts.
    # With --remove-floaters: keep every part with at least this share of the summed opacity.
    min_part: float | None = bounded(None, low=0, high=1)
    # 6. Keep so many Gaussians, those of which most is seen from all around, and widen them where that closes gaps.
    reduce: int | None = bounded(None, low=1)
    scale: float = bounded(1.0, above=0)  # 7. Times as large, about the origin.
    turn: float = 0.0  # 8. Degrees about the vertical axis, counter-clockwise seen from above.
    rotate: tuple[float, float, float, float] | None = None  # 9. About the axis x y z through the origin, by degrees.
    move: tuple[float, float, float] = (0.0, 0.0, 0.0)  # 10. By x y z.
    hue: float = bounded(0.0, low=-360, high=360)  # 11. Turn the colours; 120 makes red green, and green blue.
    saturation: float = bounded(1.0, low=0, high=100)  # 12. Times as colourful; 0 is grey.
    brightness: float = bounded(1.0, low=0, high=100)  # 13. Times as bright.
    tint: tuple[float, float, float] = bounded((1.0, 1.0, 1.0), low=0, high=100)  # 14. Times red, green and blue.

    def __post_init__(self) -> None:
        if self.crop_box and not all(
            low < high for low, high in zip(self.crop_box[:3], self.crop_box[3:], strict=True)
        ):
            raise ConfigError(f"crop_box = {list(self.crop_box)} is empty: xmin ymin zmin must be below xmax ymax zmax")
        if self.crop_ball and self.crop_ball[3] <= 0.0:
            raise ConfigError(
                f"crop_ball = {list(self.crop_ball)}: its radius, the last number, must be greater than 0"
            )
        if self.rotate and not any(self.rotate[:3]):
            raise ConfigError(
                f"rotate = {list(self.rotate)}: the axis 0 0 0 has no direction; --rotate 0 0 1 90 has one"
            )
        for name in ("keep_parts", "min_part"):
            if getattr(self, name) is not None and not self.remove_floaters:
                raise ConfigError(f"{name} = {getattr(self, name)} is for parts: add --remove-floaters")

    def perform(self, console: Console) -> None:
        """Read the source, take the steps in their order and write the target.

        Raises:
            UserError: no step is asked for, a step leaves no Gaussian, or as for ``gsdistill export``.
        """
        from gsdistill.export.formats import writer_for

        flags = [name for name in (*Edit.__annotations__, "clean") if name not in ("keep_parts", "min_part")]
        if all(getattr(self, name) == getattr(Edit, name) for name in flags):
            raise ConfigError(f"nothing to change; say what with --{', --'.join(flags).replace('_', '-')}")
        writer = writer_for(self.target, self)
        check_targets((self.target,), self.overwrite)
        gaussians = read_source(self.source, self.from_frame, self.clean, console, alone=not self.merge)
        for path in self.merge:
            gaussians = _merged(gaussians, path, self, console)
        for name, choose in _choices(self):
            gaussians = _kept(gaussians, name, *choose(gaussians), console)
        if self.reduce:
            gaussians = _reduced(gaussians, self.reduce, console)
        for line, change in _changes(self):
            gaussians = change(gaussians)
            console.print(Text(line), soft_wrap=True)
        write_splat(_recoloured(gaussians, self, console), writer, self.target, console)


Choice = tuple["Bool[Tensor, 'N']", str]  # which Gaussians a step keeps, and what its line says besides


def _merged(gaussians: Gaussians, path: Path, command: Edit, console: Console) -> Gaussians:
    from gsdistill.scene.edit import join

    more = read_source(path, command.from_frame, command.clean, console, alone=False)
    console.print(Text(f"merge: {len(more):,} Gaussians of {path} added to {len(gaussians):,}"), soft_wrap=True)
    return join([gaussians, more])


def _choices(command: Edit) -> Iterator[tuple[str, Callable[[Gaussians], Choice]]]:
    """The steps that remove Gaussians, each with its name."""
    from gsdistill.scene.edit import in_ball, in_box

    box, ball = command.crop_box, command.crop_ball
    if box:
        yield "crop to the box", lambda g: (in_box(g, box[:3], box[3:]), "")
    if ball:
        yield "crop to the ball", lambda g: (in_ball(g, ball[:3], ball[3]), "")
    if command.min_opacity:
        yield "opacity", lambda g: (g.opacities.sigmoid() >= command.min_opacity, "")
    if command.remove_floaters:
        yield "floaters", lambda g: _without_floaters(g, command)


def _kept(gaussians: Gaussians, name: str, keep: Bool[Tensor, "N"], more: str, console: Console) -> Gaussians:
    from gsdistill.scene.edit import picked

    if not keep.any():
        ends = (gaussians.means.amin(dim=0), gaussians.means.amax(dim=0))
        low, high = (" ".join(f"{float(value):.3g}" for value in end) for end in ends)
        raise ConfigError(f"{name}: none of {len(keep):,} Gaussians is left; their centres lie in the box {low} {high}")
    line = f"{name}: {int((~keep).sum()):,} of {len(keep):,} Gaussians removed{more}"
    console.print(Text(line), soft_wrap=True)
    return picked(gaussians, keep)


def _without_floaters(gaussians: Gaussians, command: Edit) -> Choice:
    from gsdistill.scene.edit import large_parts
    from gsdistill.scene.parts import parts

    labels = parts(gaussians)
    most = command.keep_parts or (1 if command.min_part is None else len(labels))
    keep = large_parts(gaussians, labels, most, command.min_part or 0.0)
    return keep, f", {len(labels[keep].unique()):,} of {len(labels.unique()):,} parts kept"


def _reduced(gaussians: Gaussians, count: int, console: Console) -> Gaussians:
    from gsdistill.edit.reduce import reduced

    few, factor = reduced(gaussians, count)
    wider = f"; the others are {shortest(factor)} times as wide, to close the gaps" * (factor != 1.0)
    line = f"reduce: {len(gaussians) - len(few):,} of {len(gaussians):,} Gaussians removed{wider}"
    console.print(Text(line), soft_wrap=True)
    return few


def _changes(command: Edit) -> Iterator[tuple[str, Callable[[Gaussians], Gaussians]]]:
    """The steps that scale, turn and move the splat, each with its line."""
    from gsdistill.scene.edit import about_axis, moved, scaled
    from gsdistill.scene.turn import turned

    c = command
    if c.scale != 1.0:
        yield f"scaled by {shortest(c.scale)}", lambda g: scaled(g, c.scale)
    if c.turn:
        yield f"turned by {shortest(c.turn)} degrees", lambda g: turned(g, about_axis((0.0, 0.0, 1.0), c.turn))
    if c.rotate:
        axis, degrees = c.rotate[:3], c.rotate[3]
        line = f"rotated by {shortest(degrees)} degrees about {_words(axis)}"
        yield line, lambda g: turned(g, about_axis(axis, degrees))
    if any(c.move):
        yield f"moved by {_words(c.move)}", lambda g: moved(g, c.move)


def _recoloured(gaussians: Gaussians, command: Edit, console: Console) -> Gaussians:
    from gsdistill.core.structs import SH_C0
    from gsdistill.scene.edit import colour_matrix, recoloured

    names = ("hue", "saturation", "brightness", "tint")
    chosen = {name: value for name in names if (value := getattr(command, name)) != getattr(Edit, name)}
    if not chosen:
        return gaussians
    changed = recoloured(gaussians, colour_matrix(**chosen))
    base = 0.5 + SH_C0 * changed.sh[:, 0]
    beyond = int(((base < -0.002) | (base > 1.002)).any(dim=1).sum())  # tolerance: half a step of a byte
    words = ", ".join(
        f"{name} {_words(value) if name == 'tint' else shortest(value)}" for name, value in chosen.items()
    )
    more = f"; {beyond:,} of {len(base):,} colours are now beyond 0..1, where pictures cut them off" * (beyond > 0)
    console.print(Text(f"recoloured: {words}{more}"), soft_wrap=True)
    return changed


def _words(values: Iterable[float]) -> str:
    return " ".join(shortest(value) for value in values)
