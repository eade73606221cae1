"""The shapes prior's student: a LoRA that begins as the prior, trains, and leaves the prior alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from distillation.common import flat, moment_of, step
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode

from gsdistill.distillation.vsd import VSD
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Condition, Prior, Query
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import orbit

VIEWS = 2
CAMERAS = orbit(VIEWS, 32)


@pytest.fixture
def prior() -> Prior:
    """In float32, in which its network and the student's, which is diffusers', agree."""
    return load_prior("shapes", settings=ModelSettings(precision="float32"))


def told_by(prior: Prior) -> Condition:
    return prior.condition(prior.encode_text("a red torus", ""), CAMERAS)


@pytest.fixture
def condition(prior: Prior) -> Condition:
    return told_by(prior)


def latents_of(prior: Prior, seed: int = 0) -> torch.Tensor:
    images = torch.rand(VIEWS, 32, 32, 3, generator=torch.Generator().manual_seed(seed))
    return prior.encode(images)


def query_of(prior: Prior) -> Query:
    t = torch.tensor([100, 700])
    return Query(prior.schedule.add_noise(latents_of(prior), torch.randn_like(latents_of(prior)), t), t, "positive")


@pytest.mark.slow
def test_an_untrained_student_answers_as_the_prior_and_the_prior_as_before(prior, condition):
    torch.manual_seed(0)
    query = query_of(prior)
    (before,) = prior.predict_noise([query], condition)
    student = prior.student(4)
    weights = student.initial(torch.Generator().manual_seed(1))
    own = student.predict_noise(weights, query, condition)
    torch.testing.assert_close(own, before, rtol=1e-5, atol=1e-5)
    assert prior.evaluations == 2 * VIEWS
    (after,) = prior.predict_noise([query], condition)
    assert torch.equal(before, after)


def test_the_first_weights_are_drawn_from_the_generator(prior):
    student = prior.student(4)
    packed = [student.initial(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(packed[0], packed[1])
    first, other = student.named(packed[0]), student.named(packed[2])
    assert sum(value.numel() for value in first.values()) == len(packed[0])
    for name, value in first.items():
        if name.endswith(".A"):
            assert value.shape[0] == 4 and not torch.equal(value, other[name])
            assert abs(float(value.std()) * 4 - 1) < 4 / (2 * value.numel()) ** 0.5
        else:
            assert name.endswith(".B") and value.shape[1] == 4 and not value.any()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_it_is_the_lora_of_peft(precision):
    """Which layers, prediction and gradient, bit for bit; in half precision too, where both hold theirs in float32."""
    torch.manual_seed(0)
    prior = load_prior("shapes", settings=ModelSettings(precision=precision))
    condition, query, student = told_by(prior), query_of(prior), prior.student(4)
    asked = (query.latents, query.timesteps, condition.branches["positive"], condition.cameras)
    weights = student.initial(torch.Generator().manual_seed(1))
    weights = (weights + 0.1 * torch.randn(len(weights))).requires_grad_()
    own = student.network(student.named(weights), *asked)
    (slope,) = torch.autograd.grad(own.float().square().sum(), weights)
    network = prior._trainable
    network.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    theirs = {name: value for name, value in network.named_parameters() if ".lora_" in name}
    for (name, value), (ours, part) in zip(theirs.items(), student.named(weights.detach()).items(), strict=True):
        assert name == f"{ours[:-2]}.lora_{ours[-1]}.default.weight"
        value.data = part
    answer = prior.output(network(**prior.inputs(*asked)).sample)
    assert torch.equal(answer, own)
    slopes = torch.autograd.grad(answer.float().square().sum(), list(theirs.values()))
    assert torch.equal(torch.cat([value.flatten() for value in slopes]), slope)


def test_another_weight_is_another_answer_and_stays_with_the_student(prior, condition):
    torch.manual_seed(0)
    query, student = query_of(prior), prior.student(4)
    (before,) = prior.predict_noise([query], condition)
    plain = student.initial(torch.Generator().manual_seed(1))
    weights = plain + 0.1
    own = student.predict_noise(weights, query, condition)
    assert float((own - before).abs().max()) > 1e-2
    torch.testing.assert_close(student.predict_noise(plain, query, condition), before, rtol=1e-5, atol=1e-5)
    assert torch.equal(prior.predict_noise([query], condition)[0], before)


def test_a_student_that_fails_leaves_the_prior_alone(prior, condition):
    torch.manual_seed(0)
    query, student = query_of(prior), prior.student(4)
    weights = student.initial(torch.Generator().manual_seed(1)) + 0.1
    with pytest.raises(RuntimeError):
        student.predict_noise(weights, replace(query, latents=query.latents[:, :2]), condition)
    assert not any(module._forward_hooks for module in prior._trainable.modules())


class Count(TorchDispatchMode):
    """Counts operations; on a GPU most of them are a kernel each."""

    made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.made += 1
        return func(*args, **(kwargs or {}))


def test_a_step_of_the_lora_is_few_operations(prior):
    """However many layers it has; one by one they would be 15 for each."""
    state = VSD().init_state(prior, torch.Generator().manual_seed(0))
    assert len(prior.student(4).shapes) > 50
    with Count() as count:
        VSD()._optimizer().update(state, "lora", torch.ones_like(state["lora"]))
    assert 10 < count.made < 50


def test_the_rank_is_the_one_asked_for(prior):
    """A second student of the same prior included."""
    for rank in (4, 2):
        student = prior.student(rank)
        weights = student.named(student.initial(torch.Generator().manual_seed(0)))
        assert {value.shape[0] for name, value in weights.items() if name.endswith(".A")} == {rank}


@pytest.mark.slow
def test_vsd_trains_the_student_and_not_the_prior(prior, condition):
    """The loss falls where every step draws the same."""
    torch.manual_seed(0)
    query, method = query_of(prior), VSD(lora_rate=0.01)
    (before,) = prior.predict_noise([query], condition)
    state = method.init_state(prior, torch.Generator().manual_seed(0))
    losses = []
    for _ in range(15):
        result = step(method, prior, latents_of(prior), CAMERAS, seed=3, state=state, condition=condition)
        assert result.guidance.evaluations == 4 * VIEWS
        losses.append(float(result.guidance.figures["lora_loss"]))
        state = result.after
    assert losses[-1] < 0.8 * losses[0]
    assert sum(later < now for now, later in pairwise(losses)) > 10
    assert torch.equal(prior.predict_noise([query], condition)[0], before)


@pytest.mark.slow
def test_the_untrained_gradient_is_guidance_beyond_the_prompt(prior, condition):
    """Omega = 1: nothing is left, up to the network's rounding."""
    latents = latents_of(prior)
    one, two, three = (
        step(VSD(flat(omega)), prior, latents, CAMERAS, condition=condition).gradient for omega in (1.0, 2.0, 3.0)
    )
    assert float(one.abs().max()) < 1e-4
    torch.testing.assert_close(three, 2 * two, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_half_precision_keeps_the_gradients_of_the_lora():
    """In the float16 of an accelerator none of them vanishes, and all point where those of float32 do."""
    found = []
    for precision in ("float32", "float16"):
        prior = load_prior("shapes", settings=ModelSettings(precision=precision))
        generator = torch.Generator().manual_seed(0)
        weights = prior.student(4).initial(generator)
        weights = weights + 0.01 * torch.randn(len(weights), generator=generator)
        moment = moment_of(prior, latents_of(prior), CAMERAS, condition=told_by(prior), seed=3)
        found.append(VSD()._loss(prior.student(4), weights, moment.condition, moment)[1])
    single, half = found
    assert half.dtype == torch.float32
    assert int((half == 0).sum()) == 0
    assert float(torch.nn.functional.cosine_similarity(single, half, dim=0)) > 0.999
    assert float(half.norm() / single.norm()) == pytest.approx(1.0, abs=0.01)
