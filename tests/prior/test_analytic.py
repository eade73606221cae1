"""The exact denoiser of a finite set of images and mixtures in any dimension, against brute force in high precision."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import pytest
import torch

from gsdistill.prior.analytic import AnalyticPrior, Mixture, plain_schedule

SHAPE = (3, 4, 4)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def posterior_mean(x: list[float], images: list[list[float]], weights: list[float], alpha: float, sigma: float):
    """E[x0 | x] by the definition, in 60 digits, one image after the other."""
    getcontext().prec = 60
    a, s = Decimal(alpha), Decimal(sigma)
    shares = []
    for image, weight in zip(images, weights, strict=True):
        squared = sum((Decimal(p) - a * Decimal(q)) ** 2 for p, q in zip(x, image, strict=True))
        shares.append(Decimal(weight) * (-squared / (2 * s * s)).exp())
    whole = sum(shares)
    return [float(sum(w * Decimal(i[d]) for w, i in zip(shares, images, strict=True)) / whole) for d in range(len(x))]


@pytest.mark.parametrize("t", [0, 40, 400, 999])
def test_the_denoiser_of_images_is_the_posterior_mean(t):
    images, weights = random(5, *SHAPE), torch.tensor([1.0, 2.0, 0.0, 4.0, 3.0])
    mixture, schedule = Mixture.of_images(images, weights), plain_schedule()
    alpha, sigma = schedule.alphas[t].expand(2, 1), schedule.sigmas[t].expand(2, 1)
    x = alpha * images[[0, 3]].flatten(1) + sigma * random(2, 48, seed=1)
    x0 = (x - sigma * mixture.noise(x, alpha, sigma)) / alpha
    for row, found in zip(x.tolist(), x0, strict=True):
        expected = posterior_mean(
            row, images.flatten(1).tolist(), [0.1, 0.2, 0.0, 0.4, 0.3], float(alpha[0]), float(sigma[0])
        )
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_float32_images_almost_alike_are_told_apart_near_t_0():
    """Two images 0.01 apart in one of 3,072 numbers: in float32 their squared distances would be equal."""
    first = random(1, 3, 32, 32)
    second = first.clone()
    second[0, 0, 0, 0] += 0.01
    mixture = Mixture.of_images(torch.cat([first, second]).float())
    level = torch.tensor([[0.003]])
    x = (1 - level**2).sqrt() * second.flatten(1).float()
    x0 = (x - level * mixture.noise(x, (1 - level**2).sqrt(), level)) / (1 - level**2).sqrt()
    share = 1 / (1 + math.exp(-(0.01**2) * (1 - 0.003**2) / (2 * 0.003**2)))
    assert float(x0[0, 0] - first.flatten()[0]) == pytest.approx(0.01 * share, abs=2e-5)


def test_answers_have_the_type_of_the_question_and_are_the_same():
    mixture, level = Mixture.of_images(random(4, *SHAPE)), torch.full((2, 1), 0.6)
    x = random(2, 48, seed=2)
    double = mixture.noise(x, level.double(), level.double())
    single = mixture.noise(x.float(), level, level)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, double.float(), rtol=1e-5, atol=1e-5)
    assert mixture.log_density(x.float(), level, level).dtype == torch.float32


def test_far_away_and_at_the_lowest_level_it_is_finite():
    mixture, schedule = Mixture.of_images(random(6, *SHAPE)), plain_schedule()
    for t, scale in ((0, 1e3), (0, 0.0), (999, 1e3)):
        x = scale * random(3, 48, seed=3)
        assert bool(mixture.noise(x, schedule.alphas[t].expand(3, 1), schedule.sigmas[t].expand(3, 1)).isfinite().all())


def test_images_all_alike_are_one_point():
    image, level = random(1, *SHAPE), torch.full((3, 1), 0.5, dtype=torch.float64)
    x = random(3, 48, seed=4)
    noise = Mixture.of_images(image.expand(7, -1, -1, -1)).noise(x, level, level)
    torch.testing.assert_close(noise, (x - level * image.flatten(1)) / level)


def test_a_mixture_in_many_dimensions_is_the_score_of_its_density():
    mixture = Mixture(torch.tensor([0.2, 0.8]).double(), random(2, 30), torch.tensor([0.0, 0.7]).double())
    x = random(4, 30, seed=5).requires_grad_()
    alpha, sigma = torch.full((4, 1), 0.8, dtype=torch.float64), torch.full((4, 1), 0.6, dtype=torch.float64)
    (score,) = torch.autograd.grad(mixture.log_density(x, alpha, sigma).sum(), x)
    torch.testing.assert_close(mixture.noise(x, alpha, sigma).detach(), -0.6 * score)


def test_images_become_a_prior_whose_ode_ends_on_one_of_them(cameras):
    images = random(5, *SHAPE)
    mixture = Mixture.of_images(images)
    prior = AnalyticPrior(mixture, mixture, SHAPE)
    condition = prior.condition(prior.encode_text("", ""), cameras)
    x = random(4, *SHAPE, seed=6)
    for here, after in zip(range(990, -1, -10), [*range(980, -1, -10), 0], strict=True):
        t, to = torch.full((4,), here), torch.full((4,), after)
        x = prior.schedule.ddim_step(x, prior.noise(x, t, condition).conditional, t, to)
    assert float(torch.cdist(x.flatten(1), images.flatten(1)).min(1).values.max()) < 0.35  # sigma_0 sqrt(48) = 0.2


@pytest.mark.parametrize("weights", [[1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [float("nan"), 1.0, 1.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match=r"3 images need as many weights >= 0 with a positive sum"):
        Mixture.of_images(random(3, *SHAPE), torch.tensor(weights))


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="0 images"):
        Mixture.of_images(torch.zeros(0, *SHAPE))
