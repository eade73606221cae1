"""What every method promises, tried on every method of the folder and on its options."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from distillation.common import BRANCHES, World, flat, normal, step, told

from gsdistill.core.structs import to_device
from gsdistill.distillation.base import Distillation
from gsdistill.prior.analytic import plain_schedule
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import load, names
from gsdistill.testing import METHOD_CHECKS

NAMES = names("gsdistill.distillation")
PLAIN = {name: load("gsdistill.distillation", name)() for name in NAMES}
OPTIONS = {
    "sds-adaptive": replace(PLAIN["sds"], variance_reduction="adaptive", timesteps="linear-anneal"),
    "sds-dreamtime": replace(PLAIN["sds"], timesteps="dreamtime", weighting="snr"),
    "ssd-mode": replace(PLAIN["ssd"], mode_seeking_until=flat(1.0)),
    "cds-antithetic": replace(PLAIN["cds"], noise="antithetic", rescale=0.5),
    "cds-fresh": replace(PLAIN["cds"], noise="fresh"),
    "fsd-fixed": replace(PLAIN["fsd"], noise="fixed", background="fresh"),
    "fsd-mixed": replace(PLAIN["fsd"], sqrt_beta=0.6, background="same", field=90.0),
    "fsd-refreshed": replace(PLAIN["fsd"], refresh=flat(0.1)),
    "fsd-refreshed-fixed": replace(PLAIN["fsd"], noise="fixed", refresh=flat(0.1), weighting="pf-ode"),
    "cfd-plain": replace(PLAIN["cfd"], texels=4, precision="float32", background="fresh", refresh=flat(0.0)),
    "asd-whole-shift": replace(PLAIN["asd"], random_shift=False, weighting="fantasia3d"),
    "csd-three-terms": replace(PLAIN["csd"], uncond_scale=Ramp(0, -1), null_scale=Ramp(-1, 0), perpneg_scale=flat(3.0)),
    "nfsd-high": replace(PLAIN["nfsd"], t_min=flat(0.2), weighting="uniform"),
    "ism-short": replace(PLAIN["ism"], interval=flat(0.05), stride=0.05),
    "ism-every-step": replace(PLAIN["ism"], stride=0.1, xs_inv_steps=None, xs_eta=0.3, lambda_guidance=0.1),
    "ism-negative": replace(PLAIN["ism"], inversion="negative", noise_offset=0.0),
    "ism-reversed": replace(PLAIN["ism"], denoise_guidance_scale=1.5),
    "sdi-exact": replace(PLAIN["sdi"], inversion_eta=0.0, inversion_steps=25),
    "sdi-remap": replace(PLAIN["sdi"], remap=True),
    "sds-shared": replace(PLAIN["sds"], shared_timestep=True),
    "dsd-guided": replace(PLAIN["dsd"], reference="guided", path_steps=4),
    "vsd-fast": replace(PLAIN["vsd"], lora_rate=0.1, rank=2),
    "vsd-esd": replace(PLAIN["vsd"], lora_rate=0.1, guidance_scale_lora=flat(0.5), camera_dropout=0.5),
    "vsd-authors": replace(PLAIN["vsd"], shared_timestep=True, betas=(0.9, 0.999), epsilon=1e-8, warm_up=500),
    "vsd-no-camera": replace(PLAIN["vsd"], camera=False),
    "rfds-plain": replace(PLAIN["rfds"], random_factor=False, guidance_scale=flat(50.0), t_max=flat(0.98)),
    "rfds-rev-whole": replace(PLAIN["rfds-rev"], correction="whole"),
    "sds-bridge-two": replace(PLAIN["sds-bridge"], bridge_scale=flat(40.0), bridge_weighting="sds"),
}
CASES = PLAIN | OPTIONS


def tiered(cases: dict[str, Distillation]) -> list:
    """The cases as parameters; only the methods with their own settings are among the quick tests."""
    slow = pytest.mark.slow
    return [pytest.param(method, id=name, marks=[] if name in PLAIN else slow) for name, method in cases.items()]


# Where there is little noise, NFSD has no negative prompt, and descends along all of eps_empty, whose mean alone is 0.
AT_REST = {name: method for name, method in CASES.items() if name != "nfsd"}
every_method = pytest.mark.parametrize("name", NAMES)
every_case = pytest.mark.parametrize("method", tiered(CASES))
every_case_at_rest = pytest.mark.parametrize("method", tiered(AT_REST))


@pytest.fixture
def latents() -> torch.Tensor:
    return normal(4, 3, 2, 2, seed=4)


@pytest.fixture
def weights() -> torch.Tensor:
    return torch.tensor([[-0.5, -1.0], [0.0, -2.0], [0.8, 0.3], [-0.1, 0.0]])


@every_case
@pytest.mark.parametrize("check", METHOD_CHECKS.values(), ids=METHOD_CHECKS)
def test_keeps_every_promise(method, check):
    check(method)


@every_case
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_latents_on_a_gpu_have_the_gradient_that_they_have_on_a_cpu(method, latents, weights, cameras):
    """The generator and the first state stay on the CPU: the same draws."""
    condition = told(cameras, weights)
    here, there = (
        step(
            method,
            World(),
            to_device(latents, device),
            to_device(cameras, device),
            0.3,
            condition=to_device(condition, device),
        )
        for device in ("cpu", "cuda")
    )
    assert there.gradient.device.type == "cuda"
    torch.testing.assert_close(there.gradient.cpu(), here.gradient, rtol=1e-8, atol=1e-10)


class OneByOne(World):
    """A network that cannot take more than one sample at a time."""

    def network(self, latents, timesteps, text, cameras):
        texts = [type(text)(tokens) for tokens in text.tokens.split(1)]
        parts = zip(latents.split(1), timesteps.split(1), texts, strict=True)
        return torch.cat([super(OneByOne, self).network(x, t, one, None) for x, t, one in parts])


@every_case
def test_splitting_the_batch_of_the_network_changes_nothing(method, latents, weights, cameras):
    condition = told(cameras, weights)
    whole, split = (step(method, world, latents, cameras, 0.3, condition=condition) for world in (World(), OneByOne()))
    torch.testing.assert_close(whole.gradient, split.gradient, rtol=1e-10, atol=1e-12)
    assert whole.guidance.evaluations == split.guidance.evaluations


@dataclass(frozen=True)
class Cost:
    """Of one step: evaluations a view, network calls, and those of them for guided noise, where Perp-Neg adds."""

    evaluations: int
    calls: int
    guided: int = 1


def cost(name: str, t: int, progress: float, later: int) -> Cost:
    """What the methods' docstrings say, at timestep ``t`` (and ``later``); a new method has its line here."""
    interval = int(1000 * Ramp(0.1, 0.08, until=0.3)(progress) + 1e-6)
    up, inversion = math.ceil(max(t - interval - 1, 0) / 200), math.ceil((t - 1) / 100) + 1
    path = sum(999 * step // 10 > later for step in range(11))
    return {
        "sds": Cost(2, 1), "csd": Cost(2, 1), "ssd": Cost(2, 1), "fsd": Cost(2, 1), "cfd": Cost(2, 1),
        "asd": Cost(3, 1), "nfsd": Cost(3, 1), "cds": Cost(4, 2, 2), "vsd": Cost(4, 3), "ism": Cost(up + 3, up + 2),
        "sdi": Cost(2 * (inversion + 1), inversion + 1, inversion + 1), "dsd": Cost(2 * path + 5, path + 3, path + 2),
        "rfds": Cost(2, 1), "rfds-rev": Cost(3, 2), "sds-bridge": Cost(2, 1, 0 if progress >= 0.8 else 1),
    }[name]  # fmt: skip


@every_method
@pytest.mark.parametrize("progress", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("perp", [False, True], ids=["plain", "perp-neg"])
def test_costs_what_it_says(name, progress, perp, latents, weights, cameras):
    world, condition = World(), told(cameras, weights if perp else None)
    guidance = step(PLAIN[name], world, latents, cameras, progress, condition=condition).guidance
    t = float(guidance.figures["timestep"])
    assert 0 <= t < 1000
    expected = cost(name, round(t), progress, round(t + float(guidance.figures.get("shift", 0.0))))
    perp_evaluations = 2 * expected.guided if perp else 0
    assert guidance.evaluations == world.evaluations == world.seen == 4 * (expected.evaluations + perp_evaluations)
    assert world.calls == expected.calls


@every_method
def test_says_what_a_step_costs(name):
    assert "A step costs" in (sys.modules[type(PLAIN[name]).__module__].__doc__ or "")


def unclipped(method: Distillation) -> Distillation:
    """Where every element is clipped, a gradient cannot show what it depends on."""
    return replace(method, clip=flat(0.0))


@every_case
def test_elements_are_clipped_if_asked(method, latents, cameras):
    whole = step(unclipped(method), World(), latents, cameras, 0.5).gradient
    limit = float(whole.abs().median())
    clipped = step(replace(method, clip=Ramp(0.0, 2 * limit)), World(), latents, cameras, 0.5).gradient
    torch.testing.assert_close(clipped, whole.clamp(-limit, limit), rtol=1e-12, atol=0)


@every_case
def test_perp_neg_of_weight_zero_is_plain_and_of_another_is_not(method, latents, weights, cameras):
    plain, none, some = (
        step(unclipped(method), World(), latents, cameras, 0.3, condition=told(cameras, w)).gradient
        for w in (None, torch.zeros(4, 2), weights)
    )
    torch.testing.assert_close(none, plain, rtol=1e-10, atol=1e-12)
    assert all(float((a - b).abs().max()) > 1e-6 for a, b in zip(some, plain, strict=True))


@every_case_at_rest
@pytest.mark.parametrize("branch", BRANCHES[:2])
def test_listens_to_both_prompts(method, branch, latents, cameras):
    plain, other = (
        step(unclipped(method), World(), latents, cameras, 0.3, condition=told(cameras, **tokens)).gradient
        for tokens in ({}, {branch: "perp1"})
    )
    assert all(float((a - b).abs().max()) > 1e-6 for a, b in zip(plain, other, strict=True))


@every_case_at_rest
def test_rests_at_the_only_picture_of_a_world(method, cameras):
    """With and without the prompt, all data is one point: there every method's two terms agree, whatever t and eps."""
    point = World(means=(0.4,) * 4, deviations=(0.0,) * 4)
    there = torch.full((4, 3, 2, 2), 0.4, dtype=torch.float64)
    assert float(step(method, point, there, cameras, 0.3).gradient.abs().max()) < 1e-11


@pytest.mark.parametrize(
    "name", ["csd", "csd-three-terms", "nfsd-high", "ssd", "ssd-mode", "vsd", "vsd-fast", "vsd-esd"]
)
def test_a_prompt_that_says_nothing_has_no_gradient(name, latents, cameras):
    """h = 0: what is left of CSD, SSD and untrained VSD is nothing, of SDS a gradient to the data."""
    world = World(means=(0.4,) * 4, deviations=(0.3,) * 4)
    assert float(step(CASES[name], world, latents, cameras, 0.3).gradient.abs().max()) < 1e-12
    assert float(step(CASES["sds"], world, latents, cameras, 0.3).gradient.abs().max()) > 1e-2


FLOW = torch.linspace(1, 1000, 1000, dtype=torch.float64) / 1001
SCHEDULES = {"short": plain_schedule(50), "long": plain_schedule(1024), "flow": NoiseSchedule(1 - FLOW, FLOW)}


@every_case
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_keeps_to_the_schedule_of_any_prior(method, schedule, progress, latents, cameras):
    world = World(schedule=schedule)
    result = step(method, world, latents, cameras, progress)
    assert bool(result.gradient.isfinite().all())
    assert 0 <= float(result.guidance.figures["timestep"]) < len(schedule)
    for questions in world.asked.values():
        assert all(bool((asked.x.abs() < 1e4).all()) for asked in questions)


@every_case
@pytest.mark.parametrize("progress", [0.0, 0.4])
def test_views_that_the_prior_sees_together_share_their_times(method, progress):
    """The network attends across a group, and was trained with one t for all of it; other groups have their own."""
    world = World()
    world.view_group = 4
    latents = torch.randn(8, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    step(method, world, latents, orbit(8, 8), progress)
    for questions in world.asked.values():
        for asked in questions:
            groups = asked.t.unflatten(0, (-1, 4))
            assert bool((groups == groups[:, :1]).all())
