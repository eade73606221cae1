"""Noise levels by what a scheduler's config says: diffusers' own of every class, flows of U-Nets, and what is none."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny import sdxl, stable_diffusion
from tiny.steps import guided, load, normal, steps_of

from gsdistill.core.errors import BadFile
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.families.schedulers import BETAS, SAMPLERS, Levels, read_levels
from gsdistill.prior.families.sdxl import StableDiffusionXL
from gsdistill.prior.families.stable_diffusion import StableDiffusion

FLOW = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
# Extras of diffusers that the tests do not install stand in the way of one class.
THERE = [name for name in SAMPLERS if "torchsde" not in getattr(getattr(diffusers, name), "_backends", ())]
DDPMS = [name for name in THERE if SAMPLERS[name].betas]
BOTH = [name for name in DDPMS if SAMPLERS[name].shift]


def said(folder: Path, **config: Any) -> Levels:
    """The levels of a config."""
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return read_levels(folder / "scheduler_config.json")


@pytest.mark.parametrize("name", THERE)
def test_what_a_config_leaves_out_is_what_diffusers_takes(name):
    given = inspect.signature(getattr(diffusers, name)).parameters
    betas, shift = tuple(given[key].default for key in BETAS if key in given), SAMPLERS[name].shift
    assert (betas or None) == SAMPLERS[name].betas
    assert ("use_flow_sigmas" in given or name.startswith("FlowMatch")) == (shift is not None)
    if shift:
        assert given[shift].default == 1.0 and given["num_train_timesteps"].default == 1000


@pytest.mark.parametrize("name", DDPMS)
@pytest.mark.parametrize("config", [{}, {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400}])
def test_the_levels_of_a_ddpm_are_its_samplers_own(name, config, tmp_path):
    levels = said(tmp_path, _class_name=name, prediction_type="v_prediction", **config)
    theirs = getattr(diffusers, name)(**config).alphas_cumprod
    assert torch.equal(levels.schedule.alphas.square().float(), theirs.float()) and levels.prediction == "v_prediction"
    assert torch.equal(levels.times, torch.arange(len(theirs)))


@pytest.mark.parametrize("name", BOTH)
def test_the_levels_of_a_flow_are_its_samplers_own(name, tmp_path):
    """999 steps of UniPC are all of our timesteps but the lowest; of the others all but the highest."""
    levels = said(tmp_path, _class_name=name, **FLOW)
    assert levels.prediction == "flow_prediction" and len(levels.schedule) == 1000
    torch.testing.assert_close(levels.schedule.alphas + levels.schedule.sigmas, torch.ones(1000).double())
    scheduler = getattr(diffusers, name)(**FLOW)
    scheduler.set_timesteps(999)
    sigmas, told = scheduler.sigmas[:999].flip(0), scheduler.timesteps[:999].flip(0)
    ours = slice(1, None) if name.startswith("UniPC") else slice(None, 999)
    torch.testing.assert_close(sigmas, levels.schedule.sigmas[ours].float(), rtol=0, atol=1e-4)  # of pure noise
    torch.testing.assert_close(sigmas[:998], levels.schedule.sigmas[ours][:998].float(), rtol=0, atol=2e-7)
    off = (levels.times[ours] - told).abs()
    assert float(off.max()) <= 1 and int(off.count_nonzero()) <= 2  # where T s_t is whole, rounding has its say


FAMILIES = {
    "sd": (StableDiffusion, stable_diffusion, StableDiffusionPipeline),
    "xl": (StableDiffusionXL, sdxl, StableDiffusionXLPipeline),
}


def flow_folder(folder: Path, family: str, name: str, config: dict[str, Any]) -> Path:
    """A tiny model whose folder names a scheduler of a flow."""
    FAMILIES[family][1].build(folder)
    getattr(diffusers, name)(**config).save_pretrained(folder / "scheduler")
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scheduler": ["diffusers", name]}))
    return folder


@pytest.mark.parametrize(
    ("family", "name", "config"),
    [
        ("sd", "UniPCMultistepScheduler", FLOW),
        ("xl", "UniPCMultistepScheduler", FLOW),
        ("sd", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ],
)
def test_the_velocity_of_a_u_net_is_the_pipelines(family, name, config, tmp_path, monkeypatch):
    leaf, _, pipeline = FAMILIES[family]
    monkeypatch.setattr(getattr(diffusers, name), "init_noise_sigma", 1.0, raising=False)  # which one pipeline asks for
    folder, times = flow_folder(tmp_path, family, name, config), (900, 300, 20)
    prior: Pretrained = load(leaf, folder)
    levels = np.array([(t + 1) / 1000 for t in times])  # before the shift, which the scheduler applies
    call = {"latents": normal(1, 4, 8, 8), "output_type": "latent", "sigmas": levels}
    for t, step in zip(times, steps_of(pipeline, folder, **call), strict=True):
        assert step.timestep == pytest.approx(float(prior._times[t]), abs=1e-3)
        eps = guided(prior, step.latents, t)
        alpha, sigma = prior.schedule.at(torch.tensor([t]), eps)
        assert float(alpha + sigma) == pytest.approx(1.0)
        torch.testing.assert_close(eps, step.latents + alpha * step.guided, rtol=0, atol=1e-5)
        assert float((guided(prior, step.latents, t + 5) - eps).abs().max()) > 1e-4


def test_a_config_without_a_class_is_a_ddpms(tmp_path):
    levels = said(tmp_path, beta_start=0.1, beta_end=0.1, num_train_timesteps=3)
    torch.testing.assert_close(levels.schedule.alphas, torch.tensor([0.9**n for n in (0.5, 1, 1.5)]).double())


def test_continuous_times_without_v_prediction_are_those_of_a_ddpm(tmp_path):
    """As of diffusers' sampler, which tells its network the logarithm of the noise with v prediction alone."""
    levels = said(tmp_path, _class_name="EulerDiscreteScheduler", timestep_type="continuous")
    assert torch.equal(levels.times, torch.arange(1000))


