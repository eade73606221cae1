"""The descent: its steps by hand, its rates, one state per sample, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gsdistill.core.errors import ConfigError
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.sds import SDS
from gsdistill.laboratory.descent import Descent, Setup, ddim_rates, descend, independent, repeated
from gsdistill.prior.analytic import plain_schedule
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

FIXED = FSD(guidance_scale=Ramp(1.0, 1.0), noise="fixed", background="same", weighting="uniform")
START = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def setup_of(prior, count: int = 2) -> Setup:
    return Setup(prior, prior.encode_text("", ""), orbit(count, 8))


def follow(prior, method, how, start=START, seed=0, state=None):
    return descend(method, setup_of(prior, len(start)), start, how, torch.Generator().manual_seed(seed), state)


def test_plain_steps_by_hand(gaussian_prior):
    """x' = x - rate g with FSD's g = eps_c(x_t) - eps on N(0.4, 0.3^2), in closed form."""
    method = replace(FIXED, timestep=Ramp(0.9, 0.1))
    found = follow(gaussian_prior, method, Descent(steps=3, optimiser="sgd", rate=Ramp(0.3, 0.1)))
    eps = method.init_state(gaussian_prior, torch.Generator().manual_seed(0))["noise"].double()
    x, schedule = START.clone(), gaussian_prior.schedule
    for t, rate in ((900, 0.3), (500, 0.2), (100, 0.1)):
        alpha, sigma = schedule.alphas[t], schedule.sigmas[t]
        x_t = alpha * x + sigma * eps
        x = x - rate * (sigma * (x_t - alpha * 0.4) / (alpha**2 * 0.09 + sigma**2) - eps)
    torch.testing.assert_close(found.end, x, rtol=1e-6, atol=1e-9)
    assert found.steps == (0, 1, 2, 3)


def test_ddim_rates_fall_to_zero_noise_and_sum_to_all_of_it():
    schedule = plain_schedule()
    rates = ddim_rates(schedule, Ramp(0.98, 0.0), 50)
    ratios = schedule.sigmas / schedule.alphas
    assert len(rates) == 50
    assert min(rates) > 0
    assert sum(rates) == pytest.approx(float(ratios[980]))
    assert rates[-1] == float(ratios[0])
    assert rates[0] == pytest.approx(float(ratios[980] - ratios[960]))


def test_draws_are_averaged(gaussian_prior):
    """On Gaussian data the mean SDS step is known; 4,000 draws are near it, and each has a noise of its own."""
    how = Descent(steps=1, optimiser="sgd", rate=Ramp(1.0, 1.0), draws=4000)
    method = SDS(guidance_scale=Ramp(1.0, 1.0), t_min=Ramp(0.5, 0.5), t_max=Ramp(0.5, 0.5), weighting="uniform")
    alpha, sigma = gaussian_prior.schedule.alphas[500], gaussian_prior.schedule.sigmas[500]
    mean_step = sigma * alpha * (START - 0.4) / (alpha**2 * 0.09 + sigma**2)
    away = START - follow(gaussian_prior, method, how).end - mean_step
    assert float(away.abs().max()) < 0.02
    assert float((START - follow(gaussian_prior, method, replace(how, draws=1)).end - mean_step).abs().max()) > 0.02


@pytest.mark.parametrize("method", [FIXED, CDS()], ids=["fsd", "cds"])
def test_a_sample_with_a_state_of_its_own_does_not_depend_on_the_others(method, gaussian_prior):
    how = Descent(steps=4, optimiser="sgd", rate=Ramp(0.1, 0.1))
    method = replace(method, spread=Ramp(0.001, 0.001)) if isinstance(method, CDS) else method
    both = follow(gaussian_prior, method, how, state=independent(method, gaussian_prior, range(7, 9)))
    alone = follow(gaussian_prior, method, how, START[1:], state=independent(method, gaussian_prior, range(8, 9)))
    torch.testing.assert_close(both.end[1:], alone.end)
    shared = follow(gaussian_prior, method, how)
    assert float((shared.end - both.end).abs().max()) > 1e-3


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "ddim"])
def test_the_same_seed_is_the_same_way(optimiser, gaussian_prior):
    how = Descent(steps=5, optimiser=optimiser)
    first, again, other = (follow(gaussian_prior, SDS(), how, seed=seed).points for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_start_is_left_alone_and_few_points_are_kept(gaussian_prior):
    before = START.clone()
    found = follow(gaussian_prior, SDS(), Descent(steps=50, kept=5))
    assert torch.equal(START, before)
    assert torch.equal(found.points[0], before)
    assert found.steps == (0, 10, 20, 30, 40, 50)
    assert len(found.points) == 6


def test_steps_that_are_too_large_are_named(gaussian_prior):
    with pytest.raises(ConfigError, match=r"rate = .*: at step \d+ a sample is not finite; lower the rate"):
        follow(gaussian_prior, SDS(), Descent(steps=50, optimiser="sgd", rate=Ramp(1e200, 1e200)))


def test_repeated_cameras_stand_one_after_the_other():
    twice = repeated(orbit(3, 8), 2)
    assert twice.azimuths.tolist() == [0.0, 0.0, 120.0, 120.0, 240.0, 240.0]
    assert len(twice.viewmats) == len(twice) == 6


def test_a_prior_that_sees_views_together_is_refused(gaussian_prior):
    gaussian_prior.view_group = 4
    setup = Setup(gaussian_prior, gaussian_prior.encode_text("", ""), orbit(4, 8))
    with pytest.raises(ConfigError, match="analytic sees 4 views together"):
        descend(SDS(), setup, torch.zeros(4, 3, 2, 2), Descent(steps=1), torch.Generator())
