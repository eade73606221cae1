"""The one entry to all renderers: Gaussians and cameras in, images, alphas, depths and screen gradients out.

Every module of this folder except this one (and those with a leading underscore) is a backend of that name with one
function ``rasterize(gaussians, cameras, backgrounds) -> Render``. All backends mean the same thing, which
``reference`` spells out: EWA splatting (Zwicker et al. 2001) with the conventions of 3D Gaussian Splatting (Kerbl et
al. 2023) as gsplat implements them. A pixel at (x, y) sees, front to back by camera z,

    alpha_i = min(0.999, o_i exp(-d^T C_i^-1 d / 2)),    T_i = prod_{j<i} (1 - alpha_j),
    image = sum_i T_i alpha_i colour_i + T_end background,

where pairs with alpha < 1/255 are left out and the sum ends before the Gaussian that would bring T to 1e-4 or below.

A scene may lie on a device that has no backend of its name (an Apple GPU), or one whose backend does not run there (a
GPU that torch knows and gsplat has no kernels for). ``auto`` then draws it on the CPU: what it needs goes there, what
comes of it goes back, and so do the gradients, so that whoever asks sees no difference but the time.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.device import out_of_memory
from gsdistill.core.errors import ConfigError, UserError, did_you_mean, first_line, tell
from gsdistill.core.structs import SH_C0, Cameras, Gaussians, Render, to_device

__all__ = [
    "ALPHA_MAX", "ALPHA_MIN", "COVARIANCE_MAX", "DEVIATION_MAX", "TRANSMITTANCE_MIN", "backends", "blending_weights",
    "check_backgrounds", "compiles", "refusal", "render",
]  # fmt: skip

ALPHA_MIN = 1.0 / 255.0  # fainter pairs of Gaussian and pixel are ignored
ALPHA_MAX = 0.999  # no Gaussian is more opaque than this at any pixel
COVARIANCE_MAX = 1e17  # square pixels; a Gaussian wider on the screen has diverged and is culled
DEVIATION_MAX = 1e5  # world units; a Gaussian with a larger standard deviation has diverged and is culled
TRANSMITTANCE_MIN = 1e-4  # a pixel ends before the Gaussian that would bring it here


@functools.cache
def backends() -> tuple[str, ...]:
    """Names of the renderers in this folder, sorted."""
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(name for name in names if name != "base" and not name.startswith("_")))


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Float[Tensor, "B 3"],
    backend: str = "auto",
) -> Render:
    """Render all ``cameras`` in one call with the scene's own options, differentiably in every tensor of it.

    ``backgrounds`` holds one RGB colour per camera, 0..1. ``backend`` is one of :func:`backends`, or "auto": the one
    for the device that holds the Gaussians, or where that has a :func:`refusal` the CPU's, which is told once. The
    cameras and backgrounds are on that device too, and so is the answer. ``Render.screen.grad`` holds the gradient of
    the projected means, in pixels, after backward. No gradient reaches the cameras.

    Raises:
        ConfigError: the backend is unknown, or one that was asked for by its name cannot run here; or ``backgrounds``
            is not one colour per camera.
    """
    check_backgrounds(cameras, backgrounds)
    if backend == "auto":
        backend = _chosen(gaussians.means.device)
        if backend != gaussians.means.device.type:
            return _elsewhere(backend, gaussians, cameras, backgrounds)
    if backend not in backends():
        allowed = ("auto", *backends())
        raise ConfigError(
            f"backend = '{backend}' is not a renderer.{did_you_mean(backend, allowed)} Allowed: {', '.join(allowed)}"
        )
    return _module(backend).rasterize(gaussians, cameras, backgrounds)


def check_backgrounds(cameras: Cameras, backgrounds: object) -> None:
    """Refuse what is not one colour per camera. Raises ConfigError."""
    wanted = (len(cameras), 3)
    if not isinstance(backgrounds, Tensor):
        got = f"a {type(backgrounds).__name__}"
    elif backgrounds.shape != wanted or not backgrounds.is_floating_point():
        got = f"{str(backgrounds.dtype).removeprefix('torch.')} {list(backgrounds.shape)}"
    else:
        return
    raise ConfigError(f"backgrounds is {got}; one colour per camera is expected, a tensor of floats {list(wanted)}")


@functools.cache
def refusal(device: torch.device) -> str | None:
    """Why there is no drawing on a device itself, in one line; None where a Gaussian is drawn there as it must be.

    Tried once in a process, which may compile kernels for minutes.
    """
    if device.type == "cpu":
        return None
    if device.type not in backends():
        return f"there is no renderer for {device.type}"
    try:
        alpha, slope = _tried(device.type, device)
    except (ImportError, OSError, RuntimeError, UserError) as error:
        return None if out_of_memory(error) else first_line(error)
    sound = abs(alpha - 0.5) < 1e-3 and abs(slope - 0.25) < 1e-3
    return None if sound else f"it draws {alpha:g} and differentiates it to {slope:g}, where 0.5 and 0.25 are right"


def _tried(backend: str, device: torch.device) -> tuple[float, float]:
    """Alpha of a Gaussian on the axis, at the pixel in the middle, and its derivative: the sigmoid of 0, and 1/4."""
    logit = torch.zeros(1, device=device, requires_grad=True)
    quats, scales = torch.ones(1, 4, device=device), torch.full((1, 3), -2.0, device=device)
    means, view = torch.tensor([[0.0, 0.0, 3.0]], device=device), torch.eye(4, device=device)[None]
    K = torch.tensor([[[9.0, 0.0, 4.5], [0.0, 9.0, 4.5], [0.0, 0.0, 1.0]]], device=device)
    scene, angle = Gaussians(means, quats, scales, logit, torch.zeros(1, 1, 3, device=device)), view[:, 0, 1]
    cameras, black = Cameras(view, K, 9, 9, angle, angle, angle + 3.0), torch.zeros(1, 3, device=device)
    with torch.inference_mode(False), torch.enable_grad():
        alpha = _module(backend).rasterize(scene, cameras, black).alphas[0, 4, 4, 0]
        (slope,) = torch.autograd.grad(alpha, logit)
    return float(alpha.detach()), float(slope)


def compiles(device: torch.device) -> bool:
    """Whether the first drawing on a device has to compile kernels, which takes minutes."""
    return device.type in backends() and device.type != "cpu" and _module(device.type).compiles()


@functools.cache
def _chosen(device: torch.device) -> str:
    """The backend that draws a scene on ``device``; where that is not its own, the reason is told."""
    if reason := refusal(device):
        tell(f"{device} does not draw, and the CPU does it instead: {reason}")
    return "cpu" if reason else device.type


def _elsewhere(backend: str, gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
    """The render of a scene by the backend of another device, with everything taken there and back."""
    home = gaussians.means.device
    there = (to_device(value, backend) for value in (gaussians, cameras, backgrounds))
    out = _module(backend).rasterize(*there)
    screen = torch.zeros(out.screen.shape, dtype=out.screen.dtype, device=home, requires_grad=out.screen.requires_grad)
    if screen.requires_grad:
        out.screen.register_post_accumulate_grad_hook(lambda own: setattr(screen, "grad", own.grad.to(home)))
    return to_device(replace(out, screen=screen), home)


def _module(backend: str) -> Any:
    return importlib.import_module(f"gsdistill.renderer.{backend}")


def blending_weights(gaussians: Gaussians, cameras: Cameras) -> Float[Tensor, "N"]:
    """Sum of each Gaussian's weights T_i alpha_i over all pixels of all ``cameras``, in pixels, float64.

    A picture is linear in the colours, sum_i w_i colour_i, so the weights are its derivative by them.
    """
    like = gaussians.means
    plain = torch.zeros(len(gaussians), 1, 3, dtype=like.dtype, device=like.device, requires_grad=True)
    with torch.enable_grad():
        images = render(replace(gaussians, sh=plain), cameras, like.new_zeros(len(cameras), 3)).images
        (gradient,) = torch.autograd.grad(images[..., 0].sum(), plain)
    return gradient[:, 0, 0].double() / SH_C0
