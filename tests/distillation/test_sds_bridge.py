"""SDS-Bridge in closed form on Gaussian data, where its stages meet, and its texts on a prior of a closed world."""

from __future__ import annotations

import pytest
import torch
from distillation.common import World, flat, moment_of, noise_in, normal, step, told

from gsdistill.cli.main import execute
from gsdistill.core.errors import ConfigError, PromptError
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.sds_bridge import FAULTS, SDSBridge
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings, encode_with_endings
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.config import from_dict

KNOWN = SDSBridge(source="", target=", high quality")  # to the shapes prior


@pytest.fixture(scope="module")
def shapes():
    return load_prior("shapes")


def test_the_first_stage_is_sds_with_the_target_for_a_prompt(cameras):
    """Perp-Neg and all; the positive text is not asked."""
    latents, weights = normal(4, 3, 2, 2), torch.tensor([[-0.5, -1.0], [0.0, -2.0], [0.8, 0.3], [-0.1, 0.0]])
    for w in (None, weights):
        here = told(cameras, w, positive="perp1", target="positive")
        found = step(SDSBridge(t_max=flat(0.98)), World(), latents, cameras, 0.5, condition=here)
        expected = step(SDS(), World(), latents, cameras, 0.5, condition=told(cameras, w))
        torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-12, atol=0)


def test_the_second_stage_is_the_step_from_source_to_target(cameras):
    world, latents = World(), normal(4, 3, 2, 2)
    method = SDSBridge(bridge_scale=flat(3.0), bridge_weighting="sds")
    result = step(method, world, latents, cameras, 0.9, condition=told(cameras, source="perp1"))
    (asked,), (same,) = world.asked["positive"], world.asked["perp1"]
    assert torch.equal(asked.x, same.x) and torch.equal(asked.t, same.t) and not world.asked["negative"]
    h = world.exact("positive", asked.x, asked.t) - world.exact("perp1", asked.x, asked.t)
    torch.testing.assert_close(result.gradient, 3.0 * world.levels(asked.t)[1] ** 2 * h)
    assert 20 <= int(asked.t.min()) <= int(asked.t.max()) <= 500


def test_between_texts_that_differ_in_the_mean_alone_the_second_stage_has_no_noise(cameras):
    """Means m and m': g = sigma alpha (m' - m) / v, whatever eps is; it leads from the source to the target."""
    world = World(means=(0.0, 0.4, -0.7, 0.0), deviations=(1.0, 0.3, 0.3, 1.0))
    alpha, sigma = world.levels(300)
    expected = sigma * alpha * (-0.7 - 0.4) / (alpha**2 * 0.09 + sigma**2)
    assert float(expected) < 0  # so descending raises x0, towards 0.4
    method = SDSBridge(t_min=flat(0.3), t_max=flat(0.3))
    for seed in range(3):
        gradient = step(method, world, normal(4, 3, 2, 2), cameras, 0.8, seed=seed).gradient
        torch.testing.assert_close(gradient, expected.expand(4, 3, 2, 2))


@pytest.mark.parametrize(("switch", "of_sds"), [(0.8, 20_000), (0.0, 0), (1.0, 25_000)])
def test_the_second_stage_begins_with_the_step_of_the_switch(switch, of_sds, cameras):
    for number in {0, 19_999, 20_000, 24_999, 25_000}:
        world = World()
        step(SDSBridge(switch=switch), world, normal(4, 3, 2, 2), cameras, number / 25_000)
        assert bool(world.asked["negative"]) == (number < of_sds or switch == 1)


def test_the_noise_of_both_stages_is_standard_normal_and_fresh(cameras):
    latents = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    for progress in (0.0, 0.9):
        drawn = []
        for seed in range(100):
            world = World()
            step(SDSBridge(), world, latents, cameras, progress, seed)
            drawn.append(noise_in(world, world.asked["positive"][0], latents))
        assert float(torch.stack(drawn).mean()) == pytest.approx(0, abs=4 / 4800**0.5)
        assert float(torch.stack(drawn).std()) == pytest.approx(1, abs=0.05)


def test_two_texts_that_are_the_same_are_refused():
    with pytest.raises(ConfigError, match=r"method.source and method.target are both ', sharp'"):
        SDSBridge(source=", sharp", target=", sharp")


def test_words_that_a_closed_world_does_not_know_are_refused_with_the_setting_that_helps(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ["generate", "--prompt", "a blue chair", "--prior", "shapes", "--method", "sds-bridge", "--iterations", "2"]
    assert execute([*run, "--method.source", FAULTS]) == 2
    message = capsys.readouterr().err.strip()
    start = (
        "error: method.source puts words behind the prompt that the prior cannot read: unknown words 'oversaturated'"
    )
    assert message.startswith(start) and "\n" not in message
    assert message.endswith("Set other words, or none: --method.source ''")


def test_the_prompt_itself_is_refused_without_a_word_of_endings(shapes):
    with pytest.raises(PromptError) as caught:
        encode_with_endings(shapes.encode_text, "a blue zebra", "", PromptSettings("none"), KNOWN.endings())
    assert "zebra" in str(caught.value) and "method." not in str(caught.value)


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_it_runs_in_a_closed_world_with_words_of_it(progress, shapes):
    """And its texts are the prompt with and without them."""
    text = encode_with_endings(shapes.encode_text, "a blue chair", "", PromptSettings("none"), KNOWN.endings())
    whole = shapes.encode_text("a blue chair, high quality", "", PromptSettings("none"))
    assert torch.equal(text.endings["target"].positive.tokens, whole.positive.tokens)
    assert torch.equal(text.endings["source"].positive.tokens, text.positive.tokens)
    cameras, latents = orbit(2, 32), normal(2, *shapes.latent_shape).float()
    moment = moment_of(shapes, latents, cameras, progress, condition=shapes.condition(text, cameras))
    gradient = KNOWN.gradient(moment, {})[0].gradient
    assert bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0


def test_its_texts_are_settings():
    method = from_dict(SDSBridge, {"source": ", blurry", "target": ""})
    assert method.endings() == {"source": ", blurry", "target": ""}
