"""Numbers gone wrong, put into every method's run at every stage: they cost the step, and nothing that is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from rich.console import Console

from gsdistill import generate
from gsdistill.distillation.base import Distillation
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.vsd import VSD
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.prior.prompts import PromptSettings, encode_with_endings
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.run import config as runconfig
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.registry import load, names
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Diverged
from gsdistill.training.views import ViewSettings

SIZE, VIEWS, STEPS = 16, 2, 12
GROWING = Gradient(enabled=True, start=0.0, stop=1.0, every=1 / 3, grow_grad2d=1e-4, budget=60)
METHODS: dict[str, Distillation] = {
    **{name: load("gsdistill.distillation", name)() for name in names("gsdistill.distillation")},
    "cds-antithetic": CDS(noise="antithetic"),
    "vsd": VSD(lora_rate=0.1),
}


@dataclass(frozen=True)
class Dose:
    """What is put in, and where: into all samples, or into the first alone."""

    value: float
    everywhere: bool

    def into(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with the value in it; gradients go through as if it were not."""
        added = (self.value - tensor).detach()
        if not self.everywhere:
            added[1:] = 0
        return tensor + added


# the steps that go wrong, between good ones and around those at which Gaussians are grown
DOSES = {
    2: Dose(math.nan, True),
    3: Dose(math.nan, False),
    5: Dose(math.inf, True),
    6: Dose(-math.inf, False),
    9: Dose(1e30, True),
    10: Dose(1e30, False),
}
GROWS = 4  # steps between two such steps


class Ward(AnalyticPrior):
    """A world in which the prompt picks dark blue; ``doses`` go, by step, into what ``stage`` is about."""

    def __init__(self, stage: str, doses: dict[int, Dose] | None = None) -> None:
        dimensions = 3 * SIZE * SIZE
        blue = torch.tensor([-0.8, -0.8, 0.2], dtype=torch.float64).repeat_interleave(SIZE * SIZE)[None]
        anything = Mixture(torch.ones(1), torch.zeros(1, dimensions), torch.ones(1))
        super().__init__(Mixture(torch.ones(1), blue, torch.tensor([0.2])), anything, (3, SIZE, SIZE))
        self.stage, self.doses, self.step = stage, doses or {}, 0

    def dose(self, stage: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, with this step's dose where it is due."""
        found = self.doses.get(self.step) if stage == self.stage else None
        return found.into(tensor) if found else tensor

    def encode(self, images):
        self.step += 1
        return self.dose("latents", super().encode(self.dose("images", images)))

    def network(self, latents, timesteps, text, cameras):
        return self.dose("answers", super().network(latents, timesteps, text, cameras))


def begin(prior: Ward, method: Distillation) -> Distiller:
    generator = torch.Generator().manual_seed(3)
    initial = Ball(count=40).create("", generator)
    splat = GaussianScene(initial, SceneSettings(densify=GROWING), STEPS, torch.device("cpu"))
    text = encode_with_endings(prior.encode_text, "", "", PromptSettings(), method.endings())
    run = Distiller(splat, prior, method, text, ViewSettings(VIEWS, SIZE), STEPS, generator)
    for key in ("means", "sh"):
        splat.params[key].register_hook(lambda gradient: prior.dose("gradients", gradient))
    return run


def all_steps(run: Distiller, prior: Ward) -> Iterator[bool]:
    """Whether each step changed the parameters."""
    for record in run:
        yield bool(record.finite)
        if record.number % GROWS == 0:  # parameters are new ones
            for key in ("means", "sh"):
                run.representation.params[key].register_hook(lambda gradient: prior.dose("gradients", gradient))


def kept(run: Distiller) -> dict[str, torch.Tensor]:
    """All that a step may change but its count and the random numbers, copied."""
    found = {name: value.detach() for name, value in run.representation.state().items() if name != "counts"}
    found |= {f"method.{key}": value for key, value in run.method_state.items()}
    return {name: value.clone() for name, value in found.items()}


@pytest.mark.parametrize("stage", ["images", "latents", "answers", "gradients"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_bad_step_changes_nothing_that_is_kept_and_the_run_goes_on(method, stage):
    prior = Ward(stage, DOSES)
    run = begin(prior, method)
    before, skipped = kept(run), []
    for number, updated in enumerate(all_steps(run, prior), start=1):
        after = kept(run)
        if updated:
            assert any(not torch.equal(value, before.get(name, value)) for name, value in after.items())
        else:
            skipped.append(number)
            assert after.keys() >= before.keys()
            changed = [n for n, v in after.items() if not torch.equal(v, before.get(n, torch.zeros_like(v)))]
            assert not changed, (number, DOSES[number], changed)
        unfit = [n for n, v in after.items() if not bool(v.isfinite().all()) or float(v.abs().amax()) > 1e9]
        assert not unfit, (number, unfit)
        before = after
    # a finite number, however large, may be clipped (CDS), or cancel out between two answers that are the same
    assert {2, 3, 5, 6} <= set(skipped) <= set(DOSES) and run.done == STEPS


@pytest.mark.parametrize("name", ["sds", "vsd"])
def test_a_storm_ends_in_one_error_and_leaves_a_run_that_can_go_on(name, tmp_path):
    """Through ``generate``: the checkpoint holds the parameters from before the storm, and settings that help."""
    prior = Ward("answers", {step: Dose(math.nan, False) for step in range(4, 1000)})
    given = {"prompt": "a blue wall", "prior": "shapes", "method": {"name": name}, "init": {"name": "ball"}}
    given |= {"recipe": False, "views": VIEWS, "resolution": SIZE, "iterations": 200, "output": str(tmp_path)}
    with pytest.raises(Diverged, match="of 60 steps had a gradient that is not finite"):
        generate.run(runconfig.resolve(given), Console(quiet=True), prior, extras=False)
    saved, damaged = checkpoint.read_last(tmp_path / "checkpoints")
    assert not damaged and saved.counters.done == 60 and saved.counters.skipped == 57
    assert all(bool(tensor.isfinite().all()) for tensor in saved.tensors.values())
