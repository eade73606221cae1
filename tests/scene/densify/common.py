"""What tests of densifiers share: a small scene with its optimisers, renders with given gradients, and checks."""

from __future__ import annotations

import torch
from torch.nn import Parameter

from gsdistill.core.structs import Render

GOOD = torch.tensor(True)


def make_scene(count: int = 6, std: float = 0.02, opacity: float = 0.5):
    """Parameters after one Adam step, so that the optimisers have a state: first moments 0.1 (i + 1) in row i."""
    g = torch.Generator().manual_seed(0)
    params = {
        "means": Parameter(torch.randn(count, 3, generator=g) * 0.3),
        "quats": Parameter(torch.randn(count, 4, generator=g)),
        "scales": Parameter(torch.full((count, 3), std).log()),
        "opacities": Parameter(torch.full((count,), opacity).logit()),
        "sh": Parameter(torch.randn(count, 4, 3, generator=g)),
    }
    optimizers = {name: torch.optim.Adam([value], lr=1e-12) for name, value in params.items()}
    for name, value in params.items():
        rows = torch.arange(1.0, count + 1).reshape(-1, *[1] * (value.dim() - 1))
        value.grad = rows.expand_as(value).clone()
        optimizers[name].step()
    return params, optimizers


def make_render(
    gradients: torch.Tensor, radii: torch.Tensor | None = None, height: int = 32, width: int = 64
) -> Render:
    """A render of B views whose screen gradients [B, N, 2] are given."""
    views, count, _ = gradients.shape
    screen = torch.zeros(views, count, 2)
    screen.grad = gradients
    radii = torch.ones(views, count, dtype=torch.int32) if radii is None else radii
    images, alphas = torch.zeros(views, height, width, 3), torch.zeros(views, height, width, 1)
    return Render(images, alphas, alphas.clone(), screen, radii)


def high(count: int, rows, views: int = 1) -> torch.Tensor:
    """Gradients far above the threshold for some Gaussians, zero for the others."""
    gradients = torch.zeros(views, count, 2)
    gradients[:, rows] = 1.0
    return gradients


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_step(params, optimizers) -> bool:
    """Whether every optimiser holds the present parameter, with a state of its shape, and can step."""
    for name, value in params.items():
        (held,) = optimizers[name].param_groups[0]["params"]
        state = optimizers[name].state[value]
        if held is not value or list(optimizers[name].state) != [value] or not value.requires_grad:
            return False
        if state["exp_avg"].shape != value.shape or state["exp_avg_sq"].shape != value.shape:
            return False
        value.grad = torch.ones_like(value)
        optimizers[name].step()
    return True


def rows_of(optimizers, params, name="means") -> list[float]:
    """First moments of the Adam state, per row, in units that make row i read i + 1; new rows read 0."""
    moments = optimizers[name].state[params[name]]["exp_avg"].flatten(1)[:, 0]
    return [round(value / 0.1, 3) for value in moments.tolist()]
