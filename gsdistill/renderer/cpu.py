"""The renderer for processors: compiled kernels, tiles of 8 x 8 pixels, an analytic backward pass.

Agrees with ``reference`` in float32; other floating types are cast to it and back. Results are the same bit for bit in
every run and for every number of threads, which follows ``torch.get_num_threads()``. Kernels: ``_project`` (parameters
to screen ellipses), ``_bins`` (which tile holds what), ``_raster`` (pixels). The first call in a fresh installation
compiles them (half a minute) and keeps them on disk.
"""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from numba.core import config
from torch import Tensor
from torch.autograd.function import once_differentiable

from gsdistill.renderer import _bins, _project, _raster
from gsdistill.renderer.base import RenderOptions
from gsdistill.structs import Cameras, Gaussians, Render

__all__ = ["rasterize"]

# Numba's own threads sleep when idle. Those of OpenMP spin, and with torch's on the same cores every call then waits
# for the scheduler: ten times slower on a busy machine. They also survive a fork. A choice that the user made stays.
if vars(config)["THREADING_LAYER"] == "default":
    config.THREADING_LAYER = "workqueue"  # pyright: ignore[reportAttributeAccessIssue]
_lock = threading.Lock()  # but they serve one caller at a time
_kept = [np.empty((0, 10), np.float32)]


def rasterize(
    gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"], options: RenderOptions
) -> Render:
    """See :func:`gsdistill.renderer.base.render`. Needs every tensor in main memory."""
    g = gaussians
    parameters = (g.means, g.quats, g.scales, g.opacities, g.sh)
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in parameters)
    screen = torch.zeros(len(cameras), len(g), 2, dtype=g.means.dtype, requires_grad=wanted)
    images, alphas, depths, radii = _Rasterize.apply(*parameters, screen, backgrounds, cameras, options)
    return Render(images, alphas, depths, screen, radii)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        *parameters, _, backgrounds, cameras, options = inputs
        values, cams = [_array(value) for value in parameters], _camera_rows(cameras)
        B, N, H, W = len(cameras), len(values[0]), cameras.height, cameras.width
        o = options
        lens = _project.Lens(W, H, float(o.near), float(o.far), float(o.eps2d), bool(o.antialiased))
        splats, radii = np.empty((B * N, 12), np.float32), np.empty(B * N, np.int32)
        images, depths = np.empty((B, H, W, 3), np.float32), np.empty((B, H, W), np.float32)
        alphas, ends = np.empty_like(depths), np.empty_like(depths)
        with _lock:
            numba.set_num_threads(_threads())
            _project.project(*values, cams, lens, splats, radii)
            bins = _bin(splats, radii, B, W, H)
            reached = np.empty(len(bins["bounds"]) - 1, np.int64)
            _raster.rasterize(
                splats, bins["ids"], bins["bounds"], _array(backgrounds), images, alphas, depths, ends, reached
            )
        ctx.saved = values, cams, lens, splats, bins, reached, images, depths, ends
        ctx.dtype = inputs[0].dtype
        outputs = [torch.from_numpy(value).to(ctx.dtype) for value in (images, alphas[..., None], depths[..., None])]
        visible = torch.from_numpy(radii.reshape(B, N))
        ctx.mark_non_differentiable(visible)
        return outputs[0], outputs[1], outputs[2], visible

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, cams, lens, splats, bins, reached, images, depths, ends = ctx.saved
        v_images, v_alphas, v_depths = (_array(value) for value in gradients[:3])
        v_values = [np.zeros(value.shape, np.float32) for value in values]
        v_screen = np.zeros((len(splats), 2), np.float32)
        with _lock:
            numba.set_num_threads(_threads())
            tile_sums = _scratch(len(bins["ids"]))
            _raster.rasterize_backward(
                splats, bins["ids"], bins["slots"], bins["bounds"], reached, images, depths, ends,
                v_images, v_alphas[..., 0], v_depths[..., 0], tile_sums,
            )  # fmt: skip
            _project.project_backward(*values, cams, lens, splats, bins["starts"], tile_sums, *v_values, v_screen)
        v_backgrounds = np.einsum("bhw,bhwc->bc", ends, v_images)
        found = (*v_values, v_screen.reshape(len(cams), -1, 2), v_backgrounds)
        return *(torch.from_numpy(value).to(ctx.dtype) for value in found), None, None


def _bin(splats: np.ndarray, radii: np.ndarray, views: int, width: int, height: int) -> dict[str, np.ndarray]:
    """What every tile holds: ``starts``, ``bounds``, ``ids`` and ``slots`` of ``_bins``."""
    starts = np.empty(len(splats) + 1, np.int64)
    _bins.count_tiles(splats, radii, width, height, starts)
    tiles_per_view = -(-width // _bins.SIDE) * -(-height // _bins.SIDE)
    tiles, ids, slots = np.empty((3, int(starts[-1])), np.int32)
    bounds = np.empty(views * tiles_per_view + 1, np.int64)
    bits = np.ascontiguousarray(splats[:, 9]).view(np.uint32)
    groups = max(1, _threads() // max(1, views))
    _bins.bin_tiles(splats, bits, views, groups, width, height, starts, tiles, bounds, ids, slots)
    return {"starts": starts, "bounds": bounds, "ids": ids, "slots": slots}


def _scratch(rows: int) -> np.ndarray:
    """Room for the sums of backward, kept between calls: fresh pages cost more than the sums. Needs the lock."""
    if len(_kept[0]) < rows:
        _kept[0] = np.empty((rows + rows // 4, 10), np.float32)
    return _kept[0]


def _array(value: Tensor) -> np.ndarray:
    return value.detach().to(torch.float32).contiguous().numpy()


def _threads() -> int:
    return max(1, min(torch.get_num_threads(), vars(config)["NUMBA_NUM_THREADS"]))


def _camera_rows(cameras: Cameras) -> np.ndarray:
    """One row of numbers per camera, see ``_project``."""
    views, K = cameras.viewmats.detach().double().numpy(), cameras.Ks.detach().double().numpy()
    f, c = K[:, [0, 1], [0, 1]], K[:, :2, 2]
    size = np.array([cameras.width, cameras.height])
    limits = np.stack([-(c + 0.15 * size) / f, (1.15 * size - c) / f], -1)
    position = np.linalg.inv(views)[:, :3, 3]
    parts = [views[:, :3, :3], views[:, :3, 3], position, f, c, limits]
    return np.concatenate([part.reshape(len(views), -1) for part in parts], 1)
