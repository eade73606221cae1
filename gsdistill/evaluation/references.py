"""Truths to compare a splat with: pictures, surface and distances of an object of a world, of a mesh, or of a splat.

Nothing is aligned: the truth must have the axes and the size of our world, inside the unit ball around the origin, +z
up, its front towards +x. What lies outside of the cameras' view is cut off.

* The world draws its object; the signed distance function is exact, and the surface is sampled evenly.
* A mesh is drawn in its own colours without light, for splats hold such colours. A splat is drawn by our renderer.

The surface of a mesh or a splat is what the cameras see of it: a point for every pixel, about 0.02 apart. The distance
of a point is that to the nearest of these. Neither inside and outside nor a name are known for such a truth.
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
from torch.nn.functional import avg_pool2d

from gsdistill.core.errors import BadFile, PromptError, tell
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Cameras, Gaussians, on_processor
from gsdistill.evaluation.views import SIZE, Pictures, held_out, photograph, truth, unseen
from gsdistill.mesh.photographs import reach
from gsdistill.scene.extent import weighted_quantile
from gsdistill.scene.mesh import SUFFIXES, Part, read_mesh
from gsdistill.scene.ply import read_vertices
from gsdistill.scene.read import EXTENSIONS, is_ply, may_be_splat, open_splat, splat_file
from gsdistill.scene.turn import frame_matrix
from gsdistill.worlds.base import Layout, Thing, World, world_named

__all__ = [
    "Surface",
    "Truth",
    "nearest_of",
    "radius",
    "read_truth",
    "seen_points",
    "surface_points",
    "truth_of_layout",
    "truth_of_prompt",
    "world_that_knows",
]

IN_VIEW = 1.09  # 3.2 sin 20 degrees: radius of the ball around the origin that every camera sees whole
ALIKE = 1.5  # largest ratio of the sizes of truth and splat that needs no Notice
MOST = 0.995  # share of the opacity within a splat's radius; the rest may be floaters
CUBE = 0.06  # side of the cubes of far points, over the geometric mean of their radius and their distance
Y_UP = (".glb", ".gltf", ".obj")

Distance = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]


@dataclass(frozen=True)
class Truth:
    """What a splat is compared with, in world axes and units."""

    seen: Pictures  # from the held-out cameras
    unseen: Pictures  # from the unseen cameras
    surface: Surface | None  # None: only pictures are known
    things: tuple[Thing, ...] = ()  # the object, if it is one of a world
    world: World | None = None
    layout: Layout = ()  # which of those that the things may mean

    def nearest_to(self, ours: Pictures) -> Truth:
        """The one of all that the things may mean which is nearest to pictures from the held-out cameras."""
        if self.world is None or len(layouts := self.world.meant(self.things)) == 1:
            return self
        world, small = self.world, held_out(SIZE // 4)
        body = avg_pool2d(ours.over_white.movedim(-1, 1), 4).movedim(1, -1)

        def error(layout: Layout) -> float:
            return float((truth(world, self.things, small, layout).over_white - body).square().mean())

        return truth_of_layout(world, self.things, min(layouts, key=error))


@dataclass(frozen=True)
class Surface:
    """A surface, by points on it and by the distance from it."""

    points: Float[Tensor, "M 3"]  # float64
    distance: Distance  # of points, float64
    signed: bool  # whether the distance is negative inside


def truth_of_prompt(prompt: str, world: World | str | None = None) -> Truth:
    """The object that ``prompt`` names in ``world``, or in the world of that name; None: that which knows the prompt.

    Where the prompt may mean several, it is the first; :meth:`Truth.nearest_to` chooses.

    Raises:
        PromptError: the prompt is not one of the world, so its object is not known. ConfigError: an unknown world.
    """
    world = world_that_knows(prompt) if world is None else world_named(world) if isinstance(world, str) else world
    things = world.known(prompt)
    return truth_of_layout(world, things, world.meant(things)[0])


def world_that_knows(prompt: str) -> World:
    """The world of everyday objects if it knows what a prompt names; but that of shapes for solids alone.

    So "a chair" is an object, and "a red torus" or "a red pyramid on a blue table", which no object is, are solids.

    Raises:
        PromptError: neither knows it; what the world of objects answers.
    """
    objects, shapes = world_named("objects"), world_named("shapes")
    refused: PromptError | None = None
    try:
        if objects.drawn_from(objects.meant(objects.parse(prompt))[0]):
            return objects
    except PromptError as error:
        refused = error
    try:
        shapes.parse(prompt)
    except PromptError:
        if refused is None:
            return objects  # a solid in a colour that is of this world alone
        objects.known(prompt)
    return shapes


def truth_of_layout(world: World, things: tuple[Thing, ...], layout: Layout) -> Truth:
    """One of the objects that ``things`` may mean."""
    seen, below = (truth(world, things, cameras, layout) for cameras in (held_out(), unseen()))
    surface = None
    if world.is_measurable(layout):
        distance = functools.partial(world.distance, layout)
        surface = Surface(surface_points(world, layout), distance, world.is_closed(layout))
    return Truth(seen, below, surface, things, world, layout)


def read_truth(path: Path, frame: Frame | None = None, beside: Gaussians | None = None) -> Truth:
    """Read a mesh (.glb .gltf .obj .ply .stl .off), a splat of any format, or the splat in the folder of a run.

    ``frame`` names the axes of a file that does not name them itself. Without it the axes of a mesh are y-up for .glb,
    .gltf and .obj, and our world's for others. A Notice says so where the truth is 1.5 times as large as the splat
    ``beside`` or the reverse, or where it is too large for the cameras.

    Raises:
        BadFile: it is neither, it is broken, or no camera sees it.
    """
    path = splat_file(path)
    if splat := _read_splat(path, frame):
        extent, draw = radius(splat), lambda cameras: photograph(splat, cameras)
    elif path.suffix.lower() not in SUFFIXES:
        raise BadFile(f"{path}: a truth is a splat ({', '.join(EXTENSIONS)}) or a mesh ({', '.join(SUFFIXES)})")
    else:
        if frame is None:
            tell(f"{path}: its axes are assumed to be {_usual(path)}, as is usual; --truth-frame names others")
        parts = [_turned(part, frame_matrix(frame or _usual(path))) for part in read_mesh(path)]
        extent = float(torch.cat([part.corners for part in parts]).norm(dim=-1).max())
        draw = functools.partial(_draw, parts)
    truth = seen_truth(draw)
    if truth.surface is None:
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
    return truth


def seen_truth(draw: Callable[[Cameras], Pictures]) -> Truth:
    """A truth of which only pictures with depth are known; ``draw`` makes them. No camera sees it: no surface."""
    seen, below = draw(held_out()), draw(unseen())
    points = seen_points(seen, below)
    surface = Surface(points, functools.partial(nearest_of, points), signed=False) if len(points) else None
    return Truth(seen, below, surface)


def seen_points(seen: Pictures, below: Pictures) -> Float[Tensor, "M 3"]:
    """The surface points that the middles of all pixels in the silhouettes show, by depth, world units, float64.

    ``seen`` are pictures from the held-out cameras, ``below`` from the unseen ones.

    Raises:
        ValueError: the pictures have no depth.
    """
    return torch.cat([_lifted(seen, held_out()), _lifted(below, unseen())])


def nearest_of(targets: Float[Tensor, "M 3"], points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """The distance of each point to the nearest of ``targets``, at least one; float64, in the units of both.

    For points that all lie far away, a search tree would visit nearly every target for each of them. So points within r
    of their middle and at least d from the targets, d > r, are put into cubes of side h = 0.06 sqrt(r d), and only
    those targets are searched that are nearest to the mean point of a cube. In the worst case, targets on a sphere
    about the middle, this makes a distance too large by h^2 / 4 r, about 0.001 d, and the mean by less.
    """
    from scipy.spatial import KDTree

    tree, ours = KDTree(targets.double().numpy()), points.double().numpy()
    if not len(ours):
        return torch.zeros(0, dtype=torch.float64)
    middle = (ours.min(0) + ours.max(0)) / 2
    reach = np.linalg.norm(ours - middle, axis=1).max()
    apart = tree.query(middle)[0] - reach
    if apart > reach > 0:
        corners = np.floor((ours - middle) / (CUBE * np.sqrt(reach * apart)))
        cube = np.unique(corners, axis=0, return_inverse=True)[1].reshape(-1)
        means = np.stack([np.bincount(cube, column) for column in ours.T], axis=1) / np.bincount(cube)[:, None]
        tree = KDTree(tree.data[np.unique(tree.query(means)[1])])
    return torch.from_numpy(tree.query(ours)[0])


@functools.lru_cache(maxsize=8)
def surface_points(world: World, layout: Layout, count: int = 4096, seed: int = 0) -> Float[Tensor, "M 3"]:
    """``count`` points on the true surface, nearly even by area, world units, float64."""
    return world.surface(layout, count, np.random.default_rng(seed))


def radius(gaussians: Gaussians) -> float:
    """Distance from the origin that the visible splat reaches, without the farthest 0.5 % of opacity; world units."""
    sizes = reach(gaussians)
    away = torch.where(sizes > 0, gaussians.means.double().norm(dim=1) + sizes, 0.0)
    shown = torch.where(sizes > 0, torch.sigmoid(gaussians.opacities.double()), 0.0)
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


def _draw(parts: list[Part], cameras: Cameras) -> Pictures:
    from gsdistill.mesh.zbuffer import draw

    return Pictures(**vars(draw(parts, cameras)))


def _read_splat(path: Path, frame: Frame | None) -> Gaussians | None:
    """The splat in a file; None where the file holds none."""
    if is_ply(path):
        holds_splat = bool({"opacity", "packed_position"} & read_vertices(path).columns.keys())
    else:
        holds_splat = may_be_splat(path)
    return on_processor(open_splat(path).resolve(frame, "--truth-frame")) if holds_splat else None


def _usual(path: Path) -> Frame:
    """The axes that meshes of this suffix usually have."""
    return "y-up" if path.suffix.lower() in Y_UP else "world"


def _turned(part: Part, matrix: Float[Tensor, "3 3"]) -> Part:
    return Part(part.corners @ matrix, part.paint)
