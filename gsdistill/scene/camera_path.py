"""Cameras from a JSON file, one by one or as key cameras of a smooth path. Four kinds of files are read:

    [{"azimuth": 0, "elevation": 20, "distance": 3.2, "fov": 40, "target": [0, 0, 0]}, ...]
    [{"viewmat": 4 x 4, "K": 3 x 3, "width": 640, "height": 480}, ...]
    [{"position": [x, y, z], "rotation": 3 x 3, "fx": 500, "fy": 500, "width": 640, "height": 480}, ...]
    {"camera_path": [{"camera_to_world": 16 numbers, "fov": 50}, ...], "render_width": 640, "render_height": 480}

The first has angles in degrees as everywhere in gsdistill, distances in world units, and may leave out ``fov`` and the
``target``, the point that the camera looks at. The second has matrices in gsplat's conventions: world to camera, OpenCV
axes. The third is ``cameras.json`` of 3D Gaussian Splatting: ``rotation`` takes the camera's OpenCV axes to the world.
The fourth is ``camera_path.json`` of nerfstudio: the camera's axes are OpenGL's (x right, y up, z backwards), and
``fov`` is the angle from top to bottom, as everywhere. All cameras of a file are of one kind and one size.

Between key cameras, angles, distances, positions and intrinsics follow a monotone cubic, which does not overshoot
(F. N. Fritsch and R. E. Carlson, Monotone Piecewise Cubic Interpolation, 1980). Rotations follow a RotationSpline.
An azimuth turns the way its numbers go: from 350 to 370 by 20 degrees, from 350 to 10 by 340 degrees the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.frames import MATRICES, Frame
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras
from gsdistill.disk.read import brief, parse_any, read_text
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.settings.config import from_file, setting_fields

__all__ = ["Lens", "read_cameras", "targeted"]

Three: TypeAlias = tuple[float, float, float]
Four: TypeAlias = tuple[float, float, float, float]

LARGEST = 16384  # pixels along a side
NEAREST, FARTHEST = 1e-6, 1e9  # limits of other numbers, so that float32 holds what is computed from them
NARROWEST = 0.01  # degrees


@dataclass(frozen=True)
class Lens:
    """The size of the pictures in pixels and the field of view, where the caller chooses them."""

    height: int | None = None  # None: the file's, or 256
    width: int | None = None  # None: in the file's proportion, or the height; only for cameras of the first kind
    fov: float | None = None  # degrees from top to bottom; None: the file's, or 40; only for the first kind


@dataclass(frozen=True)
class Angles:
    """A camera of the first kind."""

    azimuth: float = bounded(low=-FARTHEST, high=FARTHEST)
    elevation: float = bounded(low=-90, high=90)
    distance: float = bounded(low=NEAREST, high=FARTHEST)
    fov: float | None = bounded(None, low=NARROWEST, below=180)
    target: Three = bounded((0.0, 0.0, 0.0), low=-FARTHEST, high=FARTHEST)


@dataclass(frozen=True)
class Matrices:
    """A camera of the second kind."""

    viewmat: tuple[Four, Four, Four, Four] = bounded(low=-FARTHEST, high=FARTHEST)
    K: tuple[Three, Three, Three] = bounded(low=-FARTHEST, high=FARTHEST)
    width: int = bounded(low=1, high=LARGEST)
    height: int = bounded(low=1, high=LARGEST)

    def __post_init__(self) -> None:
        (fx, skew, _), (other, fy, _), last = self.K
        if min(fx, fy) < NEAREST or skew or other or last != (0.0, 0.0, 1.0):
            raise ValueError("K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above 0")


@dataclass(frozen=True)
class Pose:
    """A camera of the third kind."""

    position: Three = bounded(low=-FARTHEST, high=FARTHEST)
    rotation: tuple[Three, Three, Three] = bounded(low=-2, high=2)
    fx: float = bounded(low=NEAREST, high=FARTHEST)
    fy: float = bounded(low=NEAREST, high=FARTHEST)
    width: int = bounded(low=1, high=LARGEST)
    height: int = bounded(low=1, high=LARGEST)

    def matrices(self) -> Matrices:
        """The same camera in matrices."""
        view = np.eye(4)
        view[:3, :3] = np.transpose(self.rotation)
        view[:3, 3] = -view[:3, :3] @ np.array(self.position)
        k = ((self.fx, 0.0, self.width / 2), (0.0, self.fy, self.height / 2), (0.0, 0.0, 1.0))
        return Matrices(_rows(view), k, self.width, self.height)


@dataclass(frozen=True)
class Flight:
    """A camera of the fourth kind, with the size that the file gives for all."""

    camera_to_world: tuple[float, ...] = bounded(low=-FARTHEST, high=FARTHEST)
    fov: float = bounded(low=NARROWEST, below=180)
    render_width: int = bounded(low=1, high=LARGEST)
    render_height: int = bounded(low=1, high=LARGEST)

    def __post_init__(self) -> None:
        if len(self.camera_to_world) != 16:
            raise ValueError(f"camera_to_world has {len(self.camera_to_world)} numbers; 4 rows of 4 are 16")

    def matrices(self) -> Matrices:
        """The same camera in matrices."""
        world = np.array(self.camera_to_world).reshape(4, 4)
        f = self.render_height / 2 / np.tan(np.radians(self.fov) / 2)
        rotation = _rows(world[:3, :3] * (1, -1, -1))
        return Pose(tuple(world[:3, 3].tolist()), rotation, f, f, self.render_width, self.render_height).matrices()


@dataclass(frozen=True)
class Rate:
    """The frame rate of a file of the fourth kind."""

    fps: float = bounded(low=0.01, high=240)  # frames per second


KINDS: dict[str, type] = {"azimuth": Angles, "viewmat": Matrices, "position": Pose, "camera_to_world": Flight}


def read_cameras(
    path: Path, lens: Lens = Lens(), frames: int | None = None, frame: Frame = "world"
) -> tuple[Cameras, float | None]:
    """Return the cameras of a file, or ``frames`` cameras along a path through them, and the file's frames per second.

    ``frame`` names the axes of the file's positions and matrices. The path begins at the first camera, ends at the last
    and takes equal time from each to the next. Only a file of the fourth kind may have a frame rate; None: it has none.

    Raises:
        BadFile: the file cannot be read or is of none of the four kinds. A wrong camera is named, counted from 1.
        ConfigError: the lens, ``frames`` or ``frame`` does not fit the file.
    """
    entries, cls, rate = _entries(path)
    if frames and len(entries) == 1:
        raise ConfigError(f"frames = {frames}: {path} has one camera, and a path needs two")
    if cls is Angles:
        if frame != "world":
            raise ConfigError(f"cameras_frame = '{frame}': the cameras of {path} are angles in gsdistill's own axes")
        rows = np.array([[e.azimuth, e.elevation, e.distance, lens.fov or e.fov or 40.0, *e.target] for e in entries])
        height = lens.height or 256
        keys = torch.from_numpy(_between(rows, frames) if frames else rows)
        return targeted(keys[:, :4], keys[:, 4:], height, lens.width or height), rate
    if lens.width or lens.fov:
        name = "width" if lens.width else "fov"
        raise ConfigError(f"{name} = {getattr(lens, name)}: the cameras of {path} have their own; --size scales them")
    cameras = [entry if isinstance(entry, Matrices) else entry.matrices() for entry in entries]
    return _pinholes(path, cameras, lens.height, frames, frame), rate


def targeted(angles: Float[Tensor, "B 4"], targets: Float[Tensor, "B 3"], height: int, width: int) -> Cameras:
    """Return cameras that look at ``targets`` (world units); ``height`` and ``width`` are in pixels.

    The columns of ``angles`` are azimuth and elevation (degrees), distance (world units) and the field of view from top
    to bottom (degrees). The result's ``azimuths``, ``elevations`` and ``distances`` are measured from the target.
    """
    azimuths, elevations, distances, fovs = angles.unbind(1)
    square = look_at_origin(azimuths, elevations, distances, fovs, height)
    views, lenses = square.viewmats.clone(), square.Ks.clone()
    views[:, :3, 3] -= torch.einsum("bij,bj->bi", views[:, :3, :3], targets.to(views))
    lenses[:, 0, 2] = width / 2
    return replace(square, viewmats=views, Ks=lenses, width=width)


def _entries(path: Path) -> tuple[list[Any], type, float | None]:
    """The cameras of a file as settings, their class, and the file's frames per second."""
    content = parse_any(read_text(path), str(path))
    shared: dict[str, Any] = {}
    rate = None
    if isinstance(content, dict) and "camera_path" in content:
        if content.get("camera_type", "perspective") != "perspective":
            raise BadFile(
                f"{path}: its cameras are of the type {brief(content['camera_type'])}; only perspective is read"
            )
        shared = {key: content[key] for key in ("render_width", "render_height") if key in content}
        rate = from_file(Rate, {"fps": content["fps"]}, path).fps if "fps" in content else None
        content = content["camera_path"]
    if not (isinstance(content, list) and content):
        raise BadFile(f"{path}: expected a list of cameras, or a camera_path of nerfstudio, found {brief(content)}")
    first = content[0] if isinstance(content[0], dict) else {}
    cls = next((kind for key, kind in KINDS.items() if key in first), None)
    if cls is None:
        raise BadFile(f"{path}: camera 1 = {brief(content[0])} has none of {', '.join(KINDS)}")
    fields, strict = setting_fields(cls), cls in (Angles, Matrices)
    entries = []
    for place, entry in enumerate(content, start=1):
        if isinstance(entry, dict):
            entry = {key: value for key, value in {**shared, **entry}.items() if strict or key in fields}
        entries.append(from_file(cls, entry, path, f"camera {place}"))
    return entries, cls, rate


