"""How true the meshes of splats are: a table of figures and a sheet of pictures, splat | mesh | truth.

    python tools/readme/mesh_figures.py --output outputs/meshes

Each prompt is a run of `gsdistill generate` with --method sds and the settings of its recipe; a finished run is kept,
and folders that --runs names are only read.
Its splat becomes a textured .glb, which is read back. Distances are in world units: mesh to truth is the mean of |d|
over points spread evenly on the mesh, d the object's signed distance; truth to mesh the mean distance of points spread
evenly on the object to the nearest of 200,000 points of the mesh; chamfer the mean of the two. The splat's own figures
(gsdistill/evaluation/surface.py) measure the means of its Gaussians, which lie under the surface, and not the surface.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from scipy.spatial import KDTree

from gsdistill.cli.flags import settings_of
from gsdistill.core.device import processor
from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.disk.places import slug
from gsdistill.disk.write import write_json
from gsdistill.evaluation.references import surface_points, truth_of_prompt
from gsdistill.evaluation.surface import centres
from gsdistill.export.pictures import shots
from gsdistill.generate import run
from gsdistill.mesh.settings import MeshSettings
from gsdistill.mesh.write import write_mesh
from gsdistill.run.config import resolve
from gsdistill.scene.mesh import read_mesh
from gsdistill.scene.read import read_splat
from gsdistill.scene.surface import sample_surface
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.worlds.base import Thing, paint, world_named
from gsdistill.worlds.shapes.captions import parse
from gsdistill.worlds.shapes.raycast import trace
from gsdistill.worlds.shapes.solids import distances
from gsdistill.worlds.shapes.world import build

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("a green chair", "a purple torus", "an orange mug", "a pink table", "a yellow star", "a green sphere")
SIDE, ANGLES = 192, ((35.0, 25.0), (215.0, 40.0))


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    # folder of the runs, the meshes and sheet.png
    output: Path
    # file of the figures
    json: Path = ROOT / "tools" / "readme" / "results" / "mesh.json"
    # objects of the shapes world
    prompts: tuple[str, ...] = PROMPTS
    # folders of finished runs, one for each prompt; none: they are made
    runs: tuple[Path, ...] = ()
    # of the meshes
    mesh: MeshSettings = field(default_factory=MeshSettings)


def splat_of(settings: Settings, number: int) -> Gaussians:
    """The splat of a prompt, whose run is done first unless it is there or named."""
    if settings.runs:
        return read_splat(settings.runs[number])
    prompt = settings.prompts[number]
    folder = settings.output / slug(prompt)
    if not (folder / "gaussians.ply").is_file():
        config = resolve({"prompt": prompt, "method": "sds", "prior": "shapes", "seed": 0})
        run(dataclasses.replace(config, output=folder, overwrite=True), Console(quiet=True), extras=False)
    return read_splat(folder)


def chamfer(path: Path, things: tuple[Thing, ...]) -> dict[str, float]:
    """Distances between the mesh in a file of our world's axes and the object, both ways."""
    corners = torch.cat([part.corners for part in read_mesh(path)])
    points = sample_surface(corners, 200_000, torch.Generator().manual_seed(0)).of(corners).numpy()
    there = np.abs(distances(build(things).parts, points)).mean()
    back = (
        KDTree(points)
        .query(surface_points(world_named("shapes"), tuple(thing.shape for thing in things)).numpy())[0]
        .mean()
    )
    return {"mesh_to_truth": float(there), "truth_to_mesh": float(back), "chamfer": float(0.5 * (there + back))}


def picture(path: Path, cameras: Cameras) -> list[np.ndarray]:
    """Pictures of a mesh on white: two million of its points, the nearest of each pixel; seen from inside, magenta."""
    (part,) = read_mesh(path)
    points = sample_surface(part.corners, 2_000_000, torch.Generator().manual_seed(0))
    places, colours = points.of(part.corners), part.paint(points)
    a, b, c = part.corners.unbind(dim=1)
    normals = torch.linalg.cross(b - a, c - a)[points.faces]
    out = []
    for view, k in zip(cameras.viewmats.double(), cameras.Ks.double(), strict=True):
        seen = places @ view[:3, :3].T + view[:3, 3]
        x, y = (seen[:, axis] * k[0, 0] / seen[:, 2] + k[axis, 2] for axis in (0, 1))
        towards = (normals * (-view[:3, :3].T @ view[:3, 3] - places)).sum(dim=1) > 0
        shown = torch.where(towards[:, None], colours, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
        order = seen[:, 2].argsort(descending=True).numpy()
        image = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
        rows, columns = (axis.long().clamp(0, SIDE - 1).numpy()[order] for axis in (y, x))
        image[rows, columns] = shown.mul(255).round().byte().numpy()[order]
        out.append(image)
    return out


def row_of(gaussians: Gaussians, path: Path, things: tuple[Thing, ...]) -> np.ndarray:
    """Splat, mesh and truth from two sides."""
    azimuths, elevations = torch.tensor(ANGLES).T
    ones = torch.ones(len(ANGLES))
    cameras = look_at_origin(azimuths, elevations, 3.0 * ones, 40.0 * ones, SIDE)
    world = build(things)
    true, _ = paint(trace(world.parts, cameras), torch.from_numpy(world.colors), torch.ones(len(ANGLES), 3))
    truths = true.clamp(0, 1).mul(255).round().byte().numpy()
    columns = zip(shots(gaussians, cameras, (1.0, 1.0, 1.0)), picture(path, cameras), truths, strict=True)
    return np.concatenate([image for column in columns for image in column], axis=1)


def main(settings: Settings) -> None:
    """Do the runs and the meshes, then print the table."""
    if settings.runs and len(settings.runs) != len(settings.prompts):
        raise SystemExit(f"--runs names {len(settings.runs)} folders for {len(settings.prompts)} prompts")
    rows, sheet = {}, []
    print("| prompt | mesh to truth | truth to mesh | Chamfer | splat's | closed | parts | faces | KB | seconds |")
    print("|---" * 10 + "|")
    for number, prompt in enumerate(settings.prompts):
        gaussians, things = splat_of(settings, number), parse(prompt)
        path = settings.output / f"{slug(prompt)}.glb"
        figures = dataclasses.asdict(write_mesh(gaussians, path, settings.mesh, frame="world"))
        figures |= {"bytes": path.stat().st_size, "gaussians": len(gaussians)} | chamfer(path, things)
        figures["splat_chamfer"] = centres(gaussians, truth_of_prompt(prompt).surface)["centre_chamfer"]
        lengths = [figures[name] for name in ("mesh_to_truth", "truth_to_mesh", "chamfer", "splat_chamfer")]
        cells = [prompt, *(f"{value:.4f}" for value in lengths), "yes" if figures["watertight"] else "no"]
        cells += [f"{figures['parts']}", f"{figures['faces']}", f"{figures['bytes'] / 1000:.0f}"]
        print(f"| {' | '.join(cells)} | {figures['seconds']:.1f} |", flush=True)
        rows[prompt] = figures
        sheet.append(row_of(gaussians, path, things))
    told = {"processor": processor(), "settings": dataclasses.asdict(settings.mesh), "meshes": rows}
    write_json(settings.json, told)
    Image.fromarray(np.concatenate(sheet)).save(settings.output / "sheet.png")


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "mesh_figures.py"))
