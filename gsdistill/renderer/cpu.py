"""The renderer for CPUs: compiled kernels, tiles of 8 x 16 pixels, an analytic backward pass.

It computes the same as ``reference``, in float32; other floating types are converted to float32 and back. Results are
bit for bit the same in every run and with any number of threads. That number is ``torch.get_num_threads()``, or one for
small tasks (``_shares``). Kernels: ``_project`` (parameters to screen ellipses), ``_bins`` (which splats a tile holds),
``_raster`` (pixels, and their gradients), ``_unproject`` (gradients of parameters). The first call compiles them in ten
seconds and caches them on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numba.core import config
from torch import Tensor
from torch.autograd.function import once_differentiable

from gsdistill.core.structs import Cameras, Gaussians, Render
from gsdistill.core.threads import Turn
from gsdistill.renderer import _bins, _project, _raster, _unproject
from gsdistill.renderer._shares import run_in_shares

__all__ = ["rasterize"]

GAUSSIANS, PAIRS = 2000, 5000  # least size of a share: a smaller one is not worth another thread
MOST_PAIRS = 2**31 - 1  # pairs are numbered with 32 bits
_turn = Turn()  # one thread at a time uses the buffer that is kept between calls
_buffers = [np.empty((0, 10), np.float32)]


def rasterize(gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
    """See :func:`gsdistill.renderer.base.render`. All tensors must be on the CPU."""
    g = gaussians
    parameters = (g.means, g.quats, g.scales, g.opacities, g.sh)
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in parameters)
    screen = torch.zeros(len(cameras), len(g), 2, dtype=g.means.dtype, requires_grad=wanted)
    images, alphas, depths, radii = _Rasterize.apply(*parameters, screen, backgrounds, cameras, g.options)
    return Render(images, alphas, depths, screen, radii)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        means, quats, scales, logits, sh, _, backgrounds, cameras, o = inputs
        with np.errstate(over="ignore"):  # not torch.exp: its threads keep spinning longer than it computes
            sizes, opacities = np.exp(_array(scales)), 1 / (1 + np.exp(-_array(logits)))
        values = [_array(means), _array(quats), sizes, opacities, _array(sh)]
        cams = camera_rows(cameras)
        B, N, H, W = len(cameras), len(values[0]), cameras.height, cameras.width
        lens = _project.Lens(W, H, float(o.near), float(o.far), float(o.eps2d), bool(o.antialiased))
        splats, radii, counts = np.empty((B * N, 12), np.float32), np.empty(B * N, np.int32), np.empty(B * N, np.int64)
        threads = _threads()
        least = GAUSSIANS // (B + 1) + 1
        run_in_shares(threads, N, least, _project.project, *values, cams, lens, splats, radii, counts)
        bins = bins_of(threads, splats, counts, B, W, H)
        images, depths = np.empty((B, H, W, 3), np.float32), np.empty((B, H, W), np.float32)
        alphas, ends = np.empty_like(depths), np.empty_like(depths)
        reached = np.empty(len(bins["bounds"]) - 1, np.int64)
        tiles = 1 + len(reached) * PAIRS // (len(bins["ids"]) + 1)
        run_in_shares(
            threads, len(reached), tiles, _raster.rasterize, splats, bins["ids"], bins["bounds"],
            _array(backgrounds), images, alphas, depths, ends, reached,
        )  # fmt: skip
        ctx.saved = values, cams, lens, splats, bins, reached, tiles, images, depths, ends
        ctx.dtype = inputs[0].dtype
        outputs = [torch.from_numpy(value).to(ctx.dtype) for value in (images, alphas[..., None], depths[..., None])]
        visible = torch.from_numpy(radii.reshape(B, N))
        ctx.mark_non_differentiable(visible)
        return outputs[0], outputs[1], outputs[2], visible

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, cams, lens, splats, bins, reached, tiles, images, depths, ends = ctx.saved
        v_images, v_alphas, v_depths = (_array(value) for value in gradients[:3])
        v_values = [np.zeros(value.shape, np.float32) for value in values]
        v_screen = np.zeros((len(splats), 2), np.float32)
        with _turn:
            tile_sums, threads = _buffer(len(bins["ids"])), _threads()
            run_in_shares(
                threads, len(reached), tiles, _raster.rasterize_backward, splats, bins["ids"], bins["bounds"], reached,
                images, depths, ends, v_images, v_alphas[..., 0], v_depths[..., 0], tile_sums,
            )  # fmt: skip
            run_in_shares(
                threads, len(values[0]), GAUSSIANS // (len(cams) + 1) + 1, _unproject.unproject, *values,
                cams, lens, splats, bins["starts"], bins["slots"], tile_sums, *v_values, v_screen,
            )  # fmt: skip
        arrays = [*v_values, v_screen.reshape(len(cams), -1, 2)]
        if ctx.needs_input_grad[6]:  # that of the backgrounds
            arrays.append(np.einsum("bhw,bhwc->bc", ends, v_images))
        results = [torch.from_numpy(value).to(ctx.dtype) for value in arrays]
        return *results, *[None] * (9 - len(results))


def bins_of(
    threads: int, splats: np.ndarray, counts: np.ndarray, views: int, width: int, height: int
) -> dict[str, np.ndarray]:
    """Find the splats of every tile: the arrays ``starts``, ``bounds``, ``ids`` and ``slots``, see ``_bins``.

    Raises:
        MemoryError: there are more pairs of tile and splat than 31 bits can number.
    """
    size = width, height
    band_starts, starts = np.zeros((2, len(splats) + 1), np.int64)
    np.cumsum(counts, out=band_starts[1:])
    order = np.empty(2 * int(band_starts[-1]), np.int32)
    run_in_shares(threads, len(splats), GAUSSIANS, _bins.find_spans, splats, *size, band_starts, order, counts)
    np.cumsum(counts, out=starts[1:])
    if starts[-1] > MOST_PAIRS:
        raise MemoryError(f"{starts[-1]:,} pairs of tile and Gaussian are too many; {MOST_PAIRS:,} is the most")
    ids, slots = np.empty((2, int(starts[-1])), np.int32)
    bounds = np.empty(views * -(-width // _bins.WIDE) * -(-height // _bins.TALL) + 1, np.int64)
    bounds[-1] = starts[-1]
    groups = -(-threads // max(1, views)) if len(ids) > 4 * PAIRS else 1
    run_in_shares(
        threads, views * groups, 1, _bins.place_pairs, groups, splats, *size, band_starts, order,
        starts, bounds[:-1], ids, slots,
    )  # fmt: skip
    return {"starts": starts, "bounds": bounds, "ids": ids, "slots": slots}


def _buffer(rows: int) -> np.ndarray:
    """An array [>= rows, 10] for sums in backward, kept between calls, since new memory costs more than the sums.

    The caller must have its ``_turn``.
    """
    if len(_buffers[0]) < rows:
        _buffers[0] = np.empty((rows + rows // 4, 10), np.float32)
    return _buffers[0]


def _array(value: Tensor) -> np.ndarray:
    return value.detach().to(torch.float32).contiguous().numpy()


def _threads() -> int:
    return max(1, min(torch.get_num_threads(), vars(config)["NUMBA_NUM_THREADS"]))


def camera_rows(cameras: Cameras) -> np.ndarray:
    """One row of 23 numbers per camera, in float64, see ``_project``."""
    views, K = cameras.viewmats.detach().double().numpy(), cameras.Ks.detach().double().numpy()
    f, c = K[:, [0, 1], [0, 1]], K[:, :2, 2]
    size = np.array([cameras.width, cameras.height])
    limits = np.stack([-(c + 0.15 * size) / f, (1.15 * size - c) / f], -1)
    position = np.linalg.inv(views)[:, :3, 3]
    parts = [views[:, :3, :3], views[:, :3, 3], position, f, c, limits]
    return np.concatenate([part.reshape(len(views), -1) for part in parts], 1)
