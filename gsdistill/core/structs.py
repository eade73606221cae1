"""The values that rooms pass to each other: frozen dataclasses of tensors, with the shapes written on the fields.

Letters: N Gaussians, K SH coefficients, B views (cameras), H and W pixels, C h w latent channels and size,
L text tokens, D their width, F camera features.

Gaussians, points, cameras and renders are compared by identity, for comparing tensors gives no single answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gsdistill.core.device import widest_float
from gsdistill.core.ranges import bounded

__all__ = [
    "SH_C0",
    "Cameras",
    "Condition",
    "Embedding",
    "Gaussians",
    "Guidance",
    "PointCloud",
    "Render",
    "RenderOptions",
    "Views",
    "on_processor",
    "send",
    "to_device",
]

SH_C0 = 0.28209479177387814  # the constant real spherical harmonic: colour = 0.5 + SH_C0 * sh0

T = TypeVar("T")


@dataclass(frozen=True)
class RenderOptions:
    """How Gaussians become pixels."""

    # Gaussians nearer to the camera than this are culled (world units along the optical axis).
    near: float = bounded(0.1, above=0.0)
    # Gaussians farther than this are culled.
    far: float = bounded(100.0, above=0.0)
    # Square pixels added to the diagonal of the screen covariance, a low-pass filter.
    eps2d: float = bounded(0.3, low=0.0)
    # Dim every Gaussian by the area that the low-pass filter adds, so that distant ones do not grow (Mip-Splatting).
    antialiased: bool = False

    def elsewhere(self) -> RenderOptions:
        """The same with the default ``near`` and ``far``, for a scene that was moved or scaled, unlike its cameras."""
        return replace(self, near=RenderOptions.near, far=RenderOptions.far)

    def unusual(self) -> dict[str, float | bool]:
        """The options that differ from the defaults, by name."""
        return {name: value for name, value in vars(self).items() if value != getattr(RenderOptions, name)}

    def __str__(self) -> str:
        words = (f"{name} {str(value).lower()}" for name, value in self.unusual().items())
        return ", ".join(words) or "the usual options"


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A splat scene in its unconstrained parameters, the ones that are optimised and saved.

    World axes: right-handed, +z up, the object inside the unit ball, its front towards +x. With other render
    options the same parameters give another picture, so everyone draws a scene with the scene's own options.
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]  # w x y z, any length but zero
    scales: Float[Tensor, "N 3"]  # natural logarithm of the standard deviations
    opacities: Float[Tensor, "N"]  # logit
    sh: Float[Tensor, "N K 3"]  # real spherical harmonics, K = (degree + 1)^2
    options: RenderOptions = field(default=RenderOptions(), kw_only=True)  # with which it was optimised and is drawn

    def __len__(self) -> int:
        return self.means.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """The five parameter tensors by name, in the order of the fields."""
        return {name: value for name, value in vars(self).items() if name != "options"}

    def each(self, change: Callable[[Tensor], Tensor]) -> Gaussians:
        """The scene with ``change`` applied to every parameter tensor."""
        return replace(self, **{name: change(value) for name, value in self.tensors().items()})

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0..3."""
        return round(self.sh.shape[1] ** 0.5) - 1


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Coloured points in world axes; an initialiser centres them and scales them into the unit ball."""

    points: Float[Tensor, "N 3"]
    colors: Float[Tensor, "N 3"]  # red, green and blue, 0..1

    def __len__(self) -> int:
        return self.points.shape[0]


@dataclass(frozen=True, eq=False)
class Cameras:
    """A batch of pinhole cameras of one image size.

    The angles and distances place a camera around the point that it looks at, for priors and methods that are told
    where it stands; its true position is in ``viewmats`` alone. A jittered camera keeps those from before.
    """

    viewmats: Float[Tensor, "B 4 4"]  # world to camera, OpenCV axes: x right, y down, z forward
    Ks: Float[Tensor, "B 3 3"]  # intrinsics in pixels, pixel centres at +0.5
    width: int
    height: int
    azimuths: Float[Tensor, "B"]  # degrees, 0 sees the front, counter-clockwise seen from above
    elevations: Float[Tensor, "B"]  # degrees above the horizon
    distances: Float[Tensor, "B"]  # from what it looks at, world units

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def pick(self, which: slice | Int[Tensor, "K"]) -> Cameras:
        """Some of the cameras, by a slice or by indices, which may repeat."""
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: value[which] for name, value in tensors.items()})


@dataclass(frozen=True, eq=False)
class Render:
    """What a renderer returns for B cameras."""

    images: Float[Tensor, "B H W 3"]  # 0..1 up to SH overshoot, composed over the background
    alphas: Float[Tensor, "B H W 1"]  # accumulated opacity, 0..1
    depths: Float[Tensor, "B H W 1"]  # camera-space z summed with the blending weights (divide by alpha for a mean)
    screen: Float[Tensor, "B N 2"]  # after backward its .grad is the loss gradient of the projected means, in pixels
    radii: Int[Tensor, "B N"]  # screen radius in pixels, 0 where culled


@dataclass(frozen=True)
class Views:
    """Rendered views as a distillation method sees them: in the prior's own space, without the scene behind them."""

    latents: Float[Tensor, "B C h w"]  # x0, detached
    alphas: Float[Tensor, "B 1 h w"]  # accumulated opacity averaged over the pixels of a latent, 0..1
    cameras: Cameras

    def __len__(self) -> int:
        return self.latents.shape[0]


