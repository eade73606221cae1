"""What every method promises, tried on every method of the folder."""

from __future__ import annotations

import pytest
import torch
from views import views_of

from gsdistill.registry import load, names

METHODS = [load("gsdistill.distillation", name) for name in names("gsdistill.distillation")]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda cls: cls.__name__)


def gradient(method, prior, latents, cameras, progress=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    condition = prior.condition(prior.encode_text("", ""), cameras)
    state = method.init_state(prior, generator)
    return method.gradient(prior, views_of(latents, cameras), condition, progress, state, generator)


@pytest.fixture
def latents():
    return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(4))


@every_method
def test_shape_type_finiteness_and_no_graph(method, latents, gaussian_prior, cameras):
    guidance, _ = gradient(method(), gaussian_prior, latents, cameras)
    assert guidance.gradient.shape == latents.shape
    assert guidance.gradient.dtype == latents.dtype
    assert bool(guidance.gradient.isfinite().all())
    assert not guidance.gradient.requires_grad


@every_method
def test_is_a_function_of_the_generator(method, latents, gaussian_prior, cameras):
    first, again, other = (
        gradient(method(), gaussian_prior, latents, cameras, seed=seed)[0].gradient for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_method
def test_leaves_latents_and_state_alone(method, latents, gaussian_prior, cameras):
    before = latents.clone()
    _, state = gradient(method(), gaussian_prior, latents, cameras)
    assert torch.equal(before, latents)
    assert all(isinstance(value, torch.Tensor) for value in state.values())


@every_method
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_counts_what_the_network_saw_and_stays_in_the_schedule(method, progress, latents, gaussian_prior, cameras):
    guidance, _ = gradient(method(), gaussian_prior, latents, cameras, progress)
    assert guidance.evaluations == gaussian_prior.evaluations > 0
    assert 0 <= float(guidance.figures["timestep"]) < len(gaussian_prior.schedule)


@every_method
def test_says_what_a_step_costs(method):
    import sys

    assert "network" in (sys.modules[method.__module__].__doc__ or "")
