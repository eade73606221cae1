"""A coloured mesh as the bytes of its files, written by trimesh.

glb: one mesh with an sRGB texture or linear vertex colours, as glTF 2.0 demands (section 3.9.2). The colours of a splat
include light, so the material is unlit (KHR_materials_unlit); readers without that extension fall back to a rough,
non-metallic one. obj: a .png, which the .mtl names (map_Kd), or colours after the coordinates of the vertices, both in
sRGB. The material of a texture is unlit (illum 0), and without gloss for readers that light it nevertheless.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.scene.surface import to_linear

if TYPE_CHECKING:
    import trimesh

__all__ = ["Model", "encoded", "material_name"]

UNLIT = "KHR_materials_unlit"


@dataclass(frozen=True)
class Model:
    """A mesh in the axes of its file, coloured at its vertices or, with ``uv``, by a picture."""

    vertices: Float[Tensor, "V 3"]
    normals: Float[Tensor, "V 3"]  # outward, of length one
    faces: Int[Tensor, "F 3"]  # counter-clockwise seen from outside
    colours: Float[Tensor, "V 3"]  # sRGB, 0..1
    uv: Float[Tensor, "V 2"] | None = None  # u to the right, v up
    picture: NDArray[np.uint8] | None = None  # [side, side, 3], sRGB


def encoded(model: Model, path: Path) -> dict[Path, bytes]:
    """The content of each file to write, ``path`` last; its extension is .glb or .obj."""
    return {path: _glb(model)} if path.suffix.lower() == ".glb" else _obj(model, path)


def material_name(path: Path) -> str:
    """The name of the material, the .mtl and the .png of an .obj: its own name, made safe for all readers.

    Characters at which some readers end a name, such as spaces and "#", become dashes. Dashes at the start are removed,
    because there they begin an option of map_Kd.
    """
    return re.sub(r"[^\w.-]+", "-", path.stem).strip("-") or "mesh"


def _glb(model: Model) -> bytes:
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual.material import PBRMaterial

    def mark(tree: dict[str, Any]) -> None:
        """Make the material unlit; add one for vertex colours, which have none."""
        plain = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}
        (material,) = tree.setdefault("materials", [plain])
        material["extensions"] = {UNLIT: {}}
        tree["meshes"][0]["primitives"][0]["material"] = 0
        tree["extensionsUsed"] = [UNLIT]

    material = PBRMaterial(baseColorTexture=_image(model), metallicFactor=0.0, roughnessFactor=1.0)
    mesh = _trimesh(model, material, to_linear(model.colours))
    return export_glb(mesh, include_normals=True, tree_postprocessor=mark)


def _obj(model: Model, path: Path) -> dict[Path, bytes]:
    from trimesh.exchange.obj import export_obj
    from trimesh.visual.material import SimpleMaterial

    name, white, black = material_name(path), [255, 255, 255], [0, 0, 0]
    material = SimpleMaterial(image=_image(model), name=name, diffuse=white, ambient=white, specular=black)
    mesh = _trimesh(model, material, model.colours)
    mtl = f"{name}.mtl"
    text, beside = export_obj(mesh, include_normals=True, return_texture=True, mtl_name=mtl, header="gsdistill")
    if mtl in beside:
        beside[mtl] += b"\nillum 0\n"
    return {**{path.with_name(name): data for name, data in beside.items()}, path: text.encode()}


def _trimesh(model: Model, material: Any, colours: Float[Tensor, "V 3"]) -> trimesh.Trimesh:
    import trimesh
    from trimesh.visual import ColorVisuals, TextureVisuals

    mesh = trimesh.Trimesh(
        model.vertices.numpy(), model.faces.numpy(), vertex_normals=model.normals.numpy(), process=False
    )
    if model.uv is not None:
        mesh.visual = TextureVisuals(uv=model.uv.numpy(), material=material)
    else:
        mesh.visual = ColorVisuals(mesh, vertex_colors=colours.mul(255.0).round().to(torch.uint8).numpy())
    return mesh


def _image(model: Model) -> Any:
    from PIL import Image

    return None if model.picture is None else Image.fromarray(model.picture)
