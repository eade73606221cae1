"""Fixtures shared by several rooms' tests."""

from __future__ import annotations

import pytest
import torch

from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.scene.cameras import orbit
from gsdistill.structs import Cameras


def gaussian(mean: float, deviation: float, dimensions: int) -> Mixture:
    """One isotropic Gaussian."""
    return Mixture(
        torch.ones(1, dtype=torch.float64),
        torch.full((1, dimensions), mean, dtype=torch.float64),
        torch.tensor([deviation], dtype=torch.float64),
    )


@pytest.fixture
def gaussian_prior() -> AnalyticPrior:
    """N(0.4, 0.3^2) given the prompt, N(0, 1) without."""
    return AnalyticPrior(gaussian(0.4, 0.3, 12), gaussian(0.0, 1.0, 12), (3, 2, 2))


@pytest.fixture
def cameras() -> Cameras:
    """Four views of 8 pixels."""
    return orbit(4, 8)