def _pinholes(path: Path, cameras: list[Matrices], height: int | None, frames: int | None, frame: Frame) -> Cameras:
    """Cameras from matrices in the axes of ``frame``, ``height`` pixels high, or as high as the file says."""
    size = (cameras[0].width, cameras[0].height)
    axes = np.array(MATRICES[frame], dtype=np.float64)
    views = np.array([camera.viewmat for camera in cameras])
    views[:, :3, :3] = views[:, :3, :3] @ axes
    for place, (camera, view) in enumerate(zip(cameras, views, strict=True), start=1):
        if (camera.width, camera.height) != size:
            raise BadFile(
                f"{path}: camera {place} is {camera.width} x {camera.height} pixels large, the first one "
                f"{size[0]} x {size[1]}; all must be of one size"
            )
        turn = view[:3, :3]
        off = max(np.abs(turn @ turn.T - np.eye(3)).max(), np.abs(view[3] - (0, 0, 0, 1)).max())
        if off > 1e-3 or np.linalg.det(turn) < 0:
            raise BadFile(f"{path}: camera {place}: its matrix is not a rotation and translation in the axes '{frame}'")
    lenses = np.array([camera.K for camera in cameras])
    if frames:
        views, lenses = _views_between(views, frames), _between(lenses, frames)
    wide, high = size if height is None else (max(2, 2 * round(size[0] * height / size[1] / 2)), height)
    if wide > LARGEST:
        raise ConfigError(
            f"size = {height}: pictures of {path} would be {wide:,} pixels wide; {LARGEST:,} are the most"
        )
    lenses[:, 0] *= wide / size[0]
    lenses[:, 1] *= high / size[1]
    places = -np.einsum("bji,bj->bi", views[:, :3, :3], views[:, :3, 3])
    distances = np.linalg.norm(places, axis=1)
    elevations = np.degrees(np.arcsin(places[:, 2] / np.maximum(distances, 1e-12)))
    azimuths = np.degrees(np.arctan2(places[:, 1], places[:, 0]))
    tensors = (torch.from_numpy(value).float() for value in (views, lenses, azimuths, elevations, distances))
    viewmats, ks, *angles = tensors
    return Cameras(viewmats, ks, wide, high, *angles)


