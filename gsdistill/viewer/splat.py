"""A splat as a page draws it: numbers without parameters, moved and scaled into the unit ball.

A Gaussian of mean m, rotation R and standard deviations s, the diagonal of S, has the covariance R S^2 R^T; in a scene
scaled by k it is k m and k^2 R S^2 R^T. The page takes covariances in half precision, whose numbers go from 6e-5 to
65504 with eleven bits: in units of 1/16 of the ball's radius that is standard deviations from 1/2000 to 15 radii.
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

VISIBLE = 0.1  # opacity from which a Gaussian counts for where an object lies
MOST = 0.98  # share of them that the ball holds
OWN_BALL = (0.3, 1.3)  # radii around the origin that are taken for the unit ball of a run
UNIT = 1 / 16  # what lengths are sent in, in the unit ball
WIDEST = 7.0  # largest standard deviation in the unit ball that is sent; twice as wide fits half precision
BLOCK = 512  # Gaussians whose colours torch computes without threads of its own: see live.py
ROWS = 2048  # Gaussians are sent in multiples of this: where the number changes the page blinks


@dataclass(frozen=True)
class Splat:
    """N Gaussians in lengths of UNIT, with the colours that any direction sees."""

    centers: Float[np.ndarray, "N 3"]
    covariances: Float[np.ndarray, "N 3 3"]
    opacities: Float[np.ndarray, "N"]  # 0..1
    sh: Float[Tensor, "N K 3"]

    def __len__(self) -> int:
        return len(self.centers)

    @classmethod
    def of(cls, gaussians: Gaussians, ball: UnitBall = UnitBall()) -> Splat:
        """Return a copy of ``gaussians``, of any device, with ``ball`` as the unit ball.

        A page draws all splats alike, near ones and far ones; a Notice tells of one that was made otherwise.
        """
        if (made := gaussians.options.elsewhere()) != RenderOptions():
            tell(f"a splat was made with {made}, which gsdistill render draws; the page draws with {RenderOptions()}")
        plain = ball.inside(on_processor(gaussians))
        deviations = plain.scales.exp().clamp_max(WIDEST) / UNIT
        spread = rotations(plain.quats) * deviations[:, None]
        covariances = spread @ spread.transpose(1, 2)
        centers, opacities = plain.means / UNIT, plain.opacities.sigmoid()
        return cls(centers.numpy(), covariances.numpy(), opacities.numpy(), plain.sh.clone())

    @property
    def depends_on_view(self) -> bool:
        """Whether its colours do."""
        return self.sh.shape[1] > 1

    def arrays(
        self, eye: tuple[float, float, float], threshold: float = 0.0, size: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centres, covariances, colours and opacities to send, filled up with nothing to a multiple of ROWS.

        Args:
            eye: from where it is seen, in the unit ball.
            threshold: Gaussians of an opacity below it get none.
            size: factor of all standard deviations.
        """
        shown = np.where(self.opacities >= threshold, self.opacities, 0.0)
        return (
            _filled(self.centers),
            _filled(self.covariances * np.float32(size * size)),
            _filled(self.colours(eye)),
            _filled(_bytes(shown)[:, None]),
        )

    def colours(self, eye: tuple[float, float, float]) -> UInt8[np.ndarray, "N 3"]:
        """Red, green and blue as seen from ``eye``, a place around the unit ball."""
        place, degree = torch.tensor(eye, dtype=torch.float32) / UNIT, round(self.sh.shape[1] ** 0.5) - 1
        blocks = zip(torch.from_numpy(self.centers).split(BLOCK), self.sh.split(BLOCK), strict=True)
        sums = []
        for centers, sh in blocks:
            basis = sh_basis(torch.nn.functional.normalize(centers - place, dim=-1), degree)
            sums.append((basis[:, :, None] * sh).sum(dim=1))
        return _bytes(0.5 + torch.cat(sums).numpy())


def ball_of(gaussians: Gaussians) -> UnitBall:
    """The ball of what can be seen; that of a run, which optimises inside the unit ball, is the unit ball itself."""
    means = gaussians.means.detach().double().cpu()
    seen = means[gaussians.opacities.detach().cpu().sigmoid() >= VISIBLE]
    seen = (seen if len(seen) else means).numpy()
    if OWN_BALL[0] <= np.quantile(np.linalg.norm(seen, axis=1), MOST) <= OWN_BALL[1]:
        return UnitBall()
    x, y, z = centre = np.quantile(seen, (1 - MOST, MOST), axis=0).mean(axis=0)
    radius = float(np.quantile(np.linalg.norm(seen - centre, axis=1), MOST))
    return UnitBall((float(x), float(y), float(z)), radius or 1.0)


def _bytes(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """0..1 as 0..255, rounded."""
    return (values.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _filled(values: np.ndarray) -> np.ndarray:
    missing = -len(values) % ROWS
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