def test_what_a_sampler_of_flows_has_from_an_earlier_one_does_not_count(tmp_path):
    name = "FlowMatchEulerDiscreteScheduler"
    levels = said(tmp_path, _class_name=name, prediction_type="epsilon", beta_start=0.1, flow_shift=9.0, shift=2.0)
    assert levels.prediction == "flow_prediction"
    assert float(levels.schedule.sigmas[499]) == pytest.approx(2 / 3)
    assert float(levels.times[499]) == pytest.approx(2000 / 3)


UNIPC = {"_class_name": "UniPCMultistepScheduler", **FLOW}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "CMStochasticIterativeScheduler"}, "CMStochasticIterativeScheduler has no levels of"),
        ({"_class_name": "MyScheduler"}, "MyScheduler has no levels of a DDPM.*served are those of .*DDIM.*UniPC"),
        ({"_class_name": ["mine", "MyScheduler"]}, r"\['mine', 'MyScheduler'\] has no levels"),
        ({"_class_name": "EulerDiscreteScheduler", "sigma_data": 0.5}, "sigma_data = 0.5 tells of continuous"),
        ({"_class_name": "UniPCMultistepScheduler", "sigma_max": 80.0}, "sigma_max = 80.0 tells .*EDM"),
        ({"timestep_type": "continuous", "prediction_type": "v_prediction"}, "timestep_type = 'continuous' tells of"),
        (
            {"_class_name": "EulerDiscreteScheduler", "prediction_type": "flow_prediction"},
            "says that it is of a rectified flow, and EulerDiscreteScheduler samples none; FlowMatchEuler",
        ),
        ({"_class_name": "DDIMScheduler", "use_flow_sigmas": True}, "a rectified flow, and DDIMScheduler samples no"),
        (UNIPC | {"use_flow_sigmas": False}, "use_flow_sigmas is False, a flow prior needs True"),
        (UNIPC | {"prediction_type": "v_prediction"}, "prediction_type is v_prediction, .* needs flow_prediction"),
        (UNIPC | {"use_dynamic_shifting": True}, "use_dynamic_shifting is True, .* needs False"),
        (UNIPC | {"shift_terminal": 0.1}, "shift_terminal is 0.1, .* needs None"),
        (UNIPC | {"flow_shift": "3"}, "flow_shift is '3', a flow prior needs one above 0"),
        (UNIPC | {"num_train_timesteps": 0}, "num_train_timesteps = 0 is no whole number"),
        ({"prediction_type": "score"}, "prediction_type 'score' is unknown"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_none_of_both_is_refused_in_one_sentence(config, message, tmp_path):
    with pytest.raises(BadFile, match=message) as caught:
        said(tmp_path, **config)
    assert "\n" not in str(caught.value)