def _between(keys: np.ndarray, count: int) -> np.ndarray:
    """``count`` values along the first axis of ``keys``, from the first to the last."""
    from scipy.interpolate import PchipInterpolator

    with np.errstate(over="ignore"):  # in 1 / slope between keys that are nearly equal
        return PchipInterpolator(np.arange(len(keys)), keys, axis=0)(np.linspace(0.0, len(keys) - 1, count))


def _views_between(views: np.ndarray, count: int) -> np.ndarray:
    """``count`` world-to-camera matrices along the path through those of the key cameras."""
    from scipy.spatial.transform import Rotation, RotationSpline

    turns = views[:, :3, :3].transpose(0, 2, 1)
    places = _between(-np.einsum("bij,bj->bi", turns, views[:, :3, 3]), count)
    spline = RotationSpline(np.arange(len(views)), Rotation.from_matrix(turns))
    path = np.tile(np.eye(4), (count, 1, 1))
    path[:, :3, :3] = spline(np.linspace(0.0, len(views) - 1, count)).as_matrix().transpose(0, 2, 1)
    path[:, :3, 3] = -np.einsum("bij,bj->bi", path[:, :3, :3], places)
    return path


def _rows(matrix: np.ndarray) -> Any:
    return tuple(tuple(row) for row in matrix.tolist())
