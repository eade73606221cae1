"""CDS in closed form on Gaussian data: the attractor x0 = mu - s_t eps*, the sign, the schedules, the rescaling."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from views import views_of

from gsdistill.distillation.cds import CDS
from gsdistill.errors import ConfigError
from gsdistill.ramp import Ramp

PLAIN = CDS(
    guidance_scale=Ramp(1.0, 1.0),
    near=Ramp(0.3, 0.3),
    gap=Ramp(0.1, 0.1),
    spread=Ramp(0.001, 0.001),
    clip=Ramp(0.0, 0.0),
)  # t = n + gap exactly, no guidance, no clipping


def run(method, prior, latents, cameras, progress=0.0, seed=0, state=None):
    generator = torch.Generator().manual_seed(seed)
    condition = prior.condition(prior.encode_text("", ""), cameras)
    state = method.init_state(prior, generator) if state is None else state
    guidance, after = method.gradient(prior, views_of(latents, cameras), condition, progress, state, generator)
    return guidance, state, after


def ratio(prior, t):
    return prior.schedule.sigmas[t] / prior.schedule.alphas[t]


def test_gradient_in_closed_form(gaussian_prior, cameras):
    """g = e1 - e2 = (x0 + s_t eps* - mu) tau^2 (s_t - s_n) / ((tau^2 + s_t^2)(tau^2 + s_n^2))."""
    latents = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    guidance, state, _ = run(PLAIN, gaussian_prior, latents, cameras)
    s_t, s_n, tau2 = ratio(gaussian_prior, 400), ratio(gaussian_prior, 300), 0.09
    factor = tau2 * (s_t - s_n) / ((tau2 + s_t**2) * (tau2 + s_n**2))
    expected = (latents + s_t * state["noise"].double() - 0.4) * factor
    torch.testing.assert_close(guidance.gradient, expected, rtol=1e-6, atol=1e-9)


def test_attractor_is_the_mean_minus_the_scaled_noise(gaussian_prior, cameras):
    state = PLAIN.init_state(gaussian_prior, torch.Generator().manual_seed(0))
    attractor = (0.4 - ratio(gaussian_prior, 400) * state["noise"].double()).expand(4, -1, -1, -1)
    guidance, *_ = run(PLAIN, gaussian_prior, attractor, cameras)
    assert float(guidance.gradient.abs().max()) < 1e-9
    away, *_ = run(PLAIN, gaussian_prior, attractor + 0.1, cameras)
    assert bool((away.gradient > 0).all())  # descending goes back: the released program's sign


def test_antithetic_noise_is_unbiased(gaussian_prior, cameras):
    """Two steps with +eps* and -eps* have a mean gradient that vanishes exactly at mu."""
    method = replace(PLAIN, noise="antithetic")
    latents = torch.full((4, 3, 2, 2), 0.4, dtype=torch.float64)
    first, _, after = run(method, gaussian_prior, latents, cameras)
    second, _, again = run(method, gaussian_prior, latents, cameras, state=after)
    assert float(first.gradient.abs().max()) > 1e-3
    torch.testing.assert_close(first.gradient, -second.gradient)
    torch.testing.assert_close(again["noise"], -after["noise"])


def test_fixed_noise_is_one_for_all_steps_and_views_and_fresh_is_not(gaussian_prior, cameras):
    latents = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    fixed, state, after = run(PLAIN, gaussian_prior, latents, cameras, seed=3)
    torch.testing.assert_close(after["noise"], state["noise"])
    torch.testing.assert_close(fixed.gradient[0], fixed.gradient[3])
    fresh, *_ = run(replace(PLAIN, noise="fresh"), gaussian_prior, latents, cameras, seed=3)
    assert float((fresh.gradient[0] - fresh.gradient[3]).abs().max()) > 1e-3


def test_timesteps_fall_and_stay_in_bounds(gaussian_prior, cameras):
    method = CDS()
    generator = torch.Generator().manual_seed(0)
    for progress, near in ((0.0, 700), (0.25, 400), (1.0, 100)):
        n, t = method._timesteps(progress, 2000, gaussian_prior, generator)
        assert set(n.tolist()) == {near}
        assert int((t - n).min()) == 100
        assert int(t.max()) == min(near + 299, 980)
    n, t = replace(method, near=Ramp(0.98, 0.0))._timesteps(0.0, 10, gaussian_prior, generator)
    assert (int(n[0]), int(t.max())) == (880, 980)
    assert int(replace(method, near=Ramp(0.0, 0.0))._timesteps(0.0, 1, gaussian_prior, generator)[0]) == 100


def test_clipping_is_elementwise_and_rises(gaussian_prior, cameras):
    latents = torch.full((4, 3, 2, 2), 50.0, dtype=torch.float64)
    method = replace(PLAIN, clip=Ramp(0.1, 0.2))
    for progress, limit in ((0.0, 0.1), (1.0, 0.2)):
        guidance, *_ = run(method, gaussian_prior, latents, cameras, progress)
        assert float(guidance.gradient.abs().max()) == pytest.approx(limit)


def test_rescaling_by_nothing_is_the_plain_method_and_without_guidance_changes_nothing(gaussian_prior, cameras):
    latents = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    plain, *_ = run(PLAIN, gaussian_prior, latents, cameras)
    rescaled, *_ = run(replace(PLAIN, rescale=0.5), gaussian_prior, latents, cameras)
    torch.testing.assert_close(plain.gradient, rescaled.gradient)  # guided = conditional at omega 1
    guided, *_ = run(replace(PLAIN, guidance_scale=Ramp(7.0, 7.0)), gaussian_prior, latents, cameras)
    both, *_ = run(replace(PLAIN, guidance_scale=Ramp(7.0, 7.0), rescale=0.5), gaussian_prior, latents, cameras)
    assert float((guided.gradient - both.gradient).abs().max()) > 1e-3


def test_costs_four_evaluations_a_view(gaussian_prior, cameras):
    guidance, *_ = run(CDS(), gaussian_prior, torch.zeros(4, 3, 2, 2), cameras)
    assert guidance.evaluations == 16


def test_rescaled_gradient_in_closed_form(gaussian_prior, cameras):
    """g = -[(s_t / s_n) (e1' - e1) + (e2 - e1')] with e1' of the rescaled x0, every piece built here by hand."""
    method = replace(PLAIN, guidance_scale=Ramp(7.0, 7.0), rescale=0.5)
    latents = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    guidance, state, _ = run(method, gaussian_prior, latents, cameras)
    (a_t, b_t), (a_n, b_n) = (
        (gaussian_prior.schedule.alphas[t], gaussian_prior.schedule.sigmas[t]) for t in (400, 300)
    )
    s_t, s_n, eps = b_t / a_t, b_n / a_n, state["noise"].double()

    def noises(x, alpha, sigma):
        conditional = sigma * (x - alpha * 0.4) / (alpha**2 * 0.09 + sigma**2)
        unconditional = sigma * x / (alpha**2 + sigma**2)
        return conditional, unconditional + 7.0 * (conditional - unconditional)

    x_t = a_t * (latents + s_t * eps)
    conditional, e1 = noises(x_t, a_t, b_t)
    x0, x0_conditional = (x_t - b_t * e1) / a_t, (x_t - b_t * conditional) / a_t
    ratio = x0_conditional.std((1, 2, 3), keepdim=True) / x0.std((1, 2, 3), keepdim=True)
    primed = (x_t - a_t * x0 * (0.5 * ratio + 0.5)) / b_t
    z_n = latents + s_t * eps + (s_n - s_t) * primed
    _, e2 = noises(a_n * z_n, a_n, b_n)
    torch.testing.assert_close(guidance.gradient, -(s_t / s_n * (primed - e1) + e2 - primed), rtol=1e-6, atol=1e-9)


def test_settings_that_leave_no_room_are_refused():
    with pytest.raises(ConfigError, match=r"near_min = 0\.1 leaves no room"):
        CDS(t_max=0.15)
