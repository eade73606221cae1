"""Who hears of a run: what is told, in which order, and what an error of a listener does."""

from __future__ import annotations

import pytest
import torch

from gsdistill.core.errors import OutputError
from gsdistill.distillation.sds import SDS
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.scene.init.ball import Ball
from gsdistill.training.distiller import Distiller
from gsdistill.training.listener import Listener, ListenerFailed
from gsdistill.training.views import ViewSettings

SIZE = 8


class Ear(Listener):
    """Writes down what it hears under a name; in step ``at`` it does what it is told to."""

    def __init__(self, name, heard, at=0, act=lambda run: None):
        self.name, self.heard, self.at, self.act = name, heard, at, act

    def on_step(self, step, run):
        self.heard.append((self.name, step.number, run.over))
        if step.number == self.at:
            self.act(run)

    def on_end(self, run):
        self.heard.append((self.name, "end", run.over))


@pytest.fixture
def run() -> Distiller:
    one = Mixture(torch.ones(1), torch.full((1, 3 * SIZE * SIZE), -0.5, dtype=torch.float64), torch.tensor([0.2]))
    prior, generator = AnalyticPrior(one, one, (3, SIZE, SIZE)), torch.Generator().manual_seed(3)
    splat = GaussianScene(Ball(count=10).create("", generator), SceneSettings(), 4, torch.device("cpu"))
    return Distiller(splat, prior, SDS(), prior.encode_text("", ""), ViewSettings(1, SIZE), 4, generator)


def test_each_hears_of_every_step_in_order_and_knows_the_last(run):
    heard = []
    run.run((Ear("a", heard), Listener(), Ear("b", heard)))
    steps = [(name, number, number == 4) for number in range(1, 5) for name in "ab"]
    assert heard == [*steps, ("a", "end", True), ("b", "end", True)]


def test_one_that_stops_makes_it_the_last_step_and_who_iterates_again_goes_on(run):
    heard = []
    run.run((Ear("a", heard, 2, Distiller.stop), Ear("b", heard)))
    assert heard[2:] == [("a", 2, False), ("b", 2, True), ("a", "end", True), ("b", "end", True)]
    assert run.done == 2 and [step.number for step in run] == [3, 4]


def test_one_that_breaks_is_named_and_leaves_a_sound_run(run):
    heard, ear = [], None
    ear = Ear("a", heard, 2, lambda run: {}["no such"])
    with pytest.raises(ListenerFailed) as caught:
        run.run((ear, Ear("b", heard)))
    assert str(caught.value) == f"the listener {Ear.__module__}.Ear failed after step 2, KeyError: 'no such'"
    assert isinstance(caught.value.__cause__, KeyError)
    assert heard[-1] == ("a", 2, False) and run.consistent and run.done == 2
    with pytest.raises(ListenerFailed, match="failed after step 4, ZeroDivisionError"):
        run.run((type("Late", (Listener,), {"on_end": lambda self, run: 1 / 0})(),))


@pytest.mark.parametrize(
    "error",
    [OutputError("taken"), OSError(28, "No space left"), MemoryError(), KeyboardInterrupt(),
     RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=repr,
)  # fmt: skip
def test_what_says_enough_itself_passes_as_it_is(run, error):
    def raising(run):
        raise error

    with pytest.raises(type(error)) as caught:
        run.run((Ear("a", [], 1, raising),))
    assert caught.value is error
