"""Steps are those of the loop, spread over the run, and the times account for each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import stable_diffusion
from tiny.steps import load

from gsdistill.bench.timing import time_steps
from gsdistill.core.errors import ConfigError
from gsdistill.distillation.sds import SDS
from gsdistill.prior.families.stable_diffusion import StableDiffusion
from gsdistill.run.config import RunConfig
from gsdistill.scene.init.ball import Ball

CPU = torch.device("cpu")
PHASES = ["render", "encode", "network", "encode backward", "render backward", "optimise", "densify"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load(StableDiffusion, stable_diffusion.build(tmp_path_factory.mktemp("sd") / "sd"))


@pytest.fixture
def config():
    return RunConfig("a", method=SDS(), init=Ball(count=50), views=3, iterations=100, seed=4)


def test_what_is_measured(prior, config):
    before = prior.evaluations
    found = time_steps(config, prior, CPU, count=4, warmup=2)
    assert list(found.phases) == PHASES
    assert {len(times) for times in found.phases.values()} == {4} == {len(found.steps)}
    for step, *parts in zip(found.steps, *found.phases.values(), strict=True):
        assert 0 < sum(parts) <= step
        assert min(parts) > 0
    assert sum(found.steps) <= found.seconds
    assert found.evaluations == 4 * 2 * 3
    assert prior.evaluations - before == (2 + 4 + 1) * 2 * 3
    assert (found.gaussians, found.skipped, found.views.count) == (50, 0, 3)
    assert found.peak_bytes > 10_000_000
    assert found.flops.evaluations == 6


@pytest.mark.slow
def test_the_steps_are_spread_over_the_run(prior, config, monkeypatch):
    progress = []
    real = SDS.gradient

    def spied(self, moment, state):
        progress.append(moment.progress)
        return real(self, moment, state)

    monkeypatch.setattr(SDS, "gradient", spied)
    time_steps(config, prior, CPU, count=5, warmup=2)
    assert progress == [0.0, 0.5, 0.0, 0.2, 0.4, 0.6, 0.8, 0.5]  # warm-up, timed, counted
    progress.clear()
    time_steps(replace(config, iterations=2), prior, CPU, count=4, warmup=1)
    assert progress == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]


def test_the_times_are_those_of_the_work(prior, config, monkeypatch):
    """A network that takes a while longer is seen in its phase, in the step and on the wall, and nowhere else."""
    import time

    real = StableDiffusion.network

    def slow(self, *arguments):
        time.sleep(0.1)
        return real(self, *arguments)

    monkeypatch.setattr(StableDiffusion, "network", slow)
    found = time_steps(config, prior, CPU, count=3, warmup=1)
    assert min(found.phases["network"]) >= 0.1
    assert min(found.steps) >= 0.1
    assert found.seconds >= 0.3
    assert all(min(times) < 0.1 for name, times in found.phases.items() if name != "network")


def test_a_run_that_cannot_be_is_not_measured(prior, config):
    with pytest.raises(ConfigError, match="no multiple of the 2 views"):
        time_steps(replace(config, cameras=replace(config.cameras, group=2)), prior, CPU, 1, 1)
