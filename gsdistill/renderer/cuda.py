"""The renderer for NVIDIA GPUs: gsplat's kernels, all views of a batch in one call."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.errors import ConfigError
from gsdistill.files import temporary_folder
from gsdistill.kept import place
from gsdistill.renderer.base import DEVIATION_MAX, RenderOptions
from gsdistill.structs import SH_C0, Cameras, Gaussians, Render

__all__ = ["rasterize", "through"]


def rasterize(
    gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"], options: RenderOptions
) -> Render:
    """See :func:`gsdistill.renderer.base.render`. Raises ConfigError where the Gaussians are not on a GPU."""
    if gaussians.means.device.type != "cuda":
        have = "this machine has one" if torch.cuda.is_available() else "this machine has none that torch can use"
        raise ConfigError(
            f"backend: 'cuda' needs an NVIDIA GPU ({have}) and the scene on it, got device "
            f"'{gaussians.means.device}'; use 'cpu' or 'auto'."
        )
    if len(gaussians) == 0:
        return _empty(gaussians, cameras, backgrounds)
    _choose_build_folder()
    from gsplat.cuda import _backend  # builds or loads its kernels
    from gsplat.rendering import rasterization

    if _backend._C is None:
        raise ConfigError(
            "gsplat has no compiled kernels here and found no CUDA toolkit to build them with; install a gsplat wheel "
            "built for this torch and CUDA (its README lists them), or use --device cpu"
        )

    return through(rasterization, gaussians, cameras, backgrounds, options)


def _choose_build_folder() -> None:
    """Keep PyTorch from building in a folder called ``~`` in the working directory, as it would without a home."""
    if "TORCH_EXTENSIONS_DIR" not in os.environ and place() is None and (folder := temporary_folder()):
        os.environ["TORCH_EXTENSIONS_DIR"] = str(folder / "torch_extensions")


def through(
    rasterization: Callable[..., tuple[Tensor, Tensor, dict[str, Any]]],
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Float[Tensor, "B 3"],
    options: RenderOptions,
) -> Render:
    """The render by gsplat's ``rasterization``, or by anything with its arguments and answers.

    Colours that do not depend on the direction are computed here: for the others gsplat inverts the view matrices, and
    waits for the GPU to say whether that worked. It waits once more, for the number of its pairs of tile and Gaussian.
    A Gaussian as wide as those that no backend draws has an infinite or no determinant in float32, and is given another
    size and no opacity here: then nothing is drawn, and nothing but zeros comes back.
    """
    plain = gaussians.sh_degree == 0
    sound = (gaussians.scales.detach() < math.log(DEVIATION_MAX)).all(-1)
    pixels, alphas, meta = rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=torch.where(sound[:, None], gaussians.scales, 0.0).exp(),
        opacities=torch.where(sound, gaussians.opacities, -math.inf).sigmoid(),
        colors=(0.5 + SH_C0 * gaussians.sh[:, 0]).clamp_min(0) if plain else gaussians.sh,
        viewmats=cameras.viewmats,
        Ks=cameras.Ks,
        width=cameras.width,
        height=cameras.height,
        near_plane=options.near,
        far_plane=options.far,
        eps2d=options.eps2d,
        sh_degree=None if plain else gaussians.sh_degree,
        packed=False,
        backgrounds=backgrounds,
        render_mode="RGB+D",
        rasterize_mode="antialiased" if options.antialiased else "classic",
    )
    screen, radii = meta["means2d"], meta["radii"]  # [B, N, 2] both, the radii along x and y
    if screen.requires_grad:
        screen.retain_grad()
    visible = (radii > 0).all(-1)
    return Render(pixels[..., :3], alphas, pixels[..., 3:], screen, radii.amax(-1) * visible)


def _empty(gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
    """No Gaussian at all: the backgrounds, still attached to the (empty) parameters."""
    B, H, W = len(cameras), cameras.height, cameras.width
    nothing = sum(value.sum() for value in vars(gaussians).values())
    screen = gaussians.means[None, :, :2].expand(B, -1, -1) * 1.0
    if screen.requires_grad:
        screen.retain_grad()
    blank = torch.zeros(B, H, W, 1, device=gaussians.means.device) + nothing + screen.sum()  # so that it has a gradient
    radii = torch.zeros(B, 0, dtype=torch.int32, device=gaussians.means.device)
    return Render(backgrounds[:, None, None, :] + blank, blank, blank, screen, radii)
