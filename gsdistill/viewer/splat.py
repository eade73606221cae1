"""A splat as a page draws it: means, covariances, opacities and colours, moved and scaled into the unit ball.

A Gaussian of mean m, rotation R and standard deviations s, the diagonal of S, has the covariance R S^2 R^T. Scaling the
scene by k makes these k m and k^2 R S^2 R^T. The page takes covariances in half precision, which has eleven bits for
numbers from 6e-5 to 65504. In units of 1/16 of the ball's radius these are standard deviations of 1/2000 to 15 radii.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gsdistill.core.errors import tell
from gsdistill.core.structs import Gaussians, RenderOptions, on_processor
from gsdistill.renderer.harmonics import sh_basis
from gsdistill.renderer.reference import rotations
from gsdistill.scene.extent import UnitBall

__all__ = ["ROWS", "UNIT", "Splat", "ball_of"]

VISIBLE = 0.1  # least opacity of the Gaussians that decide where the object lies
MOST = 0.98  # share of them inside the ball
OWN_BALL = (0.3, 1.3)  # a splat around the origin of a radius in this range is in its place already
UNIT = 1 / 16  # the unit in which lengths are sent, in radii of the unit ball
WIDEST = 7.0  # largest standard deviation that is sent, in radii; twice as wide still fits half precision
BLOCK = 512  # Gaussians whose colours torch computes at once, so few that it starts no threads: see live.py
ROWS = 2048  # Gaussians are sent in multiples of this, for the page blinks when their number changes


@dataclass(frozen=True)
class Splat:
    """N Gaussians, lengths in units of UNIT, with the coefficients of their colours by direction."""

    centers: Float[np.ndarray, "N 3"]
    covariances: Float[np.ndarray, "N 3 3"]
    opacities: Float[np.ndarray, "N"]  # 0..1
    sh: Float[Tensor, "N K 3"]

    def __len__(self) -> int:
        return len(self.centers)

    @classmethod
    def of(cls, gaussians: Gaussians, ball: UnitBall = UnitBall()) -> Splat:
        """Return a copy of ``gaussians``, of any device, with ``ball`` as the unit ball.

        The page draws all splats with the same options; a Notice names a splat's own ones if they differ.
        """
        if (options := gaussians.options.elsewhere()) != RenderOptions():
            tell(f"a splat was made with {options}, as gsdistill render draws it; the page has {RenderOptions()}")
        plain = ball.inside(on_processor(gaussians))
        deviations = plain.scales.exp().clamp_max(WIDEST) / UNIT
        spread = rotations(plain.quats) * deviations[:, None]
        covariances = spread @ spread.transpose(1, 2)
        centers, opacities = plain.means / UNIT, plain.opacities.sigmoid()
        return cls(centers.numpy(), covariances.numpy(), opacities.numpy(), plain.sh.clone())

    @property
    def depends_on_view(self) -> bool:
        """Whether its colours depend on the direction of view."""
        return self.sh.shape[1] > 1

    def arrays(
        self, eye: tuple[float, float, float], threshold: float = 0.0, size: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centres [M, 3], covariances [M, 3, 3], colours [M, 3] and opacities [M, 1] to send, the last two as 0..255.

        M is N rounded up to a multiple of ROWS; the rows added are zero.

        Args:
            eye: the place of the camera, in radii of the unit ball.
            threshold: Gaussians of an opacity below it get opacity 0.
            size: factor of all standard deviations.
        """
        opacities = np.where(self.opacities >= threshold, self.opacities, 0.0)
        return (
            _padded(self.centers),
            _padded(self.covariances * np.float32(size * size)),
            _padded(self.colours(eye)),
            _padded(_bytes(opacities)[:, None]),
        )

    def colours(self, eye: tuple[float, float, float]) -> UInt8[np.ndarray, "N 3"]:
        """Red, green and blue in 0..255 as seen from the place ``eye``, in radii of the unit ball."""
        place, degree = torch.tensor(eye, dtype=torch.float32) / UNIT, round(self.sh.shape[1] ** 0.5) - 1
        blocks = zip(torch.from_numpy(self.centers).split(BLOCK), self.sh.split(BLOCK), strict=True)
        sums = []
        for centers, sh in blocks:
            basis = sh_basis(torch.nn.functional.normalize(centers - place, dim=-1), degree)
            sums.append((basis[:, :, None] * sh).sum(dim=1))
        return _bytes(0.5 + torch.cat(sums).numpy())


def ball_of(gaussians: Gaussians) -> UnitBall:
    """The ball around the visible Gaussians; the unit ball itself if they fill it about, as those of a run do."""
    means = gaussians.means.detach().double().cpu()
    visible = means[gaussians.opacities.detach().cpu().sigmoid() >= VISIBLE]
    visible = (visible if len(visible) else means).numpy()
    if OWN_BALL[0] <= np.quantile(np.linalg.norm(visible, axis=1), MOST) <= OWN_BALL[1]:
        return UnitBall()
    x, y, z = centre = np.quantile(visible, (1 - MOST, MOST), axis=0).mean(axis=0)
    radius = float(np.quantile(np.linalg.norm(visible - centre, axis=1), MOST))
    return UnitBall((float(x), float(y), float(z)), radius or 1.0)


def _bytes(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Numbers in 0..1 as bytes 0..255, rounded."""
    return (values.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, [(0, -len(values) % ROWS), *[(0, 0)] * (values.ndim - 1)])
