"""What the student of a network without cameras is told: the camera by an embedding; and a network beside the prior."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from distillation.common import flat, step
from tiny import sdxl, stable_diffusion
from tiny.steps import check_student, normal
from views import views_of

from gsdistill.core.errors import ConfigError
from gsdistill.distillation.vsd import VSD
from gsdistill.prior.base import Prior, Query
from gsdistill.prior.loading import load_prior
from gsdistill.prior.matrices import camera_matrices
from gsdistill.prior.prompts import PromptSettings
from gsdistill.prior.student import student_of
from gsdistill.scene.viewpoints import look_at_origin, orbit
from gsdistill.testing import World

CAMERAS = orbit(2, 8)
T = torch.tensor([100, 800])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("tiny-sd"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, taken for a network of velocity."""
    return stable_diffusion.build(tmp_path_factory.mktemp("tiny-v"), "v_prediction")


@pytest.fixture
def prior(folder) -> Prior:
    return load_prior(str(folder))


def told_by(prior: Prior):
    return prior.condition(prior.encode_text("a red torus", "", PromptSettings("view")), CAMERAS)


def latents() -> torch.Tensor:
    return normal(2, 4, 8, 8)


def test_the_camera_is_the_matrix_from_camera_to_world():
    """From 30 degrees above the front at a distance of 2: right, up and backwards, and where it is."""
    cameras = look_at_origin(*(torch.tensor([value]) for value in (0.0, 30.0, 2.0, 40.0)), 16)
    rows = [[0, -0.5, 0.75**0.5, 3**0.5], [1, 0, 0, 0], [0, 0.75**0.5, 0.5, 1], [0, 0, 0, 1]]
    torch.testing.assert_close(camera_matrices(cameras)[0], torch.tensor(rows).float().flatten(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_the_embedding_is_that_of_diffusers(share, prior, folder):
    """Its network with a class embedding of 16 numbers, given the same weights."""
    student, condition = prior.student(2, camera=True), told_by(prior)
    weights = student.initial(torch.Generator().manual_seed(1))
    network = UNet2DConditionModel.from_pretrained(folder / "unet", class_embed_type=None)
    config = {**network.config, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}
    theirs = UNet2DConditionModel.from_config(config)
    parts = student.named(weights)
    embedding = {
        f"class_embedding.linear_{number}.{kind}": parts[f"camera.{place}.{kind}"].squeeze(0)
        for number, place in ((1, 0), (2, 2))
        for kind in ("weight", "bias")
    }
    theirs.load_state_dict({**network.state_dict(), **embedding})
    cameras = share * camera_matrices(CAMERAS)
    tokens = condition.branches["plain"].tokens
    with torch.no_grad():
        expected = theirs(latents(), T, encoder_hidden_states=tokens, class_labels=cameras).sample
    told = student.told(condition, views_of(latents(), CAMERAS))
    assert torch.equal(told.cameras, camera_matrices(CAMERAS)) and told.branches is condition.branches
    own = student.network(parts, latents(), T, condition.branches["plain"], cameras)
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-6)


def test_its_first_weights_are_those_of_torchs_linear(prior):
    student = prior.student(4, camera=True)
    parts = student.named(student.initial(torch.Generator().manual_seed(0)))
    for name, inputs in (("camera.0", 16), ("camera.2", 32)):
        for kind in ("weight", "bias"):
            largest = float(parts[f"{name}.{kind}"].abs().max())
            assert 0.8 * inputs**-0.5 < largest <= inputs**-0.5
    assert all(not part.any() for name, part in parts.items() if name.endswith(".B"))


def test_a_student_told_the_camera_is_checked_like_others(prior):
    check_student(prior)


def test_vsd_trains_the_embedding_with_the_lora(prior):
    method, condition = VSD(flat(7.5), flat(0.5), lora_rate=0.01), told_by(prior)
    before = step(method, prior, latents(), CAMERAS, condition=condition)
    assert before.guidance.evaluations == 2 * 5
    student = prior.student(4, camera=True)
    first, then = student.named(before.before["lora"]), student.named(before.after["lora"])
    moved = {name for name in first if not torch.equal(first[name], then[name]) and name.startswith("camera")}
    assert moved == {"camera.0.weight", "camera.0.bias", "camera.2.weight", "camera.2.bias"}


def test_a_network_beside_the_prior_answers_in_its_own_prediction(prior, other):
    """Untrained and without a camera it is that model's answer to the prior's texts, and the prior counts it."""
    condition, base = told_by(prior), load_prior(str(other))
    query = Query(latents(), T, "plain")
    student = student_of(prior, 2, False, str(other))
    own = student.predict_noise(student.initial(torch.Generator().manual_seed(0)), query, condition)
    (expected,) = base.predict_noise([query], condition)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    (usual,) = prior.predict_noise([query], condition)
    assert float((own - usual).abs().max()) > 0.1
    assert prior.evaluations == 4
    assert student_of(prior, 2, True, str(other)).prior is student.prior


def test_vsd_with_a_network_beside_the_prior(prior, other):
    """One of velocity beside one of noise, as the released program has it; the prior stays."""
    condition, query = told_by(prior), Query(latents(), T, "positive")
    (before,) = prior.predict_noise([query], condition)
    method, state, losses = VSD(flat(7.5), student=str(other), lora_rate=0.01), None, []
    for _ in range(8):
        seed = 3 if state else 0
        result = step(method, prior, latents(), CAMERAS, seed=seed, state=state, condition=condition)
        assert result.guidance.evaluations == 2 * 4
        losses.append(float(result.guidance.figures["lora_loss"]))
        state = result.after
    assert losses[-1] < losses[1]
    assert torch.equal(prior.predict_noise([query], condition)[0], before)


def test_a_network_that_does_not_fit_is_refused_in_a_sentence(prior, tmp_path):
    large = sdxl.build(tmp_path)
    with pytest.raises(ConfigError, match=r"does not fit the prior .*: it is of the family StableDiffusionXL"):
        student_of(prior, 2, True, str(large))
    with pytest.raises(ConfigError, match=r"does not fit the prior .*: it is of the family WorldPrior"):
        student_of(prior, 2, True, "shapes")
    with pytest.raises(ConfigError, match="the prior analytic is not one in the layout of diffusers"):
        student_of(World(), 2, True, str(large))
