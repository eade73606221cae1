"""What every densifier keeps, whatever it grows: the budget, the random numbers, Adam in step, and its checkpoints."""

from __future__ import annotations

import pytest
import torch
from scene.densify.common import GOOD, generator, in_step, make_render, make_scene

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Gaussians
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.scene.densify.base import importance, without_haze
from gsdistill.settings.config import from_dict, to_dict
from gsdistill.settings.registry import load, names

PACKAGE, STEPS = "gsdistill.scene.densify", 12
OFTEN = {"enabled": True, "start": 0.0, "stop": 1.0, "every": 1 / 6}  # every second step
every_densifier = pytest.mark.parametrize("name", names(PACKAGE))


def settings(name: str, **more):
    return load(PACKAGE, name, "densifier")(**OFTEN | more)


def walk(chosen, seed: int = 0, count: int = 40, stop_at: int = STEPS):
    """Scene and optimisers after steps with random gradients, made anew from a checkpoint after ``stop_at``."""
    params, optimizers = make_scene(count, std=0.1, opacity=0.1)
    with torch.no_grad():
        params["opacities"][::5] = -6.0  # transparent ones
    densifier, random, counts = chosen.begin(STEPS), generator(seed), []
    for done in range(1, STEPS + 1):
        gradients = torch.rand(2, len(params["means"]), 2, generator=generator(done)) * 0.1
        densifier.observe(make_render(gradients), GOOD)
        densifier.refine(params, optimizers, done, random)
        densifier.disturb(params, 0.01, random)
        counts.append(len(params["means"]))
        assert set(densifier.state) <= set(densifier.STATISTICS)
        for key, value in densifier.state.items():
            assert value.shape == (counts[-1],) and value.dtype == densifier.STATISTICS[key]
        if done == stop_at:
            saved, densifier = densifier.state_dict(), chosen.begin(STEPS)
            densifier.load_state_dict(saved)
    return params, optimizers, counts


@every_densifier
def test_settings_are_written_and_read(name):
    chosen = settings(name, budget=123)
    assert from_dict(SceneSettings, {"densify": {"name": name, **to_dict(chosen)}}).densify == chosen
    assert to_dict(SceneSettings(densify=chosen))["densify"]["name"] == name
    with pytest.raises(ConfigError, match=r"densify\.start = 0\.8 lies after densify\.stop = 0\.2"):
        settings(name, start=0.8, stop=0.2)


@every_densifier
def test_it_grows_up_to_the_budget_and_adam_is_in_step(name):
    params, optimizers, counts = walk(settings(name, budget=45))
    assert counts[-1] == max(counts) == 45 and in_step(params, optimizers)
    assert all(value.isfinite().all() for value in params.values())


@every_densifier
def test_a_scene_above_the_budget_is_cut_at_once(name):
    _, _, counts = walk(settings(name, budget=7, start=0.5), count=9)
    assert counts == [7] * STEPS


@every_densifier
def test_one_seed_gives_one_scene_and_global_random_numbers_stay(name):
    def run(seed: int, other: int):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        params, _, _ = walk(settings(name), seed)
        assert torch.equal(torch.get_rng_state(), before)
        return params["means"]

    assert torch.equal(run(1, 10), run(1, 20))
    assert run(1, 10).shape != run(2, 10).shape or not torch.equal(run(1, 10), run(2, 10))


@every_densifier
@pytest.mark.parametrize("stop_at", [3, 6])
def test_a_checkpoint_continues_to_the_same_scene(name, stop_at):
    (whole, adams, _), (again, others, _) = walk(settings(name)), walk(settings(name), stop_at=stop_at)
    for key, value in whole.items():
        assert torch.equal(value, again[key])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(adams[key].state[value][moment], others[key].state[again[key]][moment])


@every_densifier
@pytest.mark.parametrize("enabled", [True, False])
def test_off_means_nothing_happens(name, enabled):
    start = Gaussians(**{key: value.detach() for key, value in make_scene(opacity=0.02)[0].items()})
    chosen = settings(name, enabled=enabled, budget=2)
    scene = GaussianScene(start, SceneSettings(densify=chosen), STEPS, torch.device("cpu"))
    random = generator()
    before = random.get_state()
    scene.adapt(make_render(torch.ones(1, 6, 2)), GOOD, 2, random)
    assert (len(scene) == 2) == enabled and torch.equal(random.get_state(), before) != enabled
    assert enabled or (torch.equal(scene.params["means"], start.means) and not scene.densifier.state)


def test_importance_is_opacity_times_area_times_visibility():
    params = {
        "opacities": torch.tensor([0.5, 0.25, 0.5]).logit(),
        "scales": torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.4, 0.1, 0.025]]).log(),
    }
    values = importance(params, torch.tensor([0, 3, 1]))
    assert torch.allclose(values, torch.tensor([0.5 * 0.01, 0.25 * 0.04 * 4, 0.5 * 0.01 * 2]))


def test_haze_goes_at_the_end_and_something_always_stays():
    opacities = torch.tensor([0.05, 0.5, 0.2]).logit()
    scene = Gaussians(
        torch.arange(9.0).reshape(3, 3), torch.ones(3, 4), torch.zeros(3, 3), opacities, torch.zeros(3, 1, 3)
    )
    kept = without_haze(scene, settings("gradient", final_opacity=0.1))
    assert torch.equal(kept.means, scene.means[1:]) and torch.equal(kept.opacities, opacities[1:])
    assert (
        len(
            without_haze(
                scene,
                settings(
                    "gradient",
                ),
            )
        )
        == 3
    )
    assert torch.equal(without_haze(scene, settings("gradient", final_opacity=0.9)).means, scene.means[1:2])
