"""The renderer for NVIDIA GPUs: gsplat's kernels, all views of a batch in one call."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import cpp_extension

from gsdistill.core.errors import ConfigError, first_line, tell
from gsdistill.core.structs import SH_C0, Cameras, Gaussians, Render
from gsdistill.disk.cache import cache_path
from gsdistill.disk.lock import Claim
from gsdistill.disk.write import temporary_folder
from gsdistill.renderer.base import DEVIATION_MAX

__all__ = ["compiles", "rasterize", "render_with"]

DEVICE = "cuda"  # the type of the devices that the kernels run on
BUILT = "gsplat_cuda"  # the name of gsplat's compiled kernels and of their folder
CURE = "install a gsplat wheel built for this torch and CUDA (its README lists them), or use --device cpu"


def rasterize(gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
    """See :func:`gsdistill.renderer.base.render`. Raises ConfigError if the Gaussians are not on a GPU."""
    if gaussians.means.device.type != DEVICE:
        have = "this machine has one" if torch.cuda.is_available() else "this machine has none that torch can use"
        raise ConfigError(
            f"backend: 'cuda' needs an NVIDIA GPU ({have}) and the scene on it, got device "
            f"'{gaussians.means.device}'; use 'cpu' or 'auto'."
        )
    if len(gaussians) == 0:
        return _empty(gaussians, cameras, backgrounds)
    _load()
    from gsplat.rendering import rasterization

    return render_with(rasterization, gaussians, cameras, backgrounds)


def compiles() -> bool:
    """Whether the first render has to compile gsplat's kernels."""
    return _lack() is not None and cpp_extension.CUDA_HOME is not None and not _built_file().is_file()


@cache
def _lack() -> str | None:
    """Why gsplat's kernels must be compiled before use; None if compiled ones are installed and load."""
    try:
        importlib.import_module("gsplat.csrc")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "gsplat.csrc":
            return "gsplat has no compiled kernels here"
        return f"gsplat's compiled kernels do not load with torch {torch.__version__} ({first_line(error)})"
    return None


@cache
def _load() -> None:
    """Import gsplat's kernels; compile them first if they are not installed, and tell the user.

    gsplat empties the folder in which it compiles, also while another process compiles there. So only one process at a
    time may compile, and the processes that waited find the kernels compiled.

    Raises:
        ConfigError: there are no kernels, and they cannot be compiled here.
    """
    reason = _lack()
    if reason is None:
        return
    if cpp_extension.CUDA_HOME is None:
        raise ConfigError(f"{reason}, and there is no CUDA toolkit to compile them with; {CURE}")
    folder = _built_file().parent
    with Claim(folder.with_name(f"{BUILT}.lock")) as claim:
        if not claim.take():
            tell(f"another process is compiling gsplat's kernels in {folder}; waiting for it")
        while not claim.take():
            time.sleep(1.0)
        if compiles():
            tell(f"{reason}; compiling them in {folder}, this takes minutes the first time")
        try:
            backend = importlib.import_module("gsplat.cuda._backend")._C
        except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            failure = f"{reason}, and they could not be compiled or loaded in {folder}: {first_line(error)}"
            raise ConfigError(f"{failure}; {CURE}") from error
    if backend is None:
        raise ConfigError(f"{reason}, and the CUDA toolkit in {cpp_extension.CUDA_HOME} has no compiler; {CURE}")


def _built_file() -> Path:
    """The file that gsplat's kernels are compiled to."""
    _choose_build_folder()
    return Path(cpp_extension._get_build_directory(BUILT, verbose=False)) / f"{BUILT}.so"


def _choose_build_folder() -> None:
    """Keep PyTorch from building in a folder called ``~`` in the working directory, as it would without a home."""
    if "TORCH_EXTENSIONS_DIR" not in os.environ and cache_path() is None and (folder := temporary_folder()):
        os.environ["TORCH_EXTENSIONS_DIR"] = str(folder / "torch_extensions")


def render_with(
    rasterization: Callable[..., tuple[Tensor, Tensor, dict[str, Any]]],
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Float[Tensor, "B 3"],
) -> Render:
    """Render with gsplat's ``rasterization``, or with a function that has the same arguments and results.

    Colours of SH degree 0 are computed here, because with SH gsplat inverts the view matrices and waits for the GPU to
    say whether that worked. It waits once in any case, for the number of pairs of tile and Gaussian. A Gaussian wider
    than DEVIATION_MAX would have an infinite or NaN determinant in float32. It gets the deviation 1 and the opacity 0,
    so that it is not drawn and all its gradients are 0.
    """
    plain, options = gaussians.sh_degree == 0, gaussians.options
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
    screen, radii = meta["means2d"], meta["radii"]  # both [B, N, 2]; the radii are along x and y
    if screen.requires_grad:
        screen.retain_grad()
    visible = (radii > 0).all(-1)
    return Render(pixels[..., :3], alphas, pixels[..., 3:], screen, radii.amax(-1) * visible)


def _empty(gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
    """The render of no Gaussians: the backgrounds, with a gradient for the (empty) parameters."""
    B, H, W = len(cameras), cameras.height, cameras.width
    nothing = sum(value.sum() for value in gaussians.tensors().values())
    screen = gaussians.means[None, :, :2].expand(B, -1, -1) * 1.0
    if screen.requires_grad:
        screen.retain_grad()
    blank = torch.zeros(B, H, W, 1, device=gaussians.means.device) + nothing + screen.sum()  # the sums are 0
    radii = torch.zeros(B, 0, dtype=torch.int32, device=gaussians.means.device)
    return Render(backgrounds[:, None, None, :] + blank, blank, blank, screen, radii)
