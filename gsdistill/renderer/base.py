"""The one entry to all renderers: Gaussians and cameras in; images, alphas, depths and screen gradients out.

Every module of this folder, except this one, those with a leading underscore and NOT_LISTED, is a backend with one
function ``rasterize(gaussians, cameras, backgrounds) -> Render``. All backends compute the same, and ``reference`` is
its specification: EWA splatting (Zwicker et al. 2001) with the conventions of 3D Gaussian Splatting (Kerbl et al. 2023)
as gsplat implements them. With d_i from the projected mean of Gaussian i to a pixel and C_i the covariance on the
screen, the pixel sees, front to back by camera z,

    alpha_i = min(0.999, o_i exp(-d_i^T C_i^-1 d_i / 2)),    T_i = prod_{j<i} (1 - alpha_j),
    image = sum_i T_i alpha_i colour_i + T_end background,

where pairs with alpha < 1/255 are left out and the sum ends before the Gaussian that would bring T to 1e-4 or below.

A scene may be on a device that has no backend (an Apple GPU), or whose backend does not run there (a GPU that torch
supports and gsplat's kernels do not). ``auto`` then draws it on the CPU and moves inputs, results and gradients between
the two devices, so that the caller sees no difference except in time.
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
from gsdistill.renderer import NOT_LISTED

__all__ = [
    "ALPHA_MAX", "ALPHA_MIN", "COVARIANCE_MAX", "DEVIATION_MAX", "TRANSMITTANCE_MIN", "backends", "blending_weights",
    "check_backgrounds", "compiles", "refusal", "render",
]  # fmt: skip

ALPHA_MIN = 1.0 / 255.0  # a Gaussian is ignored at pixels where its alpha is smaller
ALPHA_MAX = 0.999  # no Gaussian is more opaque than this at any pixel
COVARIANCE_MAX = 1e17  # square pixels; a Gaussian wider on the screen has diverged and is culled
DEVIATION_MAX = 1e5  # world units; a Gaussian with a larger standard deviation has diverged and is culled
TRANSMITTANCE_MIN = 1e-4  # a pixel ends before the Gaussian that would lower its transmittance to this or less


@functools.cache
def backends() -> tuple[str, ...]:
    """Names of the renderers in this folder, sorted."""
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(name for name in names if name not in ("base", *NOT_LISTED) and not name.startswith("_")))


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Float[Tensor, "B 3"],
    backend: str = "auto",
) -> Render:
    """Render all ``cameras`` with the scene's own options; differentiable by all its tensors and by ``backgrounds``.

    ``backgrounds`` holds one RGB colour per camera, 0..1. Gaussians, cameras and backgrounds are on one device, and so
    is the result. ``backend`` is one of :func:`backends`, or "auto": the backend of that device, or that of the CPU if
    the device has a :func:`refusal`, with one notice. After backward, ``Render.screen.grad`` holds the gradient of the
    projected means, in pixels. No gradient reaches the cameras.

    Raises:
        ConfigError: there is no such backend, a backend chosen by its name cannot run here, or ``backgrounds`` is not
            one colour per camera.
    """
    check_backgrounds(cameras, backgrounds)
    if backend == "auto":
        backend = _choose(gaussians.means.device)
        if backend != gaussians.means.device.type:
            return _render_elsewhere(backend, gaussians, cameras, backgrounds)
    if backend not in backends():
        allowed = ("auto", *backends())
        raise ConfigError(
            f"backend = '{backend}' is not a renderer.{did_you_mean(backend, allowed)} Allowed: {', '.join(allowed)}"
        )
    return _module(backend).rasterize(gaussians, cameras, backgrounds)


def check_backgrounds(cameras: Cameras, backgrounds: object) -> None:
    """Raise ConfigError unless ``backgrounds`` is a floating tensor with one RGB colour per camera."""
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
    """Why a device cannot draw itself, in one line; None if its backend draws a test Gaussian correctly.

    Each device is tested once in a process. The first test may compile kernels, which takes minutes.
    """
    if device.type == "cpu":
        return None
    if device.type not in backends():
        return f"there is no renderer for {device.type}"
    try:
        alpha, slope = _draw_test(device.type, device)
    except (ImportError, OSError, RuntimeError, UserError) as error:
        return None if out_of_memory(error) else first_line(error)
    correct = abs(alpha - 0.5) < 1e-3 and abs(slope - 0.25) < 1e-3
    return None if correct else f"it draws {alpha:g} with the derivative {slope:g}, but 0.5 and 0.25 are correct"


def _draw_test(backend: str, device: torch.device) -> tuple[float, float]:
    """Draw a Gaussian of logit 0 on the axis; returns alpha in the middle (should be 0.5) and its derivative (0.25)."""
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
    """Whether the first render on a device has to compile kernels, which takes minutes."""
    return device.type in backends() and device.type != "cpu" and _module(device.type).compiles()


@functools.cache
def _choose(device: torch.device) -> str:
    """Choose the backend for scenes on ``device``; tell the user why if it is the CPU's instead of the device's own."""
    if reason := refusal(device):
        tell(f"{device} cannot draw, so the CPU does it instead: {reason}")
    return "cpu" if reason else device.type


def _render_elsewhere(
    backend: str, gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]
) -> Render:
    """Render with the backend of another device; inputs, results and gradients are copied between the devices."""
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
    """The sum of each Gaussian's weights T_i alpha_i over all pixels of all ``cameras``, in pixels, float64.

    A picture is linear in the colours, sum_i w_i colour_i, so its derivative by a colour is the weight.
    """
    like = gaussians.means
    plain = torch.zeros(len(gaussians), 1, 3, dtype=like.dtype, device=like.device, requires_grad=True)
    with torch.enable_grad():
        images = render(replace(gaussians, sh=plain), cameras, like.new_zeros(len(cameras), 3)).images
        (gradient,) = torch.autograd.grad(images[..., 0].sum(), plain)
    return gradient[:, 0, 0].double() / SH_C0
