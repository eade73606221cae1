"""The loop: what a step computes, that a stop leaves no trace, what is skipped, and what cannot go on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from learning.common import TRUTH, draw, equal, everything, loss, model, settings, trainer
from rich.console import Console
from torch import nn

from gsdistill.core.errors import BadFile
from gsdistill.learning.stream import Key
from gsdistill.learning.trainer import Trainer
from gsdistill.run.watch import Interrupt
from gsdistill.training.distiller import Diverged


def test_a_step_is_plain_gradient_descent_on_the_mean_of_its_pieces():
    linear = nn.Linear(3, 2, bias=False).double()
    weights = linear.weight.detach().clone()
    plain = lambda network, batch, progress: (network(batch["x"]) - batch["y"]).square().mean()  # noqa: E731
    sgd = torch.optim.SGD(linear.parameters(), 0.2)
    run = Trainer(linear, plain, draw, settings(shards=3, warmup=4, clip=1e9, ema=0.0), [sgd])
    step = next(iter(run))
    batches = [draw(Key(5, 0, shard)) for shard in range(3)]
    x, y = (torch.cat([batch[name] for batch in batches]) for name in ("x", "y"))
    error = x @ weights.T - y
    gradient = 2.0 * error.T @ x / error.numel()
    torch.testing.assert_close(linear.weight.detach(), weights - 0.2 / 4 * gradient)  # 1 of 4 steps of warm-up
    assert step.finite and step.loss == pytest.approx(error.square().mean().item())


def test_a_long_gradient_is_clipped_to_the_length_given():
    linear = nn.Linear(3, 2, bias=False).double()
    weights = linear.weight.detach().clone()
    sgd = torch.optim.SGD(linear.parameters(), 1.0)
    next(iter(Trainer(linear, loss, draw, settings(warmup=1, clip=0.01), [sgd])))
    assert (linear.weight - weights).norm().item() == pytest.approx(0.01, rel=1e-4)


def test_it_learns_the_truth():
    linear = nn.Linear(3, 2, bias=False).double()
    run = Trainer(linear, loss, draw, settings(steps=400, lr=0.1))
    list(run)
    torch.testing.assert_close(linear.weight.detach(), TRUTH, atol=0.01, rtol=0)
    assert run.complete and run.done == 400 and run.skipped == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_training_ends_with_the_bits_of_one_that_was_not(workers, tmp_path):
    straight = trainer(shards=2, log_every=4)
    straight.run(tmp_path / "straight.pt")
    for until in (3, 7, None):
        run = trainer(shards=2, log_every=4, stop_after=until, workers=workers)
        assert not equal(everything(run), everything(straight))
        run.run(tmp_path / "cut.pt")
        assert run.done == (until or 12)
    run.settings = settings(steps=20, stop_after=5)  # which is behind it
    assert list(run) == []
    assert equal(everything(run), everything(straight))
    assert run.history == straight.history and [step for step, _ in run.history] == [4, 8, 12]


def test_the_pieces_of_a_batch_are_one_batch(tmp_path):
    """Two pieces, one after the other, against one of twice the size; without noise, which goes with the pieces."""

    def both(key: Key) -> dict[str, torch.Tensor]:
        pieces = [draw(Key(key.seed, key.step, shard)) for shard in range(2)]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    plain = lambda network, batch, progress: (network(batch["x"]) - batch["y"]).square().mean()  # noqa: E731
    runs = [Trainer(model().eval(), plain, *rest) for rest in ((draw, settings(shards=2)), (both, settings()))]
    for run in runs:
        list(run)
    for a, b in zip(*map(everything, runs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_signal_within_a_step_is_heard_at_its_end_and_no_step_is_lost(tmp_path):
    straight = trainer()
    straight.run(tmp_path / "straight.pt")

    def ring(network, batch, progress):
        if progress == 4 / 12:
            signal.raise_signal(signal.SIGTERM)
        return loss(network, batch, progress)

    with Interrupt(Console(quiet=True)) as interrupt:
        cut = Trainer(model(), ring, draw, settings())
        cut.run(tmp_path / "cut.pt", should_stop=lambda: interrupt.asked)
    assert cut.done == 5 and not cut.complete
    rest = trainer()
    rest.run(tmp_path / "cut.pt")
    assert equal(everything(rest), everything(straight))


def test_each_piece_has_random_numbers_of_its_own_and_those_of_others_stay_what_they_were():
    seen: list[float] = []

    def watched(network, batch, progress):
        seen.append(torch.rand(()).item())
        return loss(network, batch, progress)

    for start in (1, 2):
        run = Trainer(model(), watched, draw, settings(shards=2))
        torch.manual_seed(start)
        before = torch.random.get_rng_state()
        list(run)
        assert torch.equal(before, torch.random.get_rng_state())
    assert len(set(seen)) == 24 and seen[:24] == seen[24:]


def spoilt(*steps: int):
    def bad(key: Key) -> dict[str, torch.Tensor]:
        batch = draw(key)
        return {"x": batch["x"] * float("nan")} | {"y": batch["y"]} if key.step in steps else batch

    return bad


def test_a_batch_of_nan_changes_nothing_and_is_counted():
    run = Trainer(model(), loss, spoilt(3, 4), settings())
    seen = []
    for step in run:
        seen.append(step.finite)
        if step.number == 3:
            before = [value.clone() for value in everything(run)]
        if step.number in (4, 5):
            assert equal(before, everything(run)) and step.loss != step.loss
    assert [number for number, finite in enumerate(seen) if not finite] == [3, 4]
    assert (run.done, run.skipped, run.in_a_row) == (12, 2, 0)
    assert all(bool(value.isfinite().all()) for value in everything(run))


def test_too_many_in_a_row_end_it_and_so_do_most_of_all():
    run = Trainer(model(), loss, spoilt(*range(10, 1000)), settings(steps=1000))
    with pytest.raises(Diverged, match="51 of 61 steps had a gradient that is not finite, the last 51 in a row"):
        list(run)
    list(Trainer(model(), loss, spoilt(*range(0, 12, 2)), settings()))  # half of them
    with pytest.raises(Diverged, match="7 of 12"):
        list(Trainer(model(), loss, spoilt(*range(0, 12, 2), 11), settings()))


def test_the_rate_rises_stays_and_falls():
    run = trainer(steps=1000, warmup=200, decay_from=0.5, floor=0.01)
    rates = []
    for run.done in (0, 99, 500, 750, 1000):
        rates.append(run.rate)
    assert rates == pytest.approx([0.005, 0.5, 1.0, 0.505, 0.01])


def test_with_minutes_the_clock_ends_it(tmp_path):
    run = trainer(minutes=1e-3, steps=1)
    run.run(tmp_path / "a.pt")
    assert run.seconds >= 0.06 and run.done > 1
    again = trainer(minutes=1e-3, steps=1)
    again.run(tmp_path / "a.pt")
    assert again.done == run.done


def test_checkpoints_come_by_the_clock_and_at_the_end(tmp_path):
    saved = []
    run = trainer(save_every=1e-9)
    run.run(tmp_path / "a.pt", on_save=lambda: saved.append(run.done))
    assert saved == [*range(1, 13), 12]


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (None, {"seed": 6}, "was trained with seed 5 in 1 shards"),
        (None, {"shards": 2}, "was trained with seed 5 in 1 shards"),
        (b"", {}, "is no checkpoint of this training"),
        (b"nothing of the kind", {}, "is no checkpoint of this training"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(content, changes, message, tmp_path):
    path = tmp_path / "a.pt"
    trainer().save(path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFile, match=message):
        trainer(**changes).restore(path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer().save(tmp_path / "a.pt")
    with pytest.raises(BadFile, match="is no checkpoint of this training: Error"):
        Trainer(nn.Linear(3, 2), loss, draw, settings()).restore(tmp_path / "a.pt")


@pytest.mark.slow
def test_the_example_of_the_front_page_learns(tmp_path):
    page = (Path(__file__).parents[2] / "gsdistill/learning/README.md").read_text()
    names = {"path": tmp_path / "a.pt"}
    exec(page.split("```python\n")[1].split("```")[0].replace('"auto"', '"cpu"'), names)
    weights = names["trainer"].model.weight.detach()
    torch.testing.assert_close(weights, torch.ones(1, 3), atol=0.05, rtol=0)
