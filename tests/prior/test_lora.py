"""The shapes prior's student: a LoRA that begins as the prior, trains, and leaves the prior alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from distillation.common import flat, moment_of, step

from gsdistill.distillation.vsd import VSD
from gsdistill.prior.base import Condition, Prior, Query
from gsdistill.prior.loading import load_prior
from gsdistill.prior.pretrained import ModelSettings
from gsdistill.scene.cameras import orbit

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
    first, again, other = (student.initial(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    down = [name for name in first if ".lora_A." in name]
    assert down and len(first) == 2 * len(down)
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if name in down:
            assert value.shape[0] == 4 and not torch.equal(value, other[name])
            assert float(value.abs().max()) <= value.shape[1] ** -0.5
        else:
            assert value.shape[1] == 4 and float(value.abs().max()) == 0.0


def test_another_weight_is_another_answer_and_stays_with_the_student(prior, condition):
    torch.manual_seed(0)
    query, student = query_of(prior), prior.student(4)
    (before,) = prior.predict_noise([query], condition)
    plain = student.initial(torch.Generator().manual_seed(1))
    weights = {name: value + 0.1 for name, value in plain.items()}
    own = student.predict_noise(weights, query, condition)
    assert float((own - before).abs().max()) > 1e-2
    torch.testing.assert_close(student.predict_noise(plain, query, condition), before, rtol=1e-5, atol=1e-5)
    assert torch.equal(prior.predict_noise([query], condition)[0], before)


def test_the_rank_is_the_one_asked_for(prior):
    """A second student of the same prior included."""
    for rank in (4, 2):
        weights = prior.student(rank).initial(torch.Generator().manual_seed(0))
        assert {value.shape[0] for name, value in weights.items() if ".lora_A." in name} == {rank}


def test_vsd_trains_the_student_and_not_the_prior(prior, condition):
    """The loss falls where every step draws the same; the state is the LoRA, its moments and the count."""
    torch.manual_seed(0)
    query, method = query_of(prior), VSD(lora_rate=0.01)
    (before,) = prior.predict_noise([query], condition)
    state = method.init_state(prior, torch.Generator().manual_seed(0))
    names = {key.removeprefix("lora.") for key in state if key.startswith("lora.")}
    assert state.keys() == {"steps", *(f"{kind}.{name}" for kind in ("lora", "mean", "square") for name in names)}
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    losses = []
    for _ in range(15):
        result = step(method, prior, latents_of(prior), CAMERAS, seed=3, state=state, condition=condition)
        assert result.guidance.evaluations == 4 * VIEWS
        losses.append(float(result.guidance.figures["lora_loss"]))
        state = result.after
    assert losses[-1] < 0.8 * losses[0]
    assert sum(later < now for now, later in pairwise(losses)) > 10
    assert torch.equal(prior.predict_noise([query], condition)[0], before)


def test_the_untrained_gradient_is_guidance_beyond_the_prompt(prior, condition):
    """Omega = 1: nothing is left, up to the network's rounding."""
    latents = latents_of(prior)
    one, two, three = (
        step(VSD(flat(omega)), prior, latents, CAMERAS, condition=condition).gradient for omega in (1.0, 2.0, 3.0)
    )
    assert float(one.abs().max()) < 1e-4
    torch.testing.assert_close(three, 2 * two, rtol=1e-3, atol=1e-4)


def test_half_precision_keeps_the_gradients_of_the_lora():
    """In the float16 of an accelerator none of them vanishes, and all point where those of float32 do."""
    found = []
    for precision in ("float32", "float16"):
        prior = load_prior("shapes", settings=ModelSettings(precision=precision))
        generator = torch.Generator().manual_seed(0)
        weights = prior.student(4).initial(generator)
        weights = {name: w + 0.01 * torch.randn(w.shape, generator=generator) for name, w in weights.items()}
        moment = moment_of(prior, latents_of(prior), CAMERAS, condition=told_by(prior), seed=3)
        _, gradients = VSD()._loss(prior.student(4), weights, moment)
        found.append(torch.cat([gradient.flatten() for gradient in gradients.values()]))
    single, half = found
    assert half.dtype == torch.float32
    assert int((half == 0).sum()) == 0
    assert float(torch.nn.functional.cosine_similarity(single, half, dim=0)) > 0.999
    assert float(half.norm() / single.norm()) == pytest.approx(1.0, abs=0.01)
