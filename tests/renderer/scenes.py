"""Small random scenes, cameras with awkward images, and one way to get everything that a renderer returns."""

from __future__ import annotations

from dataclasses import replace

import torch

from gsdistill.core.structs import Cameras, Gaussians, RenderOptions
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import orbit

DEFAULTS = RenderOptions()
PARAMETERS = ("means", "quats", "scales", "opacities", "sh")


def ball(count: int, degree: int = 0, size: float = 0.1, stretch: float = 0.4, seed: int = 0) -> Gaussians:
    """Random Gaussians in a ball, scales around ``size``, their logarithms spread by ``stretch``."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    return Gaussians(
        means=normal(count, 3) * 0.4,
        quats=normal(count, 4),
        scales=normal(count, 3) * stretch + torch.tensor(size).log(),
        opacities=normal(count) * 1.5,
        sh=normal(count, (degree + 1) ** 2, 3) * 0.4,
    )


def views(count: int = 2, width: int = 27, height: int = 20, distance: float = 2.5) -> Cameras:
    """Cameras whose images are not square, not whole tiles, and whose axes do not meet their centres."""
    cameras = orbit(count, 32, elevation=25.0, distance=distance)
    K = torch.tensor([[30.0, 0.0, 12.5], [0.0, 33.0, 10.75], [0.0, 0.0, 1.0]]).repeat(count, 1, 1)
    return replace(cameras, Ks=K, width=width, height=height)


def one_view(cameras: Cameras, index: int) -> Cameras:
    one = slice(index, index + 1)
    return Cameras(
        cameras.viewmats[one],
        cameras.Ks[one],
        cameras.width,
        cameras.height,
        cameras.azimuths[one],
        cameras.elevations[one],
        cameras.distances[one],
    )


def cast(cameras: Cameras, dtype: torch.dtype, device: str = "cpu") -> Cameras:
    return replace(cameras, viewmats=cameras.viewmats.to(device, dtype), Ks=cameras.Ks.to(device, dtype))


def loss_weights(shape: torch.Size, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything(
    gaussians: Gaussians,
    cameras: Cameras,
    backend: str,
    options: RenderOptions = DEFAULTS,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> dict[str, torch.Tensor]:
    """Pictures, radii, and under ``d_*`` the gradients of a random linear loss of the pictures, all in float64."""
    leaves = {name: getattr(gaussians, name).detach().to(device, dtype).requires_grad_() for name in PARAMETERS}
    backgrounds = torch.linspace(0, 1, 3 * len(cameras)).reshape(-1, 3).to(device, dtype)
    result = render(Gaussians(**leaves, options=options), cast(cameras, dtype, device), backgrounds, backend)
    pictures = {"images": result.images, "alphas": result.alphas, "depths": result.depths}
    loss = sum(
        (value * loss_weights(value.shape, seed).to(device, dtype)).sum()
        for seed, value in enumerate(pictures.values())
    )
    loss.backward()
    found = {name: value.detach() for name, value in pictures.items()}
    found |= {f"d_{name}": leaf.grad for name, leaf in leaves.items()} | {"d_screen": result.screen.grad}
    return {name: value.cpu().double() for name, value in found.items()} | {"radii": result.radii.cpu()}
