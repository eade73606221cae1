"""``gsdistill render``: pictures and films of a splat. These flags decide what is drawn:

none          a contact sheet views.png, and one turn around the object, turntable.mp4
``--camera``  still.png, the view of one camera
``--cameras`` path.mp4, the views of the cameras in a JSON file, in their order (:mod:`gsdistill.scene.camera_path`)

``--video`` chooses another format for the film, or a PNG for each frame; ``--overwrite`` then removes older frames of
the same name too. A flag that has no meaning for what is drawn is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.cli.conversion import read_source
from gsdistill.core.errors import ConfigError
from gsdistill.core.frames import Frame
from gsdistill.core.ranges import bounded
from gsdistill.core.threads import Threads
from gsdistill.disk.write import check_folder, check_targets

if TYPE_CHECKING:
    from rich.console import Console

    from gsdistill.core.structs import Cameras

__all__ = ["Render"]

SIZE, FOV = 256, 40.0  # pixels from top to bottom, and degrees
FARTHEST = 1e9  # world units, which float32 holds

USED = {  # the flags that a kind of picture uses, of those that not all kinds use
    "camera": {"camera", "width", "fov"},
    "cameras": {"cameras", "cameras_frame", "width", "fov", "frames", "fps", "video"},
    "turntable": {"views", "elevation", "distance", "fov", "frames", "fps", "video"},
}
NAMES = {"camera": "--camera", "cameras": "--cameras", "turntable": "sheet and turntable"}


@dataclass(frozen=True)
class Render(Threads, PlainCommand):
    """Draw pictures of a splat: a contact sheet and a turntable, a still, or a film along a path of cameras."""

    source: Path = field(metadata={"positional": True})  # A splat of any format, or the folder of a run.
    # Axes of a file that does not name them: rdf (y down, as most splats), y-up, z-up, unity or world; none: as usual.
    frame: Frame | None = None
    clean: bool = False  # Leave out or mend Gaussians that are NaN, infinite or no rotation; without, they are refused.
    output: Path | None = None  # Folder of the pictures; none: next to the file, its name and -render.
    # A still in place of sheet and turntable: azimuth and elevation in degrees, and distance from the origin.
    camera: tuple[float, float, float] | None = None
    # A film in place of sheet and turntable, along the cameras of a JSON file: a list such as
    # [{"azimuth": 0, "elevation": 20, "distance": 3.2}, ...], or of viewmat, K, width and height; cameras.json of 3D
    # Gaussian Splatting and camera_path.json of nerfstudio are read too.
    cameras: Path | None = None
    cameras_frame: Frame = "world"  # Axes of the positions and matrices in the file of --cameras.
    # Pixels from top to bottom of each view; none: 256, or as the file of --cameras says.
    size: int | None = bounded(None, low=8, high=4096)
    width: int | None = bounded(None, low=8, high=4096)  # Pixels from left to right of still or path; none: as size.
    fov: float | None = bounded(None, low=0.01, below=180)  # Degrees from top to bottom; none: of --cameras, or 40.
    views: int = bounded(8, low=1, high=64)  # Pictures on the contact sheet.
    elevation: float = bounded(20.0, low=-90, high=90)  # Of the turntable's camera, degrees above the horizon.
    distance: float = bounded(3.2, above=0, high=FARTHEST)  # Of the turntable's camera from the origin, world units.
    # Pictures of a film; none: 90 of a turntable, and one for each camera of --cameras. With a number these cameras
    # are the keys of a smooth path.
    frames: int | None = bounded(None, low=1, high=10_000)
    fps: float | None = bounded(None, low=0.01, high=240)  # Frames a second; none: 30, or as --cameras says.
    # Format of the film; png: a picture for each frame; none: mp4, or with --transparent webm.
    video: Literal["mp4", "gif", "webm", "png"] | None = None
    background: tuple[float, float, float] = bounded((1.0, 1.0, 1.0), low=0, high=1)  # Red, green and blue.
    transparent: bool = False  # No background, and alpha in its place.
    overwrite: bool = False  # Replace pictures that are there.

    def __post_init__(self) -> None:
        if self.camera and self.cameras:
            raise ConfigError("camera and cameras exclude each other: a still, or a film along a path")
        kind = self.kind
        for name in sorted(set().union(*USED.values()) - USED[kind]):
            if getattr(self, name) != getattr(Render, name):
                users = " and for ".join(NAMES[other] for other in USED if name in USED[other])
                raise ConfigError(f"{name} = {getattr(self, name)} is for {users}, not for {NAMES[kind]}")
        if self.camera and not (abs(self.camera[1]) <= 90 and 0 < self.camera[2] <= FARTHEST):
            raise ConfigError(
                f"camera = {list(self.camera)}: azimuth, elevation and distance; the elevation must be from -90 to 90, "
                f"the distance greater than 0 and at most {FARTHEST:.0e}"
            )
        if self.transparent and self.background != Render.background:
            raise ConfigError(f"background = {list(self.background)} and transparent exclude each other")
        if self.transparent and self.video == "mp4":
            raise ConfigError("video = 'mp4' holds no transparent background; webm, gif and png do")

    @property
    def kind(self) -> str:
        """What is drawn, as a key of USED."""
        return "camera" if self.camera else "cameras" if self.cameras else "turntable"

    @property
    def film(self) -> str:
        """The format of the film."""
        return self.video or ("webm" if self.transparent else "mp4")

    def perform(self, console: Console) -> None:
        """Draw the pictures and write them.

        Raises:
            UserError: a file cannot be read, a film cannot have this size or speed, or pictures exist already.
        """
        from gsdistill.export.pictures import film_format, write_contact_sheet, write_film, write_stills
        from gsdistill.scene.read import splat_file

        file = splat_file(self.source)
        folder = self.output or file.with_name(f"{file.stem}-render")
        check_folder(folder)
        cameras, fps = _cameras(self)
        background = None if self.transparent else self.background
        name = {"camera": "still", "cameras": "path"}.get(self.kind, self.kind)
        sheet = [folder / "views.png"] * (self.kind == "turntable")
        single, old = [folder / "still.png"] * (self.kind == "camera"), []
        if self.video == "png":
            single = [folder / f"{name}-{place:05}.png" for place in range(len(cameras))]
            old = sorted({*folder.glob(f"{name}-{'[0-9]' * 5}.png")}.difference(single))  # of a longer film
        moving = [] if single else [folder / f"{name}.{self.film}"]
        for path in moving:
            film_format(path, cameras, fps, background)
        check_targets([*sheet, *single, *moving, *old], self.overwrite, "another --output")
        gaussians = read_source(file, self.frame, self.clean, console, "--frame")
        for path in sheet:
            look = {"elevation": self.elevation, "distance": self.distance, "fov": self.fov or FOV}
            write_contact_sheet(gaussians, path, cameras.height, self.views, background=background, **look)
        if single:
            write_stills(gaussians, cameras, single, background)
        for path in moving:
            write_film(gaussians, cameras, path, fps, background)
        for path in old:
            path.unlink(missing_ok=True)
        shown = [*sheet, *single[:1], *moving]
        more = f" and {len(single) - 1:,} more" * (len(single) > 1)
        console.print(Text("\n".join(map(str, shown)) + more), soft_wrap=True)


def _cameras(command: Render) -> tuple[Cameras, float]:
    """The cameras of the still or of the film's frames, and the frames per second."""
    import torch

    from gsdistill.scene.camera_path import Lens, read_cameras, targeted
    from gsdistill.scene.viewpoints import orbit

    c, rate = command, None
    height, fov = c.size or SIZE, c.fov or FOV
    if c.camera:
        cameras = targeted(torch.tensor([[*c.camera, fov]]), torch.zeros(1, 3), height, c.width or height)
    elif c.cameras:
        cameras, rate = read_cameras(c.cameras, Lens(c.size, c.width, c.fov), c.frames, c.cameras_frame)
    else:
        cameras = orbit(c.frames or 90, height, c.elevation, c.distance, fov)
    return cameras, c.fps or rate or 30.0
