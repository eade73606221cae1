"""The contract of an initialiser: from a prompt and a random generator to the Gaussians that a run starts from.

An initialiser that yields coloured points (a file, or a model from text to shape) is a :class:`CloudInitialiser`: it
says where the points are, and :class:`CloudSettings` puts a Gaussian on each. The points are thinned to ``limit``. With
a ``radius`` they are centred on their bounding box and scaled so that the farthest lies at that distance; without one
they are only shrunk into the unit ball. The standard deviation at a point is ``scale`` times its mean distance to the
three nearest others, as in B. Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023; the
program of that paper, and those that follow it, have the root of the mean square in place of the mean (``spacing``).

Released programs put more Gaussians around a cloud, and so do these settings, in the units of the cloud as it is made:

* GaussianDreamer tries a million places of the bounding box, uniform, and keeps those nearer than 0.01 to a point, with
  the colour of that point and up to 0.2 more in each channel: ``shell``, ``shell_reach`` and ``shell_tint``.
* LucidDreamer puts 20 Gaussians around each point at the same offsets, whose length is uniform up to 0.05 and whose
  polar angle is uniform, so that they gather at the middle and near the vertical: ``copies`` and ``spread``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import SH_C0, Gaussians, PointCloud
from gsdistill.settings.config import name_of

__all__ = [
    "NEIGHBOURS",
    "CloudInitialiser",
    "CloudSettings",
    "Initialiser",
    "Spacing",
    "SurfaceInitialiser",
    "distances",
    "draw_seed",
    "round_gaussians",
]

Spacing: TypeAlias = Literal["own", "rms"]
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
    scale: float = bounded(1.0, above=0)  # standard deviation over the distance to the three nearest points
    spacing: Spacing = "own"  # what that distance is of the three: own: their mean; rms: the root of their mean square
    deviation: float | None = bounded(None, above=0)  # standard deviation, in place of scale and spacing
    limit: int = bounded(50_000, low=4)  # a larger cloud is thinned to so many points, before copies
    sh_degree: int = bounded(0, low=0, high=3)  # degree of the view-dependent colour, which starts at zero
    colors: Literal["cloud", "grey", "random"] = "cloud"  # the cloud's, mid grey, or a random one for each Gaussian
    copies: int = bounded(1, low=1, high=1_000)  # Gaussians for each point
    spread: float = bounded(0.0, low=0)  # most distance of a copy from its point, in units of the cloud as it is made
    shell: int = bounded(0, low=0, high=10_000_000)  # random places of the box that are tried as further points
    shell_reach: float = bounded(0.01, above=0)  # those nearer than this to a point stay, in units of the cloud
    shell_tint: float = bounded(0.0, low=0, high=1)  # most that is added to a channel of the point's colour

    def __post_init__(self) -> None:
        if self.copies > 1 and not self.spread and not self.deviation:
            raise ConfigError(
                f"init.copies = {self.copies} with init.spread = 0 are in one place, so that the distance between them "
                "gives no size: set init.spread, or init.deviation"
            )

    def dress(self, cloud: PointCloud, generator: torch.Generator, source: str) -> Gaussians:
        """Return Gaussians on every point, or on ``limit`` random ones; ``source`` names the points in errors.

        Points of the shell count as points. ``generator`` is asked only for what the settings need.

        Raises:
            BadFile: fewer than four points, all points in one place, or one whose place or colour is not finite.
        """
        points, colors = cloud.points, cloud.colors
        if not colors.isfinite().all():
            raise BadFile(f"{source}: colours of its {len(points)} points are NaN or infinite")
        _check(points, source)
        if self.shell:
            points, colors = self._with_shell(points, colors, generator)
        if len(points) > self.limit:
            chosen = torch.randperm(len(points), generator=generator)[: self.limit]
            points, colors = points[chosen], colors[chosen]
            _check(points, source)
        if self.copies > 1:
            offsets = self.spread * _crowded(self.copies, generator)
            points = (points[:, None] + offsets).flatten(0, 1)
            colors = colors.repeat_interleave(self.copies, dim=0)
        points = _in_ball(points, self.radius)
        if self.colors != "cloud":
            grey = self.colors == "grey"
            colors = torch.full_like(points, 0.5) if grey else torch.rand(len(points), 3, generator=generator)
        if self.deviation:
            deviations = torch.full((len(points),), self.deviation)
        else:
            deviations = self.scale * distances(points, self.spacing)
        return round_gaussians(points, deviations, self.opacity, colors, self.sh_degree)

    def _with_shell(
        self, points: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "M 3"], Float[Tensor, "M 3"]]:
        """The random places of the bounding box that are near a point, with tinted colours, and the points."""
        from scipy.spatial import KDTree

        low, high = points.amin(dim=0), points.amax(dim=0)
        places = low + (high - low) * torch.rand(self.shell, 3, generator=generator)
        distance, nearest = KDTree(points.numpy()).query(places.numpy())
        near = torch.from_numpy(distance) < self.shell_reach
        shades = colors[torch.from_numpy(nearest)[near]]
        shades = shades + self.shell_tint * torch.rand(shades.shape, generator=generator)
        return torch.cat([places[near], points]), torch.cat([shades, colors])


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
        super().__post_init__()
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


def _check(points: Float[Tensor, "N 3"], source: str) -> None:
    """Refuse points that carry no Gaussians."""
    broken = int((~points.isfinite()).any(dim=-1).sum())
    if broken:
        raise BadFile(f"{source}: {broken} of its {len(points)} points are NaN or infinite")
    if len(points) <= NEIGHBOURS or bool((points == points[0]).all()):
        raise BadFile(f"{source}: a point cloud needs at least four points, not all in one place")


def _crowded(count: int, generator: torch.Generator) -> Float[Tensor, "{count} 3"]:
    """Draw places in the unit ball, their distance from its middle and their polar angle uniform."""
    radius, polar, around = torch.rand(3, count, generator=generator)
    polar, around = torch.pi * polar, 2 * torch.pi * around
    flat = torch.stack([polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()], dim=-1)
    return radius[:, None] * flat


def _in_ball(points: Float[Tensor, "N 3"], radius: float | None) -> Float[Tensor, "N 3"]:
    """Return the points centred on their bounding box and scaled to ``radius``, or only shrunk into the unit ball."""
    exact = points.double()
    if radius is None:
        return (exact / exact.norm(dim=-1).max().clamp_min(1.0)).float()
    centred = exact - 0.5 * (exact.amin(dim=0) + exact.amax(dim=0))
    return (centred * (radius / centred.norm(dim=-1).max())).float()


def distances(points: Float[Tensor, "N 3"], spacing: Spacing) -> Float[Tensor, "N"]:
    """Return the mean, or the root of the mean square, of the distances of each point to its three nearest others.

    For points in one place it is ``LEAST_DISTANCE``.
    """
    from scipy.spatial import KDTree

    places = points.double().numpy()
    found, _ = KDTree(places).query(places, k=NEIGHBOURS + 1)  # the first is the point itself
    found = found[:, 1:]
    means = found.mean(axis=1) if spacing == "own" else (found**2).mean(axis=1) ** 0.5
    return torch.from_numpy(means).float().clamp_min(LEAST_DISTANCE)
