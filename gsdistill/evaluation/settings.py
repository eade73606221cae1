"""What `gsdistill evaluate` takes. Nothing heavy is imported here: the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gsdistill.errors import ConfigError
from gsdistill.frames import Frame
from gsdistill.threads import Threads

__all__ = ["EvaluateCommand"]


@dataclass(frozen=True)
class EvaluateCommand(Threads):
    """Measure a splat against the truth: the object of its prompt, or a mesh or another splat.

    The figures of a run against its own prompt are kept in its evaluation.json. Against another truth, or of another
    file, they are printed, and written to --json alone.
    """

    splat: Path = field(metadata={"positional": True})  # the folder of a run, or a splat .ply
    prompt: str | None = None  # an object of the shapes world to measure against; none: that of the run
    # in place of a prompt: a mesh (.glb .gltf .obj .ply .stl .off), a splat .ply or a run, of the size and in the place
    # of the splat: about the origin, in the unit ball
    truth: Path | None = None
    # axes of a splat that does not name them: rdf (y down, as most splats), y-up, z-up, unity or world; none: world
    frame: Frame | None = None
    # axes of a truth that does not name them; none: y-up for .glb, .gltf and .obj, world for others
    truth_frame: Frame | None = None
    json: Path | None = None  # also write the figures to this file

    def __post_init__(self) -> None:
        if self.prompt is not None and self.truth is not None:
            raise ConfigError("prompt and truth are two truths; give one of them")
        if self.truth_frame and self.truth is None:
            raise ConfigError(f"truth_frame = {self.truth_frame} is of a truth: add --truth FILE")