@dataclass(frozen=True)
class Embedding:
    """Encoded text for B views."""

    tokens: Float[Tensor, "B L D"]
    pooled: Float[Tensor, "B P"] | None = None
    mask: Bool[Tensor, "B L"] | None = None  # which tokens are text; None: the network reads all

    def pick(self, rows: Int[Tensor, "K"]) -> Embedding:
        """Some of the rows, by indices, which may repeat."""
        pooled, mask = (None if item is None else item[rows] for item in (self.pooled, self.mask))
        return Embedding(self.tokens[rows], pooled, mask)

    def mix(self, other: Embedding, share: Float[Tensor, "B"]) -> Embedding:
        """(1 - share) times this plus ``share`` (0..1) times the other, row by row; the masks are united."""
        pooled = None
        if self.pooled is not None and other.pooled is not None:
            pooled = torch.lerp(self.pooled, other.pooled, share.to(self.pooled)[:, None])
        mask = None if self.mask is None or other.mask is None else self.mask | other.mask
        return Embedding(torch.lerp(self.tokens, other.tokens, share.to(self.tokens)[:, None, None]), pooled, mask)

    @staticmethod
    def join(parts: Sequence[Embedding]) -> Embedding:
        """The rows of all parts, which must come from one text encoder."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        masks = [part.mask for part in parts if part.mask is not None]
        tokens = torch.cat([part.tokens for part in parts])
        return Embedding(tokens, torch.cat(pooled) if pooled else None, torch.cat(masks) if masks else None)


@dataclass(frozen=True)
class Condition:
    """What a prior is conditioned on for B views: text branches, and the cameras as features."""

    # "positive", "negative" (the empty or negative prompt), "perp0", "perp1", ..., and those that only methods ask for
    branches: Mapping[str, Embedding]
    perp_weights: Float[Tensor, "B R"]  # one column per perp branch; R = 0: plain guidance
    cameras: Float[Tensor, "B F"] | None = None  # features for a camera-conditioned prior

    @property
    def guiding(self) -> list[str]:
        """The names of the branches that guidance is made of."""
        return ["positive", "negative", *(f"perp{column}" for column in range(self.perp_weights.shape[1]))]


@dataclass(frozen=True)
class Guidance:
    """What a distillation method returns for B latents."""

    gradient: Float[Tensor, "B C h w"]  # the optimiser descends along it: x0 <- x0 - lr * gradient
    evaluations: int  # samples that went through the network
    figures: Mapping[str, Tensor] = field(default_factory=dict)  # scalar tensors for the log


def on_processor(gaussians: Gaussians) -> Gaussians:
    """The splat detached, as contiguous float32 on the CPU. Tensors that are so already are shared, not copied."""
    return gaussians.each(lambda value: value.detach().to("cpu").float().contiguous())


def to_device(value: T, device: torch.device | str) -> T:
    """Return ``value`` (a struct, a mapping, a tensor, or anything else) with every tensor on ``device``.

    float64 becomes float32 on a device without float64.
    """
    moved: Any = value
    if isinstance(value, torch.Tensor):
        widest = widest_float(torch.device(device))
        moved = value.to(device, widest if value.dtype == torch.float64 else value.dtype)
    elif isinstance(value, Mapping):
        moved = {key: to_device(item, device) for key, item in value.items()}
    elif hasattr(value, "__dataclass_fields__"):
        names = [f.name for f in fields(moved)]
        moved = replace(moved, **{name: to_device(getattr(moved, name), device) for name in names})
    return moved


def send(value: Tensor, like: Tensor) -> Tensor:
    """``value`` on the device of ``like``, and in its type if it is a floating one.

    From the CPU to an accelerator the copy goes through pinned memory and is queued, so that nothing waits for it.
    """
    dtype, queued = like.dtype if value.is_floating_point() else value.dtype, like.device.type != "cpu"
    if queued and value.device.type == "cpu" and torch.accelerator.is_available():
        value = value.pin_memory()
    return value.to(like.device, dtype, non_blocking=queued)
