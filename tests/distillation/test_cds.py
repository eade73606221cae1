"""CDS in closed form on Gaussian data: the attractor x0 = mu - s_t eps*, the sign, the schedules, the rescaling."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distillation.common import World, flat, moment_of, normal, step

from gsdistill.core.errors import ConfigError
from gsdistill.distillation.cds import CDS
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

PLAIN = CDS(
    guidance_scale=flat(1.0), near=flat(0.3), gap=flat(0.1), spread=flat(0.001), clip=flat(0.0)
)  # t = n + gap exactly, no guidance, no clipping


def ratio(t):
    alpha, sigma = World().levels(t)
    return sigma / alpha


def test_gradient_in_closed_form(cameras):
    """g = e1 - e2 = (x0 + s_t eps* - mu) tau^2 (s_t - s_n) / ((tau^2 + s_t^2)(tau^2 + s_n^2))."""
    latents = normal(4, 3, 2, 2)
    result = step(PLAIN, World(), latents, cameras)
    s_t, s_n, tau2 = ratio(400), ratio(300), 0.09
    factor = tau2 * (s_t - s_n) / ((tau2 + s_t**2) * (tau2 + s_n**2))
    expected = (latents + s_t * result.before["noise"].double() - 0.4) * factor
    torch.testing.assert_close(result.gradient, expected, rtol=1e-6, atol=1e-9)


def test_attractor_is_the_mean_minus_the_scaled_noise(cameras):
    state = PLAIN.init_state(World(), torch.Generator().manual_seed(0))
    attractor = (0.4 - ratio(400) * state["noise"].double()).expand(4, -1, -1, -1)
    assert float(step(PLAIN, World(), attractor, cameras).gradient.abs().max()) < 1e-9
    away = step(PLAIN, World(), attractor + 0.1, cameras)
    assert bool((away.gradient > 0).all())  # descending goes back: the released program's sign


def test_antithetic_noise_is_unbiased(cameras):
    """Two steps with +eps* and -eps* have a mean gradient that vanishes exactly at mu."""
    method = replace(PLAIN, noise="antithetic")
    latents = torch.full((4, 3, 2, 2), 0.4, dtype=torch.float64)
    first = step(method, World(), latents, cameras)
    second = step(method, World(), latents, cameras, state=first.after)
    assert float(first.gradient.abs().max()) > 1e-3
    torch.testing.assert_close(first.gradient, -second.gradient)
    torch.testing.assert_close(second.after["noise"], -first.after["noise"])


def test_fixed_noise_is_one_for_all_steps_and_views_and_fresh_is_not(cameras):
    latents = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    fixed = step(PLAIN, World(), latents, cameras, seed=3)
    torch.testing.assert_close(fixed.after["noise"], fixed.before["noise"])
    torch.testing.assert_close(fixed.gradient[0], fixed.gradient[3])
    fresh = step(replace(PLAIN, noise="fresh"), World(), latents, cameras, seed=3)
    assert float((fresh.gradient[0] - fresh.gradient[3]).abs().max()) > 1e-3


def test_timesteps_fall_and_stay_in_bounds(gaussian_prior):
    method = CDS()

    def times(method, progress):
        return method._timesteps(moment_of(gaussian_prior, torch.zeros(2000, 3, 2, 2), orbit(2000, 8), progress))

    for progress, near in ((0.0, 700), (0.25, 400), (1.0, 100)):
        n, t = times(method, progress)
        assert set(n.tolist()) == {near}
        assert int((t - n).min()) == 100
        assert int(t.max()) == min(near + 299, 980)
    n, t = times(replace(method, near=Ramp(0.98, 0.0)), 0.0)
    assert (int(n[0]), int(t.max())) == (880, 980)
    assert int(times(replace(method, near=flat(0.0)), 0.0)[0][0]) == 100


def test_clipping_is_elementwise_and_rises(cameras):
    latents = torch.full((4, 3, 2, 2), 50.0, dtype=torch.float64)
    method = replace(PLAIN, clip=Ramp(0.1, 0.2))
    for progress, limit in ((0.0, 0.1), (1.0, 0.2)):
        assert float(step(method, World(), latents, cameras, progress).gradient.abs().max()) == pytest.approx(limit)


def test_rescaling_by_nothing_is_the_plain_method_and_without_guidance_changes_nothing(cameras):
    latents = normal(4, 3, 2, 2, seed=8)
    plain, rescaled, guided, both = (
        step(replace(PLAIN, guidance_scale=flat(omega), rescale=share), World(), latents, cameras).gradient
        for omega, share in ((1.0, 0.0), (1.0, 0.5), (7.0, 0.0), (7.0, 0.5))
    )
    torch.testing.assert_close(plain, rescaled)  # guided = conditional at omega 1
    assert float((guided - both).abs().max()) > 1e-3


def test_rescaled_gradient_in_closed_form(cameras):
    """g = -[(s_t / s_n) (e1' - e1) + (e2 - e1')] with e1' of the rescaled x0, every piece built here by hand."""
    method = replace(PLAIN, guidance_scale=flat(7.0), rescale=0.5)
    world, latents = World(), normal(4, 3, 2, 2, seed=9)
    result = step(method, world, latents, cameras)
    (a_t, b_t), (a_n, _) = world.levels(400), world.levels(300)
    s_t, s_n, eps = ratio(400), ratio(300), result.before["noise"].double()
    x_t = a_t * (latents + s_t * eps)
    e1 = world.guided(x_t, 400, 7.0)
    x0, x0_conditional = ((x_t - b_t * e) / a_t for e in (e1, world.exact("positive", x_t, 400)))
    kept = 0.5 * x0_conditional.std((1, 2, 3), keepdim=True) / x0.std((1, 2, 3), keepdim=True) + 0.5
    primed = (x_t - a_t * x0 * kept) / b_t
    e2 = world.guided(a_n * (latents + s_t * eps + (s_n - s_t) * primed), 300, 7.0)
    torch.testing.assert_close(result.gradient, -(s_t / s_n * (primed - e1) + e2 - primed), rtol=1e-6, atol=1e-9)


def test_settings_that_leave_no_room_are_refused():
    with pytest.raises(ConfigError, match=r"near_min = 0\.1 leaves no room"):
        CDS(t_max=0.15)
