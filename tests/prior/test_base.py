"""The conversions, the guidance rule and the batching of queries."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from diffusers import DDPMScheduler

from gsdistill.core.structs import Condition, Embedding
from gsdistill.models.card import Prediction
from gsdistill.prior.analytic import AnalyticPrior, Mixture, plain_schedule
from gsdistill.prior.base import Query, combine, noise_from_prediction


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


T = torch.tensor([3, 250, 700, 999])


def test_schedule_equals_diffusers(latents):
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = scheduler.add_noise(latents, noise, T)
    torch.testing.assert_close(plain_schedule().add_noise(latents, noise, T), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["v_prediction", "sample", "flow_prediction"])
def test_every_prediction_type_gives_the_same_noise(kind, latents, gaussian_prior, cameras):
    text = gaussian_prior.encode_text("", "")
    other = AnalyticPrior(*reversed(gaussian_prior._mixtures), (3, 2, 2), prediction_type=kind)
    ours = gaussian_prior.noise(latents, T, gaussian_prior.condition(text, cameras))
    theirs = other.noise(latents, T, other.condition(text, cameras))
    torch.testing.assert_close(ours.conditional, theirs.conditional, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ours.unconditional, theirs.unconditional, rtol=1e-8, atol=1e-10)


def test_v_conversion_equals_diffusers_velocity(latents):
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x_t = scheduler.add_noise(latents, noise, T)
    velocity = scheduler.get_velocity(latents, noise, T)
    back = noise_from_prediction(velocity, x_t, T, plain_schedule(), "v_prediction")
    torch.testing.assert_close(back, noise, rtol=1e-4, atol=1e-5)


def test_guidance_of_one_is_none_and_of_zero_is_unconditional(latents, gaussian_prior, cameras):
    noise = gaussian_prior.noise(latents, T, gaussian_prior.condition(gaussian_prior.encode_text("", ""), cameras))
    torch.testing.assert_close(noise.guided(1.0), noise.conditional)
    torch.testing.assert_close(noise.guided(0.0), noise.unconditional)
    torch.testing.assert_close(noise.guided(3.0) - noise.guided(2.0), noise.conditional - noise.unconditional)


def test_queries_of_one_call_equal_calls_one_by_one_and_are_counted(latents, gaussian_prior, cameras):
    condition = gaussian_prior.condition(gaussian_prior.encode_text("", ""), cameras)
    queries = [
        Query(latents, T, "positive"),
        Query(latents.flip(0), T, "negative"),
        Query(latents, T.flip(0), "positive"),
    ]
    together = gaussian_prior.predict_noise(queries, condition)
    assert gaussian_prior.evaluations == 12
    for query, answer in zip(queries, together, strict=True):
        torch.testing.assert_close(gaussian_prior.predict_noise([query], condition)[0], answer)


def test_no_gradient_through_the_network(latents, gaussian_prior, cameras):
    condition = gaussian_prior.condition(gaussian_prior.encode_text("", ""), cameras)
    assert not gaussian_prior.noise(latents.requires_grad_(), T, condition).direction.requires_grad


@pytest.mark.parametrize("kind", get_args(Prediction))
def test_a_student_adds_a_low_rank_map_to_the_conditional_noise(kind, latents, gaussian_prior, cameras):
    """Eps_c + B A (x, 1) whatever the network predicts, differentiable in A and B, and counted."""
    prior = AnalyticPrior(*reversed(gaussian_prior._mixtures), (3, 2, 2), prediction_type=kind)
    condition = prior.condition(prior.encode_text("", ""), cameras)
    query = Query(latents, T, "positive")
    (plain,) = gaussian_prior.predict_noise([query], condition)
    student, generator = prior.student(2), torch.Generator().manual_seed(4)
    weights = student.initial(generator)
    torch.testing.assert_close(student.predict_noise(weights, query, condition), plain, rtol=1e-8, atol=1e-10)
    weights = torch.randn(len(weights), generator=generator).requires_grad_()
    answer = student.predict_noise(weights, query, condition)
    extended = torch.cat([latents.flatten(1), torch.ones(4, 1, dtype=torch.float64)], dim=1)
    expected = extended @ (weights[26:].view(12, 2) @ weights[:26].view(2, 13)).double().T
    torch.testing.assert_close(answer, plain + expected.view_as(plain), rtol=1e-6, atol=1e-6)
    assert prior.evaluations == 8
    slope, by_hand = (torch.autograd.grad(noise.sum(), weights)[0] for noise in (answer, expected))
    torch.testing.assert_close(slope, by_hand)


def test_perp_neg_direction_by_hand():
    eps = {
        "negative": torch.zeros(1, 1, 1, 2),
        "positive": torch.tensor([[[[2.0, 0.0]]]]),
        "perp0": torch.tensor([[[[5.0, 3.0]]]]),
    }
    condition = Condition({name: Embedding(torch.zeros(1, 1, 1)) for name in eps}, torch.tensor([[-0.5]]))
    torch.testing.assert_close(combine(eps, condition).direction, torch.tensor([[[[2.0, -1.5]]]]))


def test_perp_neg_where_the_prompt_says_nothing_keeps_the_whole_of_the_others():
    """H = 0 has no direction to be perpendicular to; nothing is divided by zero."""
    zero, other = torch.zeros(1, 1, 1, 2), torch.tensor([[[[5.0, 3.0]]]])
    eps = {"negative": zero, "positive": zero, "perp0": other}
    condition = Condition({name: Embedding(torch.zeros(1, 1, 1)) for name in eps}, torch.tensor([[-0.5]]))
    torch.testing.assert_close(combine(eps, condition).direction, -0.5 * other)


def test_exact_noise_is_the_score_of_the_exact_density(latents):
    mixture = Mixture(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.randn(2, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
        torch.tensor([0.5, 0.2], dtype=torch.float64),
    )
    x = latents.flatten(1).requires_grad_()
    alpha, sigma = torch.full((4, 1), 0.8, dtype=torch.float64), torch.full((4, 1), 0.6, dtype=torch.float64)
    (score,) = torch.autograd.grad(mixture.log_density(x, alpha, sigma).sum(), x)
    torch.testing.assert_close(mixture.noise(x, alpha, sigma), -0.6 * score)


def test_exact_density_integrates_to_one():
    mixture = Mixture(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0], [2.0]]), torch.tensor([0.5, 1.0]))
    x = torch.linspace(-12, 12, 4001)[:, None]
    density = mixture.log_density(x, torch.ones(4001, 1), torch.full((4001, 1), 0.1)).exp()
    assert float(torch.trapezoid(density, x[:, 0])) == pytest.approx(1.0, abs=1e-4)
