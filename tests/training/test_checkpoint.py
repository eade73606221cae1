"""Checkpoints: the last two stay, a damaged one is never taken for a whole one, and what fails leaves a run whole."""

from __future__ import annotations

import json
import struct
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gsdistill.core.errors import BadFile, OutputError
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.vsd import VSD
from gsdistill.prior.analytic import AnalyticPrior
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.scene.densify.base import Densification
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.densify.mcmc import MCMC
from gsdistill.scene.init.ball import Ball
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Diverged
from gsdistill.training.views import ViewSettings

SIZE = 8
PLAIN = SDS()
GROWING = Gradient(enabled=True, start=0.0, stop=1.0, every=0.25, grow_grad2d=1e-4, budget=30)


def begin(prior, method=PLAIN, iterations=12, densify: Densification = GROWING) -> Distiller:
    generator = torch.Generator().manual_seed(3)
    initial = Ball(count=20).create("", generator)
    splat = GaussianScene(initial, SceneSettings(densify=densify), iterations, torch.device("cpu"))
    return Distiller(splat, prior, method, prior.encode_text("", ""), ViewSettings(2, SIZE), iterations, generator)


def carry(run: Distiller, count: int) -> None:
    for _ in islice(run, count):
        pass


def everything(run: Distiller) -> dict[str, object]:
    """All that decides how a run goes on, to compare."""
    scene = run.representation
    found: dict[str, object] = {f"param.{key}": value.detach().clone() for key, value in scene.params.items()}
    for key, optimizer in scene.optimizers.items():
        found |= {f"adam.{key}.{n}": value.clone() for n, value in optimizer.state[scene.params[key]].items()}
    found |= {f"densify.{key}": value for key, value in scene.densifier.state_dict().items()}
    found |= {name: getattr(scene, name) for name in ("extent", "grown", "pruned")}
    found |= {f"method.{key}": value.clone() for key, value in run.method_state.items()}
    found["generator"] = run.generator.get_state()
    return found | {name: getattr(run, name) for name in checkpoint.Counters.__dataclass_fields__}


def assert_same(a: dict[str, object], b: dict[str, object]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name], name


