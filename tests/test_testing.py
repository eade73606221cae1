"""The contracts for authors: what keeps them passes, and every broken promise is named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import interpolate

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Embedding, Guidance
from gsdistill.distillation.base import Distillation
from gsdistill.front import distil, load_prior
from gsdistill.prior.analytic import AnalyticPrior, Mixture, plain_schedule
from gsdistill.prior.base import Prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.testing import check_method, check_prior


@dataclass(frozen=True)
class Plain(Distillation):
    """Guided noise minus noise; ``fault`` is what it does wrong."""

    fault: str = ""

    def init_state(self, prior, generator):
        return {"count": torch.zeros(3)} if self.fault != "no tensor" else {"count": 0}

    def gradient(self, moment, state):
        x0, fault = moment.x0, self.fault
        t = moment.draw_integers(len(moment.schedule) // 2, len(moment.schedule))
        eps = torch.randn(x0.shape).to(x0) if fault == "generator" else moment.draw_noise()
        alpha, sigma = moment.schedule.at(t, x0)
        x_t = alpha * (x0.mean(0, keepdim=True) if fault == "views" else x0) + sigma * eps
        if fault == "grad":
            x_t.requires_grad_()
        noise = moment.prior.noise(x_t, t - 1000 if fault == "t" else t, moment.condition)
        gradient = noise.guided(5.0) - eps
        gradient = {
            "dtype": gradient.float(),
            "nan": gradient / 0.0,
            "zero": 0.0 * gradient,
            "shape": gradient[:, :1],
        }.get(fault, gradient)
        if fault == "in place":
            state["count"].add_(1)
        if fault == "in place latents":
            x0.add_(1)
        state = {"count": state["count"] + 1} if fault not in ("keys", "no tensor") else {}
        if fault == "state shape":
            state = {"count": torch.zeros(4)}
        guidance = moment.answer(gradient, t)
        if fault == "requires":
            return Guidance(gradient.requires_grad_(), guidance.evaluations), state
        if fault == "count":
            return Guidance(gradient, 1), state
        if fault == "schedule":
            return Guidance(gradient / (len(moment.schedule) != 50), guidance.evaluations), state
        if fault == "kind":
            return Guidance(gradient * (1 + (moment.prior.prediction_type == "sample")), guidance.evaluations), state
        return guidance, state


FAULTS = {
    "t": "the network is asked about t = ",
    "generator": "depends on random numbers of others",
    "views": "depends on what the other views hold",
    "grad": "is asked about latents that require a gradient",
    "dtype": "the gradient of torch.float64 latents is torch.float32",
    "nan": "the gradient is not finite",
    "zero": "the gradient is zero everywhere",
    "shape": "the gradient has the shape [4, 1, 2, 2]",
    "in place": "the state's count is changed in place",
    "in place latents": "the latents are changed in place",
    "keys": "the next state has other names",
    "no tensor": "the state holds what is no tensor: count",
    "state shape": "the state's count changes its shape or type",
    "requires": "what it returns requires a gradient: gradient",
    "count": "it tells of 1 network evaluations, and asked for 8",
    "schedule": "not finite with a schedule of 50 steps",
    "kind": "the gradient is another with a sample prior",
}


def test_a_method_that_keeps_its_promises_passes():
    check_method(Plain)
    check_method(Plain())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_of_a_method_is_named(fault):
    with pytest.raises(AssertionError) as caught:
        check_method(Plain(fault))
    assert str(caught.value).startswith("Plain: ")
    assert FAULTS[fault] in str(caught.value)


class Greys(Prior):
    """Three methods: pictures of any one grey value are all there is, N(mean, 0.1^2) by element given the prompt."""

    def __init__(self, fault: str = "") -> None:
        self.name, self.schedule, self.image_size, self.latent_shape = "greys", plain_schedule(), 16, (3, 8, 8)
        self.fault = fault
        if fault == "attribute":
            del self.image_size

    def encode(self, images):
        images = images.detach() if self.fault == "slope" else images
        size = 4 if self.fault == "size" else 8
        small = interpolate(images.permute(0, 3, 1, 2), (size, size), mode="area") - 0.5
        return small.requires_grad_() if self.fault == "slope" and torch.is_grad_enabled() else small

    def encode_text(self, prompt, negative_prompt, settings=None):
        rows = 2 if self.fault == "rows" else 1
        unasked = 0.5 if self.fault == "empty" and negative_prompt else 0.0
        return EncodedPrompt(Embedding(torch.ones(rows, 1, 1)), Embedding(torch.full((rows, 1, 1), unasked)))

    def network(self, latents, timesteps, text, cameras):
        alpha, sigma = self.schedule.at(timesteps, latents)
        mean = 0.3 * text.tokens[:, :1, :, None]
        noise = sigma * (latents - alpha * mean) / ((0.1 * alpha) ** 2 + sigma**2)
        if self.fault == "kind":
            return alpha * noise - sigma * (latents - sigma * noise) / alpha
        if self.fault == "mood":
            noise = noise + torch.randn_like(noise)
        return noise[:, :, :4] if self.fault == "answer" else noise / (self.fault != "nan")


def test_a_prior_of_three_methods_keeps_the_contract_and_is_distilled():
    prior = Greys()
    check_prior(prior)
    run = distil("anything", prior, method="sds", iterations=40, recipe=False, views=2, seed=1)
    first, *_, last = (float(step.images.mean()) for step in run)
    assert last > first  # towards the grey of the prompt
    with pytest.raises(ConfigError, match="the prior greys cannot be tuned"):
        distil("anything", prior, method="vsd", recipe=False)
    with pytest.raises(ConfigError, match="shows no pictures of its latents"):
        prior.decode(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("kind", "is prediction_type = epsilon right?"),
        ("attribute", "it lacks image_size"),
        ("slope", "`encode` is not differentiable"),
        ("size", "`encode` gives [2, 3, 4, 4], where latent_shape says [2, 3, 8, 8]"),
        ("mood", "the same question has two answers"),
        ("nan", "the noise is not finite"),
        ("empty", "beside a negative prompt `encode_text` gives no `empty` text"),
    ],
)
def test_a_broken_promise_of_a_prior_is_named(fault, told):
    with pytest.raises(AssertionError) as caught:
        check_prior(Greys(fault))
    assert str(caught.value).startswith("greys: ") and told in str(caught.value)


def test_our_priors_keep_the_contract():
    check_prior(load_prior("shapes", "cpu"))
    data = Mixture(torch.ones(1), torch.zeros(1, 3 * 4 * 4), torch.ones(1))
    check_prior(AnalyticPrior(data, data, (3, 4, 4)))
