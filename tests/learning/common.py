"""A small regression that several tests of learning share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gsdistill.learning.stream import Key
from gsdistill.learning.trainer import Trainer, TrainerSettings

TRUTH = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.0, 2.0]], dtype=torch.float64)


def draw(key: Key) -> dict[str, Tensor]:
    """Four inputs and what the truth makes of them."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(key.number), dtype=torch.float64)
    return {"x": x, "y": x @ TRUTH.T}


def loss(network, batch, progress) -> Tensor:
    """Squared error with noise of the trainer's own on the target, which fades out."""
    noise = 0.1 * (1.0 - progress) * torch.randn_like(batch["y"])
    return (network(batch["x"]) - batch["y"] - noise).square().mean()


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)).double()


def settings(**changes) -> TrainerSettings:
    return TrainerSettings(**({"steps": 12, "lr": 0.03, "warmup": 3, "ema": 0.8, "seed": 5} | changes))


def trainer(**changes) -> Trainer:
    return Trainer(model(), loss, draw, settings(**changes))


def everything(run: Trainer) -> list[Tensor]:
    """Weights, averaged weights and moments."""
    moments = [value for optimizer in run.optimizers for state in optimizer.state.values() for value in state.values()]
    return [*run.model.state_dict().values(), *run.average.weights.values(), *moments]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether all is the same to the last bit."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
