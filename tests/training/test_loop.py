"""The loop on a closed-form prior: it learns, resumes bit for bit, depends on the seed alone, survives bad steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gsdistill.distillation.cds import CDS
from gsdistill.distillation.sds import SDS
from gsdistill.errors import BadFile
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.ramp import Ramp
from gsdistill.renderer.base import RenderOptions
from gsdistill.scene.cameras import CameraSettings
from gsdistill.scene.densify import DensifySettings
from gsdistill.scene.init.sphere import Sphere
from gsdistill.training import checkpoint
from gsdistill.training.loop import Diverged, Optimisation, OptimSettings, Plan, draw_backgrounds, start, steps
from gsdistill.training.regularizers import RegularizerSettings

SIZE = 16
PLAN = Plan(12, 2, SIZE, "mixed", CameraSettings(), RenderOptions(), RegularizerSettings(), OptimSettings())
GROWING = DensifySettings(enabled=True, start=0.0, stop=1.0, every=0.25, grow_grad2d=1e-4, budget=60)


@pytest.fixture(scope="module")
def prior() -> AnalyticPrior:
    """A world of one picture: everything is dark blue."""
    picture = torch.tensor([-0.8, -0.8, 0.2], dtype=torch.float64)[:, None, None].expand(3, SIZE, SIZE).reshape(1, -1)
    mixture = Mixture(torch.ones(1), picture, torch.tensor([0.2]))
    return AnalyticPrior(mixture, mixture, (3, SIZE, SIZE))


def begin(
    prior: AnalyticPrior, method: SDS | CDS, plan: Plan = PLAN, densify: DensifySettings = GROWING
) -> Optimisation:
    generator = torch.Generator().manual_seed(3)
    initial = Sphere(count=40).create("", generator)
    return start(initial, method, prior, plan, densify, generator, torch.device("cpu"))


def carry(run: Optimisation, prior: AnalyticPrior, method: SDS | CDS, count: int, plan: Plan = PLAN) -> list:
    stream: Iterator = steps(run, method, prior, prior.encode_text("", ""), plan)
    return [next(stream) for _ in range(count)]


def state(run: Optimisation) -> list[torch.Tensor]:
    return [value.detach().clone() for value in run.params.values()]


def assert_equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left, right)


def test_learns_the_only_picture_of_its_world(prior):
    plan = replace(PLAN, iterations=80, background="black")
    method = SDS(guidance_scale=Ramp(1.0, 1.0), weighting="uniform")
    run = begin(prior, method, plan, DensifySettings())
    records = carry(run, prior, method, 80, plan)

    def blue(images):
        return float((images[..., 2] - images[..., 0]).mean())

    assert blue(records[-1].images) > blue(records[0].images) + 0.1
    assert [r.step for r in records] == list(range(1, 81))
    assert set(run.seconds) == {"render", "encode", "network", "backward", "optimise", "densify"}


@pytest.mark.parametrize("method", [SDS(), CDS(), CDS(noise="antithetic")], ids=["sds", "cds", "antithetic"])
def test_resumes_bit_for_bit_across_a_densification(method, prior, tmp_path):
    whole = begin(prior, method)
    carry(whole, prior, method, 12)
    first = begin(prior, method)
    carry(first, prior, method, 7)
    assert len(first.params["means"]) > 40  # it has grown
    checkpoint.save(first, tmp_path / "c.safetensors", {"seed": 1})
    second = begin(prior, method)
    assert checkpoint.load(second, tmp_path / "c.safetensors") == {"seed": 1}
    assert second.done == 7
    carry(second, prior, method, 5)
    assert_equal(state(whole), state(second))


def test_is_a_function_of_the_seed_alone(prior):
    runs = []
    for offset in (0, 123):
        torch.manual_seed(offset)  # the global generator must not matter
        run = begin(prior, CDS())
        carry(run, prior, CDS(), 8)
        runs.append(state(run))
    assert_equal(*runs)


def test_the_budget_holds(prior):
    run = begin(prior, SDS())
    assert max(record.count for record in carry(run, prior, SDS(), 12)) == 60


class Broken(AnalyticPrior):
    """Answers with NaN."""

    def network(self, latents, timesteps, text, cameras):
        return torch.full_like(latents, torch.nan)


def test_a_step_without_a_finite_gradient_changes_nothing_and_too_many_stop_the_run(prior):
    broken = Broken(*prior._mixtures, prior.latent_shape)
    plan = replace(PLAN, iterations=200)
    run = begin(broken, SDS(), plan)
    before = state(run)
    records = carry(run, broken, SDS(), 50, plan)
    assert_equal(before, state(run))
    assert run.skipped == 50 and not any(record.finite for record in records)
    with pytest.raises(Diverged, match="51 of 51 steps"):
        carry(run, broken, SDS(), 1, plan)


def test_backgrounds():
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(draw_backgrounds("white", 3, generator), torch.ones(3, 3))
    mixed = draw_backgrounds("mixed", 2000, generator)
    grey = (mixed == 0.5).all(1)
    assert 0.45 < float(grey.float().mean()) < 0.55
    assert 0.45 < float(mixed[~grey].mean()) < 0.55
    assert draw_backgrounds("random", 5, generator).shape == (5, 3)


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_a_broken_checkpoint_is_named(damage, prior, tmp_path):
    path: Path = tmp_path / "c.safetensors"
    run = begin(prior, SDS())
    if damage != "missing":
        checkpoint.save(run, path, {})
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"{}" * 40)
    with pytest.raises(BadFile, match=r"c\.safetensors"):
        checkpoint.load(run, path)
