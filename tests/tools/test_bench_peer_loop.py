"""The peers' step is what it says it is: SDS by its formula, on the same weights, with its statistics."""

from __future__ import annotations

import argparse
import sys
from types import SimpleNamespace

import pytest
import tooling
import torch
from tiny import stable_diffusion
from tiny.steps import load
from views import views_of

from gsdistill.distillation.base import Moment
from gsdistill.distillation.sds import SDS
from gsdistill.prior.families.stable_diffusion import StableDiffusion
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

tool = tooling.tool("bench/peer_loop")


def options(**changes):
    defaults = {
        "prior": "shapes",
        "views": 2,
        "resolution": 32,
        "n": 200,
        "steps": 2,
        "rounds": 2,
        "warmup": 1,
        "compile": False,
    }
    return argparse.Namespace(**{**defaults, **changes})


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_peers_gradient_is_that_of_sds(prediction_type, tmp_path, monkeypatch):
    """Their drawn t and eps given to our SDS."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prior = load(StableDiffusion, stable_diffusion.build(tmp_path / "model", prediction_type))
    text, cameras = prior.encode_text("red", ""), orbit(3, 16)
    x0, t, eps = torch.randn(3, 4, 8, 8), torch.tensor([40, 500, 960]), torch.randn(3, 4, 8, 8)
    condition = prior.condition(text, cameras)
    monkeypatch.setattr(Moment, "draw_timesteps", lambda *_: t)
    monkeypatch.setattr(Moment, "draw_noise", lambda _: eps)
    moment = Moment(prior, views_of(x0, cameras), condition, 0.0, torch.Generator())
    expected = SDS(guidance_scale=Ramp(tool.OMEGA, tool.OMEGA)).gradient(moment, {})[0].gradient
    monkeypatch.setattr(torch, "randint", lambda *_, **__: t)
    monkeypatch.setattr(torch, "randn_like", lambda _: eps)
    peer = SimpleNamespace(
        prior=prior, network=prior._network, text=text, views=SimpleNamespace(count=3),
        levels=prior.schedule.alphas.square(),
    )  # fmt: skip
    found = tool.PeerLoop._gradient(peer, x0, condition)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_their_network_has_our_weights():
    prior, _, network = tool.models("shapes", torch.device("cpu"), False)
    text, x, t = prior.encode_text("a red torus", ""), torch.randn(2, *prior.latent_shape), torch.tensor([30, 700])
    condition = prior.condition(text, orbit(2, 32))
    told = prior.inputs(x, t, condition.branches["positive"], condition.cameras)
    told = {name: value.float() if torch.is_floating_point(value) else value for name, value in told.items()}
    with torch.no_grad():
        theirs = network(**told)
        ours = prior.network(x, t, condition.branches["positive"], condition.cameras)
    assert float((theirs.sample - ours).norm() / ours.norm()) < 0.02  # ours may multiply in bfloat16


def test_a_step_of_theirs_moves_everything_and_counts_what_is_seen():
    _, step, _ = tool.both(options(), torch.device("cpu"))
    peer = step.__self__
    before = {key: value.detach().clone() for key, value in peer.params.items()}
    step()
    step()
    assert all(not torch.equal(before[key], value) for key, value in peer.params.items())
    assert peer.log["loss"] > 0 and peer.log["norm"] > 0 and peer.log["count"] == int((peer.seen > 0).sum()) > 0
    assert float(peer.seen.max()) == 4.0  # two steps of two views
    assert ((peer.widest > 0) == (peer.seen > 0)).all() and bool((peer.steepness[peer.seen > 0] > 0).any())


@pytest.mark.slow
def test_measures_both_by_turns():
    found = tool.measure(options(), torch.device("cpu"))
    times = found["milliseconds_per_step"]
    assert [len(times["blocks"][name]) for name in ("ours", "peers")] == [2, 2]
    assert found["ratio"] == pytest.approx(times["peers"] / times["ours"])
    assert found["ratio_low"] <= found["ratio_high"]
    assert set(found["our_phases_ms"]) >= {"render", "network", "encode backward", "render backward"}
    assert 0 < found["share_beside_network_and_encoder"] < 1


def test_a_mistake_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_peer_loop.py", "--prior", "shapess"])
    with pytest.raises(SystemExit, match=r"^peer_loop\.py: .*shapess"):
        tool.main()
