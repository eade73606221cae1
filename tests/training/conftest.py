"""A world whose prompt stands for one blue picture, without which pictures are anything."""

from __future__ import annotations

import pytest
import torch

from gsdistill.prior.analytic import AnalyticPrior, Mixture

SIZE = 8  # pixels, of a latent too


@pytest.fixture(scope="module")
def prior() -> AnalyticPrior:
    blue = torch.tensor([-0.8, -0.8, 0.2], dtype=torch.float64)[:, None, None].expand(3, SIZE, SIZE).reshape(1, -1)
    picture = Mixture(torch.ones(1), blue, torch.tensor([0.2]))
    anything = Mixture(torch.ones(1), torch.zeros(1, 3 * SIZE * SIZE), torch.ones(1))
    return AnalyticPrior(picture, anything, (3, SIZE, SIZE))
