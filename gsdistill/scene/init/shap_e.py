"""Shap-E: a model from text to shape says where to start, with points on the surface that it makes.

Source: H. Jun and A. Nichol, Shap-E: Generating Conditional 3D Implicit Functions, arXiv 2305.02463. A diffusion model
draws the weights of a small network from the prompt; that network gives the signed distance and the colour at every
place in a cube. Marching cubes on ``grid`` places along each side give triangles, as diffusers' ``ShapEPipeline`` does.

Shap-E's axes have +z up, and its own cameras begin at -y, which we take as the front: (x, y, z) becomes (-y, x, z).
Colours at the corners are linear light. The model has 0.3 billion parameters and is made for an accelerator.
The points are kept on disk, so that the next run with the same prompt, seed and settings starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ModelNotFound, PromptError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import PointCloud
from gsdistill.disk.paths import may_be_path
from gsdistill.models.catalogue import is_hub_id, refuse_mistyped
from gsdistill.models.fingerprint import fingerprint
from gsdistill.models.hub import Need, fetch
from gsdistill.models.layout import check_weights, lack, listing
from gsdistill.models.load import load_model, load_part
from gsdistill.scene import clouds
from gsdistill.scene.init.base import SurfaceInitialiser, draw_seed
from gsdistill.scene.surface import sample_surface, to_srgb

__all__ = ["ShapE"]

PARTS = ("prior", "text_encoder", "tokenizer", "scheduler", "shap_e_renderer")


@dataclass(frozen=True, kw_only=True)
class ShapE(SurfaceInitialiser):
    """Settings of the Shap-E initialiser."""

    # a hub id, or a folder in the diffusers layout
    model: str = field(default="openai/shap-e", metadata=may_be_path())
    guidance_scale: float = bounded(15.0, low=1)  # omega; 1: no guidance
    steps: int = bounded(64, low=1, high=1_000)  # of the sampler
    grid: int = bounded(128, low=8, high=256)  # places along each side of the cube that the surface is sought in

    def cloud(self, prompt: str, generator: torch.Generator, device: torch.device | str) -> PointCloud:
        """Return points on the surface that Shap-E makes of the prompt.

        Raises:
            ModelNotFound: there is no such model, or it lacks a part. BadFile: a part is of another model.
            PromptError: the prompt is longer than the text encoder reads, or Shap-E makes no surface of it.
        """
        seed = draw_seed(generator)
        folder = self._folder()
        key = {
            "initialiser": "shap-e",
            "prompt": prompt,
            "seed": seed,
            "model": fingerprint(folder / name for name in listing(folder)),
            "guidance_scale": self.guidance_scale,
            "steps": self.steps,
            "grid": self.grid,
            "count": self.count,
            "device": torch.device(device).type,
        }
        cloud = clouds.make_once(key, lambda: self._make(folder, prompt, seed, device))
        return PointCloud(clouds.turned(cloud.points, self.azimuth), cloud.colors)

    def _make(self, folder: Path, prompt: str, seed: int, device: torch.device | str) -> PointCloud:
        """Run the model and return points in our axes."""
        pipeline = _load(folder, torch.device(device))
        _check_length(pipeline.tokenizer, prompt)
        generator = torch.Generator().manual_seed(seed)
        latents = pipeline(
            prompt,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            generator=generator,
            output_type="latent",
        ).images
        empty = PromptError(f"Shap-E made no surface of '{prompt}'; another --seed or more --init.steps may help")
        mesh = self._mesh(pipeline.shap_e_renderer, latents, empty)
        faces = mesh.faces.cpu()
        corners = mesh.verts.cpu().double()[faces]
        try:
            points = sample_surface(corners, self.count, generator)
        except ValueError as error:
            raise empty from error
        light = torch.stack([mesh.vertex_channels[name] for name in "RGB"], dim=1).cpu().double()[faces]
        x, y, z = points.of(corners).float().unbind(dim=1)
        return PointCloud(torch.stack([-y, x, z], dim=1), to_srgb(points.of(light)).float())

    def _mesh(self, renderer: Any, latents: Float[Tensor, "1 L D"], empty: PromptError) -> Any:
        """Return diffusers' mesh of the latents; raises ``empty`` if the signed distance has no zero."""

        def check(decoder: Any, inputs: Any, mesh: Any) -> None:
            if not len(mesh.faces):  # diffusers would go on and fail without a vertex
                raise empty

        renderer.mesh_decoder.register_forward_hook(check)
        return renderer.decode_to_mesh(latents, latents.device, grid_size=self.grid)

    def _folder(self) -> Path:
        """Return the folder of the model's files; they are downloaded if necessary."""
        if not Path(self.model).is_dir() and not is_hub_id(self.model):
            raise ModelNotFound(f"init.model = '{self.model}' is neither a folder nor a hub id such as openai/shap-e")
        refuse_mistyped(self.model)
        need = Need(lambda folder: PARTS)
        folder = fetch(self.model, (self.model,), need, advice="; --init.model takes a folder of your own too")
        if missing := lack(folder, listing(folder), PARTS):
            raise ModelNotFound(missing)
        return folder


def _load(folder: Path, device: torch.device) -> Any:
    """Load the pipeline, frozen and in float32."""
    from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEPipeline
    from diffusers.pipelines.shap_e import ShapERenderer
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    check_weights(folder, listing(folder))
    kinds = {"prior": PriorTransformer, "text_encoder": CLIPTextModelWithProjection, "shap_e_renderer": ShapERenderer}
    parts = {part: load_model(kind, folder, part, torch.float32, device) for part, kind in kinds.items()}
    parts["tokenizer"] = load_part(CLIPTokenizer.from_pretrained, folder, "tokenizer")
    parts["scheduler"] = load_part(HeunDiscreteScheduler.from_pretrained, folder, "scheduler")
    pipeline = ShapEPipeline(**parts)
    pipeline.set_progress_bar_config(disable=None)  # the sampler's, shown only on a terminal
    return pipeline


def _check_length(tokenizer: Any, prompt: str) -> None:
    count, limit = len(tokenizer(prompt, truncation=False).input_ids), tokenizer.model_max_length
    if count > limit:
        raise PromptError(f"the prompt '{prompt}' has {count} tokens, Shap-E reads {limit} at most")
