"""What a splat is held against: pictures, a surface and distances of an object of the shapes world, a mesh or a splat.

Nothing is aligned: the truth stands as it is in the axes and the size of our world, inside the unit ball around the
origin, +z up, its front towards +x; what lies beyond the cameras' view is cut off.

* An object of a world is drawn by that; its signed distance function is exact, and its surface is sampled evenly.
* A mesh is drawn in its own colours without light, as splats hold them; a splat by the same renderer as ours.

Of the last two the surface is what the cameras see of it, a point for every pixel, and the distance of a point is that
to the nearest of these, which are about 0.02 apart. Inside and outside are not known there, and neither is a name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, tell
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Cameras, Gaussians, on_processor
from gsdistill.evaluation.views import Pictures, held_out, photograph, truth, unseen
from gsdistill.mesh.photographs import reach
from gsdistill.scene.extent import weighted_quantile
from gsdistill.scene.mesh import SUFFIXES, Part, read_mesh
from gsdistill.scene.ply import read_vertices
from gsdistill.scene.read import EXTENSIONS, is_ply, may_be_splat, open_splat, splat_file
from gsdistill.scene.turn import frame_matrix
from gsdistill.worlds.base import Layout, Thing, World, world_named

__all__ = [
    "Truth",
    "nearest_of",
    "of_file",
    "of_prompt",
    "radius",
    "seen_points",
    "surface_points",
]

IN_VIEW = 1.09  # 3.2 sin 20 degrees: how far from the origin the cameras see all around
ALIKE = 1.5  # how many times as large the truth may be as the splat, or the reverse, before it is told
MOST = 0.995  # share of the opacity within a splat's radius; the rest may be floaters
CUBE = 0.06  # side of the cubes of far points, by the mean of their reach and distance
Y_UP = (".glb", ".gltf", ".obj")

Distance = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]


@dataclass(frozen=True)
class Truth:
    """What is compared with; in world axes and units."""

    seen: Pictures  # from the held-out cameras
    unseen: Pictures  # from the unseen cameras
    points: Float[Tensor, "M 3"]  # on the surface, float64
    distance: Distance  # of points, float64, from the surface
    signed: bool  # whether it is negative inside
    things: tuple[Thing, ...] = ()  # the object, where it is one of a world
    world: World | None = None


def of_prompt(prompt: str, world: World | None = None) -> Truth:
    """The object that ``prompt`` names in a world, if none in that of shapes.

    Raises:
        PromptError: the prompt is not one of the world, so its object is not known.
    """
    world = world or world_named("shapes")
    things = world.known(prompt)
    layout = tuple(thing.shape for thing in things)
    seen, below = truth(world, things, held_out()), truth(world, things, unseen())
    distance = functools.partial(world.distance, layout)
    return Truth(seen, below, surface_points(world, layout), distance, signed=True, things=things, world=world)


def of_file(path: Path, frame: Frame | None = None, beside: Gaussians | None = None) -> Truth:
    """A mesh (.glb .gltf .obj .ply .stl .off), a splat of any format, or that of a run's folder.

    ``frame`` names the axes of a file that does not name them itself: y-up for .glb, .gltf and .obj, and our world's
    for others, if none. Where it is much larger or smaller than the splat ``beside``, or than the view of the cameras,
    that is told.

    Raises:
        BadFile: it is neither, it is broken, or no camera sees it.
    """
    path = splat_file(path)
    if splat := _splat(path, frame):
        extent, draw = radius(splat), lambda cameras: photograph(splat, cameras)
    elif path.suffix.lower() not in SUFFIXES:
        raise BadFile(f"{path}: a truth is a splat ({', '.join(EXTENSIONS)}) or a mesh ({', '.join(SUFFIXES)})")
    else:
        if frame is None:
            tell(f"{path}: its axes are taken to be {_usual(path)}, as is usual; --truth-frame is for others")
        parts = [_turned(part, frame_matrix(frame or _usual(path))) for part in read_mesh(path)]
        extent = float(torch.cat([part.corners for part in parts]).norm(dim=-1).max())
        draw = functools.partial(_drawn, parts)
    made = seen_truth(draw)
    if not len(made.points):
        raise BadFile(
            f"{path}: no camera sees it; it reaches {extent:.3g} from the origin, and must fill the unit ball there"
        )
    if extent > IN_VIEW:
        tell(
            f"{path}: reaches {extent:.3g} from the origin, and the cameras see {IN_VIEW}: what lies beyond is cut "
            "off; nothing is scaled or moved"
        )
    if beside is not None and not 1 / ALIKE < (ours := radius(beside)) / extent < ALIKE:
        tell(
            f"{path}: reaches {extent:.3g} from the origin, the splat {ours:.3g}; nothing is aligned, both must have "
            "the size, the place and the axes of the same world"
        )
    return made


def seen_truth(draw: Callable[[Cameras], Pictures]) -> Truth:
    """The truth that pictures with depth are."""
    seen, below = draw(held_out()), draw(unseen())
    points = seen_points(seen, below)
    return Truth(seen, below, points, functools.partial(nearest_of, points), signed=False)


def seen_points(seen: Pictures, below: Pictures) -> Float[Tensor, "M 3"]:
    """Where the middles of all pixels in the silhouettes lie, by their depth, world units, float64.

    ``seen`` are pictures from the held-out cameras, ``below`` from the unseen ones.
    """
    return torch.cat([_lifted(seen, held_out()), _lifted(below, unseen())])


def nearest_of(targets: Float[Tensor, "M 3"], points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """The distance of each point to the nearest of ``targets``, of which there is one at least.

    For points that all lie far away a tree has to look at most targets for each of them. There points within r of their
    middle, d or more away, are taken together in cubes of side h = 0.06 sqrt(r d), and only those targets count that
    are nearest to the mean of a cube. Around a sphere about the middle, the worst case, that is too far by
    h^2 / 4 r, some 0.001 d, and less in the mean.
    """
    from scipy.spatial import KDTree

    tree, ours = KDTree(targets.double().numpy()), points.double().numpy()
    if not len(ours):
        return torch.zeros(0, dtype=torch.float64)
    middle = (ours.min(0) + ours.max(0)) / 2
    reach = np.linalg.norm(ours - middle, axis=1).max()
    apart = tree.query(middle)[0] - reach
    if apart > reach > 0:
        cubes = np.floor((ours - middle) / (CUBE * np.sqrt(reach * apart)))
        of = np.unique(cubes, axis=0, return_inverse=True)[1].reshape(-1)
        means = np.stack([np.bincount(of, column) for column in ours.T], axis=1) / np.bincount(of)[:, None]
        tree = KDTree(targets.double().numpy()[np.unique(tree.query(means)[1])])
    return torch.from_numpy(tree.query(ours)[0])


@functools.lru_cache(maxsize=8)
def surface_points(world: World, layout: Layout, count: int = 4096, seed: int = 0) -> Float[Tensor, "M 3"]:
    """``count`` points on the true surface, nearly even by area."""
    return world.surface(layout, count, np.random.default_rng(seed))


def radius(gaussians: Gaussians) -> float:
    """How far from the origin what can be seen of a splat reaches, but for the farthest half a percent of opacity."""
    far = reach(gaussians)
    away = torch.where(far > 0, gaussians.means.double().norm(dim=1) + far, 0.0)
    shown = torch.where(far > 0, torch.sigmoid(gaussians.opacities.double()), 0.0)
    return float(weighted_quantile(away, shown, MOST))


def _lifted(pictures: Pictures, cameras: Cameras) -> Float[Tensor, "M 3"]:
    if pictures.depth is None:
        raise ValueError("pictures without depth")
    views, ks = cameras.viewmats.double(), cameras.Ks.double()
    b, row, column = torch.nonzero(pictures.silhouettes & pictures.depth[..., 0].isfinite(), as_tuple=True)
    z = pictures.depth[b, row, column, 0].double()
    x = (column + 0.5 - ks[b, 0, 2]) / ks[b, 0, 0] * z
    y = (row + 0.5 - ks[b, 1, 2]) / ks[b, 1, 1] * z
    local = torch.stack([x, y, z], dim=-1) - views[b, :3, 3]
    return torch.einsum("nji,nj->ni", views[b, :3, :3], local)


def _drawn(parts: list[Part], cameras: Cameras) -> Pictures:
    from gsdistill.mesh.zbuffer import draw

    return Pictures(**vars(draw(parts, cameras)))


def _splat(path: Path, frame: Frame | None) -> Gaussians | None:
    """The splat in a file; None where it holds none."""
    if is_ply(path):
        splat = bool({"opacity", "packed_position"} & read_vertices(path).columns.keys())
    else:
        splat = may_be_splat(path)
    return on_processor(open_splat(path).resolve(frame, "--truth-frame")) if splat else None


def _usual(path: Path) -> Frame:
    """The axes that meshes of this suffix have where nobody says otherwise."""
    return "y-up" if path.suffix.lower() in Y_UP else "world"


def _turned(part: Part, matrix: Float[Tensor, "3 3"]) -> Part:
    return Part(part.corners @ matrix, part.paint)
