"""CFG rescale against the sums written out, and against diffusers' own on x0."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from gsdistill.prior.analytic import plain_schedule
from gsdistill.prior.base import Noise, Rescale, combine
from gsdistill.scene.viewpoints import orbit

SCHEDULE = plain_schedule()
T = torch.tensor([20, 20, 20, 20, 500, 500, 500, 500])


def draw(seed: int) -> torch.Tensor:
    return torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, CONDITIONAL, UNCONDITIONAL = draw(0), draw(1), 0.5 * draw(2)


def guided(share: float, group: int, omega: float = 30.0) -> torch.Tensor:
    alpha, sigma = SCHEDULE.at(T, X)
    rescale = Rescale(X, alpha, sigma, share, group)
    return Noise(CONDITIONAL, UNCONDITIONAL, CONDITIONAL - UNCONDITIONAL, rescale).guided(omega)


def x0_of(eps: torch.Tensor) -> torch.Tensor:
    alpha, sigma = SCHEDULE.at(T, X)
    return (X - sigma * eps) / alpha


def deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_rescale_by_sums(share, group):
    answer = guided(share, group)
    for first in range(0, 8, group):
        rows = slice(first, first + group)
        alpha, sigma = (float(levels[int(T[first])]) for levels in (SCHEDULE.alphas, SCHEDULE.sigmas))
        eps = [u + 30.0 * (c - u) for c, u in zip(flat(CONDITIONAL[rows]), flat(UNCONDITIONAL[rows]), strict=True)]
        x0 = [(x - sigma * e) / alpha for x, e in zip(flat(X[rows]), eps, strict=True)]
        plain = [(x - sigma * e) / alpha for x, e in zip(flat(X[rows]), flat(CONDITIONAL[rows]), strict=True)]
        factor = deviation(plain) / deviation(x0)
        x0 = [share * factor * value + (1 - share) * value for value in x0]
        expected = [(x - alpha * value) / sigma for x, value in zip(flat(X[rows]), x0, strict=True)]
        torch.testing.assert_close(answer[rows].flatten(), torch.tensor(expected, dtype=torch.float64))


def flat(values: torch.Tensor) -> list[float]:
    return values.flatten().tolist()


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_view_by_view_it_is_diffusers_rescale_on_x0(share):
    plain = UNCONDITIONAL + 30.0 * (CONDITIONAL - UNCONDITIONAL)
    theirs = rescale_noise_cfg(x0_of(plain), x0_of(CONDITIONAL), share)
    torch.testing.assert_close(x0_of(guided(share, 1)), theirs)


def test_of_share_one_a_group_is_as_contrasty_as_without_guidance():
    x0, plain = x0_of(guided(1.0, 4)), x0_of(CONDITIONAL)
    for rows in (slice(0, 4), slice(4, 8)):
        torch.testing.assert_close(x0[rows].std(), plain[rows].std())
    assert float((x0[0].std() - plain[0].std()).abs()) > 1e-3  # the views of it are not, each alone


@pytest.mark.parametrize("group", [1, 4])
def test_without_guidance_nothing_is_rescaled(group):
    torch.testing.assert_close(guided(0.7, group, omega=1.0), CONDITIONAL)


def test_a_prior_hands_its_share_and_group_on(gaussian_prior):
    prior = gaussian_prior
    condition = prior.condition(prior.encode_text("", ""), orbit(8, 8))
    plain = prior.noise(X, T, condition)
    assert plain.rescale is None
    torch.testing.assert_close(plain.guided(9.0), plain.unconditional + 9.0 * plain.direction)
    prior.guidance_rescale, prior.view_group = 0.5, 4
    noise = prior.noise(X, T, condition)
    assert noise.rescale is not None and (noise.rescale.share, noise.rescale.group) == (0.5, 4)
    alpha, sigma = prior.schedule.at(T, X)
    eps = {"positive": noise.conditional, "negative": noise.unconditional}
    expected = combine(eps, condition, Rescale(X, alpha, sigma, 0.5, 4)).guided(9.0)
    assert torch.equal(noise.guided(9.0), expected)
    assert float((noise.guided(9.0) - plain.guided(9.0)).abs().max()) > 1e-3
