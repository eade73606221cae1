"""From a splat to the file of a mesh: .glb, or .obj with its .mtl and .png."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.core.extras import require
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians, on_processor
from gsdistill.disk.write import atomic_path
from gsdistill.mesh.atlas import filled, texels, unfolded
from gsdistill.mesh.encode import Model, encoded, material_name
from gsdistill.mesh.paint import colours
from gsdistill.mesh.photographs import Photographs, centred, photograph
from gsdistill.mesh.settings import MeshSettings
from gsdistill.mesh.solid import Surface, surface
from gsdistill.scene.extent import UnitBall
from gsdistill.scene.turn import frame_matrix

__all__ = ["EXTENSIONS", "MeshFigures", "check", "companions", "write_mesh"]

EXTENSIONS = (".glb", ".obj")
AXES: Frame = "y-up"  # those of glTF by its specification, and of OBJ by custom
SHARPEST = 512  # largest side of a photograph, pixels


@dataclass(frozen=True)
class MeshFigures:
    """Figures of a mesh, without the extra vertices along the cuts of its texture; in the scene's units."""

    vertices: int
    faces: int
    parts: int
    watertight: bool
    area: float
    volume: float
    texture: int | None  # pixels of its side; None: colours at the vertices
    seconds: float


def check(path: Path | str) -> None:
    """Refuse a path to which no mesh can be written.

    Raises:
        ConfigError: its extension is not .glb or .obj.
        NotInstalled: a package of the extra `mesh` is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in EXTENSIONS:
        hint = did_you_mean(suffix, EXTENSIONS)
        raise ConfigError(f"'{path}' names no format of a mesh.{hint} Allowed: {', '.join(EXTENSIONS)}")
    require("mesh", "writing a mesh")


def companions(path: Path | str, settings: MeshSettings) -> tuple[Path, ...]:
    """The files that :func:`write_mesh` writes beside ``path``: the material and the picture of a textured .obj."""
    path = Path(path)
    textured = path.suffix.lower() == ".obj" and settings.texture is not None
    return tuple(path.with_name(f"{material_name(path)}{suffix}") for suffix in (".mtl", ".png")) if textured else ()


def write_mesh(
    gaussians: Gaussians, path: Path | str, settings: MeshSettings, frame: Frame | None = None
) -> MeshFigures:
    """Write the mesh of a scene in world axes to ``path``, and a textured .obj's other files beside it.

    ``frame`` names the axes of the file; None is y-up. If they mirror the world, the order of the triangles' corners is
    reversed, so that the outside remains the outside. All files are written before any is renamed, ``path`` last.

    Raises:
        ConfigError, NotInstalled: as :func:`check`.
        OutputError: there is nothing to mesh, the texture is too small, or a file cannot be written.
    """
    check(path)
    started = time.perf_counter()
    scene, ball = centred(on_processor(gaussians))
    photographs = photograph(scene, min(3 * settings.resolution, SHARPEST))
    shape = surface(scene, photographs, settings, ball)
    model = _model(shape, photographs, settings.texture)
    _write(encoded(_placed(model, ball, frame or AXES), Path(path)), Path(path))
    return _figures(shape, ball, settings.texture, time.perf_counter() - started)


def _model(shape: Surface, photographs: Photographs, side: int | None) -> Model:
    """Colour a surface, at its vertices or by a picture of ``side`` texels."""
    normals = _normals(shape)
    at_vertices = colours(photographs, shape.vertices, normals)
    if side is None:
        return Model(shape.vertices, normals, shape.faces, at_vertices)
    atlas = unfolded(shape, side)
    pixels = texels(atlas, side)
    points, outward = (
        pixels.places.of(values[atlas.origin][atlas.faces].double()).float() for values in (shape.vertices, normals)
    )
    picture = filled(pixels, colours(photographs, points, torch.nn.functional.normalize(outward, dim=-1)), side)
    vertices, outward, plain = (values[atlas.origin] for values in (shape.vertices, normals, at_vertices))
    return Model(vertices, outward, atlas.faces, plain, atlas.uv, picture)


def _normals(shape: Surface) -> Float[Tensor, "V 3"]:
    """Outward unit normals at the vertices: the means of the triangles' normals, weighted by area."""
    a, b, c = shape.vertices[shape.faces].unbind(dim=1)
    normals = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(shape.vertices).index_add(0, shape.faces.flatten(), normals.repeat_interleave(3, dim=0))
    return torch.nn.functional.normalize(summed, dim=-1)


def _placed(model: Model, ball: UnitBall, frame: Frame) -> Model:
    """The model moved from the unit ball to its place in the scene, in the axes of ``frame``."""
    matrix = frame_matrix(frame)
    mirrored = float(torch.linalg.det(matrix)) < 0
    return replace(
        model,
        vertices=(ball.to_world(model.vertices) @ matrix.T).float(),
        normals=(model.normals.double() @ matrix.T).float(),
        faces=model.faces.flip(1) if mirrored else model.faces,
    )


def _write(files: Mapping[Path, bytes], path: Path) -> None:
    """Write all files under temporary names, then rename them one by one, ``path`` last."""
    with ExitStack() as stack:
        order = [path, *(name for name in files if name != path)]
        drafts = {name: stack.enter_context(atomic_path(name)) for name in order}
        for name, data in files.items():
            drafts[name].write_bytes(data)


def _figures(shape: Surface, ball: UnitBall, side: int | None, seconds: float) -> MeshFigures:
    import trimesh

    mesh = trimesh.Trimesh(ball.to_world(shape.vertices).numpy(), shape.faces.numpy(), process=False)
    return MeshFigures(
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        parts=int(mesh.body_count),
        watertight=bool(mesh.is_watertight),
        area=float(mesh.area),
        volume=float(mesh.volume),
        texture=side,
        seconds=seconds,
    )