def test_the_last_two_stay(prior, tmp_path):
    run = begin(prior)
    for _ in range(4):
        carry(run, 1)
        checkpoint.save(run, tmp_path, {})
    assert [path.name for path in checkpoint.find(tmp_path)] == ["step-000004.safetensors", "step-000003.safetensors"]
    assert len(list(tmp_path.iterdir())) == 2
    checkpoint.drop(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("method", [SDS(), CDS(), VSD()], ids=["sds", "cds", "vsd"])
def test_all_comes_back(method, prior, tmp_path):
    first = begin(prior, method)
    carry(first, 5)
    first.skipped = 2
    first.forgiven = 1
    path = checkpoint.save(first, tmp_path, {"method": {"name": "x"}}, {"torch": "2"})
    second = begin(prior, method)
    found = checkpoint.read(path)
    assert (found.settings, found.versions) == ({"method": {"name": "x"}}, {"torch": "2"})
    checkpoint.restore(second, found)
    assert_same(everything(first), everything(second))
    assert second.clock.seconds == first.clock.seconds


@pytest.mark.parametrize("densify", [GROWING, MCMC(start=0.0, stop=1.0, every=0.1, growth=0.2, noise_lr=1e4)])
def test_a_run_that_grows_goes_on_as_if_it_had_not_stopped(densify, prior, tmp_path):
    whole, first, second = (begin(prior, densify=densify) for _ in range(3))
    carry(whole, 12)
    carry(first, 5)
    checkpoint.restore(second, checkpoint.read(checkpoint.save(first, tmp_path, {})))
    carry(second, 7)
    assert whole.representation.grown > 0
    assert_same(everything(whole), everything(second))


def test_a_checkpoint_of_another_densifier_is_refused(prior, tmp_path):
    run = begin(prior)
    carry(run, 5)
    with pytest.raises(BadFile, match=r"does not fit a run with these settings: densify\.count"):
        checkpoint.restore(begin(prior, densify=MCMC()), checkpoint.read(checkpoint.save(run, tmp_path, {})))


def test_a_full_disk_leaves_what_was_there(prior, tmp_path, monkeypatch):
    run = begin(prior)
    checkpoint.save(run, tmp_path, {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    carry(run, 1)

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left on device"):
        patch.setattr(Path, "write_bytes", full)
        checkpoint.save(run, tmp_path, {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def two(prior, tmp_path) -> tuple[Path, Path]:
    run = begin(prior)
    carry(run, 3)
    older = checkpoint.save(run, tmp_path, {"seed": 1})
    carry(run, 1)
    return checkpoint.save(run, tmp_path, {"seed": 1}), older


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "bit"])
def test_a_damaged_one_is_told_and_the_one_before_is_taken(damage, two, prior, tmp_path):
    latest, older = two
    data = bytearray(latest.read_bytes())
    data[-3] ^= 4  # of the last tensor, so that the file still has its form
    latest.write_bytes(
        {"cut": bytes(data[: len(data) // 2]), "empty": b"", "foreign": b"{}" * 40}.get(damage, bytes(data))
    )
    found, told = checkpoint.read_last(tmp_path)
    assert found.counters.done == 3 and found.settings == {"seed": 1}
    assert len(told) == 1 and latest.name in told[0]
    older.unlink()
    with pytest.raises(BadFile, match=latest.name):
        checkpoint.read_last(tmp_path)


def test_no_flipped_bit_passes(two):
    """Wherever it is: every byte of the header, and of the tensors a sample of them."""
    data = two[0].read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    generator = torch.Generator().manual_seed(0)
    places = [
        *range(0, 8 + length, 7),
        *(8 + length + torch.randint(len(data) - 8 - length, (60,), generator=generator)).tolist(),
    ]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        two[0].write_bytes(changed)
        try:
            checkpoint.read(two[0])
        except BadFile:
            continue
        text = json.loads(data[8 : 8 + length])["__metadata__"]
        assert json.loads(bytes(changed[8 : 8 + length]))["__metadata__"] == text, place  # white space


def test_it_must_fit_the_run(two, prior):
    run = begin(prior, VSD())
    with pytest.raises(BadFile, match=r"not fit a run with these settings: method\.lora; --overwrite starts anew"):
        checkpoint.restore(run, checkpoint.read(two[0]))
    assert_same(everything(run), everything(begin(prior, VSD())))


def test_another_version_is_named(prior, tmp_path, monkeypatch):
    run = begin(prior)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_VERSION", 1)
        path = checkpoint.save(run, tmp_path, {})
    with pytest.raises(BadFile, match="is of another version of gsdistill"):
        checkpoint.read(path)


def test_a_checkpoint_of_version_4_is_read(prior, tmp_path):
    """It calls the forgiven steps pardoned."""
    run = begin(prior)
    run.forgiven = 3
    path = checkpoint.save(run, tmp_path, {})
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["gsdistill"])
    header |= {"version": 4, "pardoned": header.pop("forgiven")}
    text = json.dumps(header)
    save_file(tensors, path, {"gsdistill": text, "crc32": checkpoint._checksum(tensors, text)})
    assert checkpoint.read(path).counters == checkpoint.Counters(done=0, skipped=0, forgiven=3, evaluations=0)


class Broken(AnalyticPrior):
    """Fails in one network call."""

    calls, fails = 0, 7

    def network(self, latents, timesteps, text, cameras):
        self.calls += 1
        if self.calls == self.fails:
            raise RuntimeError("the network is gone")
        return super().network(latents, timesteps, text, cameras)


@pytest.mark.parametrize("method", [CDS(), VSD()], ids=["cds", "vsd"])
def test_a_step_that_fails_leaves_the_run_as_it_was(method, prior, tmp_path):
    """Saved then, it ends where an undisturbed run ends."""
    whole = begin(prior, method)
    carry(whole, 12)
    run = begin(Broken(*reversed(prior._mixtures), prior.latent_shape), method)
    with pytest.raises(RuntimeError, match="the network is gone"):
        carry(run, 12)
    assert 0 < run.done < 7 and run.consistent
    again = begin(prior, method)
    checkpoint.restore(again, checkpoint.read(checkpoint.save(run, tmp_path, {})))
    carry(again, 12 - again.done)
    assert_same(everything(whole), everything(again))


def test_a_step_that_fails_while_parameters_change_is_not_consistent(prior, monkeypatch):
    run = begin(prior)
    carry(run, 2)
    monkeypatch.setattr(run.representation, "adapt", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        carry(run, 1)
    assert not run.consistent


def test_forgiven_steps_do_not_count_against_a_run(prior):
    run = begin(prior, iterations=100)
    run.skipped = 60
    with pytest.raises(Diverged, match="60 of 10 steps"):
        carry(run, 10)
    run.forgiven = run.skipped
    carry(run, 10)
    assert run.done == 20
