"""The contract of an initialiser: from a prompt and a random generator to the Gaussians that a run starts from.

An initialiser that yields coloured points (a file, or a model from text to shape) is a :class:`CloudInitialiser`: it
says where the points are, and :class:`CloudSettings` puts a Gaussian on each. The points are thinned to ``limit``. With
a ``radius`` they are centred on their bounding box and scaled so that the farthest lies at that distance; without one
they are only shrunk into the unit ball. The standard deviation at a point is ``scale`` times its mean distance to the
three nearest others, as in B. Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import SH_C0, Gaussians, PointCloud
from gsdistill.settings.config import name_of

__all__ = ["CloudInitialiser", "CloudSettings", "Initialiser", "SurfaceInitialiser", "draw_seed", "round_gaussians"]

NEIGHBOURS = 3
LEAST_DISTANCE = 1e-4  # world units; for points in one place, since the logarithm of zero is no scale


class Initialiser(ABC):
    """Settings of one way to start; subclasses are final frozen dataclasses."""

    @abstractmethod
    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return float32 Gaussians on the CPU, their means in the unit ball; ``device`` is where a model may compute.

        The same state of the generator gives the same values and ends in the same state.
        """


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """How Gaussians are put on the points of a cloud."""

    # distance of the farthest point from the origin, world units; none: as made, shrunk if it leaves the unit ball
    radius: float | None = bounded(0.9, above=0, high=1)
    opacity: float = bounded(0.2, above=0, below=1)  # of each Gaussian, a probability
    scale: float = bounded(1.0, above=0)  # standard deviation over the mean distance to the three nearest points
    limit: int = bounded(50_000, low=4)  # a larger cloud is thinned to this many random points
    sh_degree: int = bounded(0, low=0, high=3)  # degree of the view-dependent colour, which starts at zero

    def dress(self, cloud: PointCloud, generator: torch.Generator, source: str) -> Gaussians:
        """Return a Gaussian on every point, or on ``limit`` random ones; ``source`` names the points in errors.

        Raises:
            BadFile: fewer than four points, all points in one place, or one whose place or colour is not finite.
        """
        points, colors = cloud.points, cloud.colors
        if not colors.isfinite().all():
            raise BadFile(f"{source}: colours of its {len(points)} points are NaN or infinite")
        if len(points) > self.limit:
            chosen = torch.randperm(len(points), generator=generator)[: self.limit]
            points, colors = points[chosen], colors[chosen]
        points = _in_ball(points, self.radius, source)
        deviations = self.scale * _mean_distance(points).clamp_min(LEAST_DISTANCE)
        return round_gaussians(points, deviations, self.opacity, colors, self.sh_degree)


@dataclass(frozen=True, kw_only=True)
class CloudInitialiser(CloudSettings, Initialiser):
    """Base of initialisers that say where coloured points are."""

    @abstractmethod
    def cloud(self, prompt: str, generator: torch.Generator, device: torch.device | str) -> PointCloud:
        """Return float32 points on the CPU in our axes (+z up, the front towards +x), at any place and of any size."""

    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return Gaussians on the points of :meth:`cloud`. Raises what :meth:`cloud` and :meth:`dress` raise."""
        return self.dress(self.cloud(prompt, generator, device), generator, f"init {name_of(self)}")


@dataclass(frozen=True, kw_only=True)
class SurfaceInitialiser(CloudInitialiser):
    """Base of initialisers whose points lie on a surface of triangles."""

    count: int = bounded(4_096, low=4, high=1_000_000)  # points on the surface
    azimuth: float = bounded(0.0, low=-360, high=360)  # degrees to turn the object by, counter-clockwise from above

    def __post_init__(self) -> None:
        if self.count > self.limit:
            raise ConfigError(f"init.count = {self.count} exceeds init.limit = {self.limit}; raise the limit too")


def draw_seed(generator: torch.Generator) -> int:
    """Draw a seed in 0..2^62 - 1 from the run's generator, for code with a generator of its own."""
    return int(torch.randint(2**62, (), generator=generator))


def round_gaussians(
    means: Float[Tensor, "N 3"],
    deviations: Float[Tensor, "N"],
    opacity: float,
    colors: Float[Tensor, "N 3"],
    sh_degree: int,
) -> Gaussians:
    """Return isotropic, unrotated Gaussians of one opacity (a probability).

    ``deviations`` are standard deviations in world units; ``colors``, 0..1, do not depend on the view.
    """
    count = len(means)
    sh = torch.zeros(count, (sh_degree + 1) ** 2, 3)
    sh[:, 0] = (colors - 0.5) / SH_C0
    return Gaussians(
        means=means.float(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=deviations.float().log()[:, None].repeat(1, 3),
        opacities=torch.full((count,), opacity).logit(),
        sh=sh,
    )


def _in_ball(points: Float[Tensor, "N 3"], radius: float | None, source: str) -> Float[Tensor, "N 3"]:
    """Return the points centred on their bounding box and scaled to ``radius``, or only shrunk into the unit ball."""
    broken = int((~points.isfinite()).any(dim=-1).sum())
    if broken:
        raise BadFile(f"{source}: {broken} of its {len(points)} points are NaN or infinite")
    if len(points) <= NEIGHBOURS or bool((points == points[0]).all()):
        raise BadFile(f"{source}: a point cloud needs at least four points, not all in one place")
    exact = points.double()
    if radius is None:
        return (exact / exact.norm(dim=-1).max().clamp_min(1.0)).float()
    centred = exact - 0.5 * (exact.amin(dim=0) + exact.amax(dim=0))
    return (centred * (radius / centred.norm(dim=-1).max())).float()


def _mean_distance(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """Return the mean distance of each point to its three nearest others."""
    from scipy.spatial import KDTree

    places = points.double().numpy()
    distances, _ = KDTree(places).query(places, k=NEIGHBOURS + 1)  # the first is the point itself
    return torch.from_numpy(distances[:, 1:].mean(axis=1)).float()
