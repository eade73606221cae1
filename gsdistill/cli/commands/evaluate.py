"""``gsdistill evaluate``: the figures of a run or of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.core.errors import ConfigError
from gsdistill.core.frames import Frame
from gsdistill.core.threads import Threads
from gsdistill.disk.paths import may_be_path
from gsdistill.disk.write import write_json

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate(Threads, PlainCommand):
    """Measure a splat: against a truth, by itself, and by what a prior sees in it.

    The truth is the object that the prompt names, of everyday objects or of shapes, or a mesh or a splat of yours.
    Without it only figures that need none are measured. A run's own figures are kept in its evaluation.json; those of a
    file, or against another truth, are printed, and written to --json alone.
    """

    splat: Path = field(metadata={"positional": True})  # A splat of any format, or the folder of a run.
    prompt: str | None = None  # What the splat should be; none: the prompt of the run.
    # The world that the prompt is of, shapes or objects; none: that of the run's prior, or of a file the one that fits.
    world: str | None = None
    # Ask this prior what it sees, how many fronts there are and how well the prompt fits: a name as for `generate`.
    prior: str | None = field(default=None, metadata=may_be_path())
    # Measure against this mesh (.glb .gltf .obj .ply .stl .off), splat or run. It must have the size and the place of
    # the splat: about the origin, in the unit ball.
    truth: Path | None = None
    # The axes of a splat that does not name its own: rdf (y down, as most splats), y-up, z-up, unity or world; none: as
    # is usual with its format.
    frame: Frame | None = None
    # The axes of a truth that does not name its own; none: of meshes y-up for .glb, .gltf and .obj, world for others.
    truth_frame: Frame | None = None
    clean: bool = False  # Leave out or mend Gaussians that are NaN, infinite or no rotation; without, they are refused.
    json: Path | None = None  # Also write the figures to this file.
    overwrite: bool = False  # Replace the file of --json if it is there; what is measured is never replaced.

    def __post_init__(self) -> None:
        if self.prompt is not None and not self.prompt.strip():
            raise ConfigError(f"prompt = '{self.prompt}' is empty; leave it out to measure without one")
        if self.prompt is not None and self.truth is not None and self.prior is None:
            raise ConfigError("prompt and truth are two truths; give one of them, or --prior, which the prompt is for")
        if self.world is not None and self.truth is not None:
            raise ConfigError("world and truth are two truths; give one of them")
        if self.overwrite and self.json is None:
            raise ConfigError("overwrite is for the file of --json: add --json FILE")
        if self.truth_frame and self.truth is None:
            raise ConfigError(f"truth_frame = {self.truth_frame} is of a truth: add --truth FILE")

    def perform(self, console: Console) -> None:
        """Measure the splat, print the figures, and write them where they belong."""
        from gsdistill.cli.evaluation import check_json, gather, print_figures
        from gsdistill.run.measure import keep_figures

        if self.json:
            check_json(self.json, filter(None, (self.splat, self.truth)), self.overwrite)
        frames = self.frame, self.truth_frame
        figures = gather(self.splat, self.prompt, self.world, self.prior, self.truth, frames, self.clean)
        print_figures(figures, console)
        if self.json:
            write_json(self.json, figures)
        if self.splat.is_dir() and not (self.prompt or self.world or self.truth):  # a run against its own prompt
            keep_figures(self.splat, figures)
