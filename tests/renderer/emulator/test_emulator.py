"""That the emulator is one: what it compiles, what it leaves in fresh memory, and that its pictures are the CPU's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from renderer import emulator
from renderer.emulator.translation import translated
from renderer.scenes import cast

from gsdistill.models.settings import ModelSettings
from gsdistill.prior.loading import load_prior
from gsdistill.renderer.base import render
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.scene.cameras import orbit
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.read import read_splat
from gsdistill.settings.registry import load
from gsdistill.training.distiller import Distiller
from gsdistill.training.views import ViewSettings

CHAIR = Path(__file__).parents[2] / "data" / "chair.ply"
CPU = torch.device("cpu")


def test_a_launch_becomes_a_call_with_its_places():
    text = "if (n) { add<float><<<grid, dim3(3, 1), 0, stream>>>(a, f(b), c); }"
    assert translated(text) == (
        "if (n) { emulator::launch(grid, dim3(3, 1), 0, stream, [&] { add<float>(a, f(b), c); }); }"
    )


def test_a_float_that_may_be_too_large_is_cut_as_a_gpu_cuts_it():
    assert translated("x = (int32_t)radius_x; y = (uint32_t)floor(g(a) - b) + 1;") == (
        "x = emulator::converted<int32_t>(radius_x); y = emulator::converted<uint32_t>(floor(g(a) - b)) + 1;"
    )


def test_nothing_is_left_that_only_cuda_understands():
    every = emulator.sources()
    assert {"Common.h", "Utils.cuh", *emulator.PARTS} <= set(every)
    for name in emulator.PARTS:
        assert "<<<" not in every[name] and "is_cuda" not in every[name] and "__shared__" not in every[name]
    kernels = [name for name in emulator.PARTS if name.endswith(".cu")]
    assert sum(every[name].count("emulator::launch(") for name in kernels) >= 8


@pytest.mark.emulated
def test_fresh_memory_holds_no_numbers():
    """Both Gaussians lie behind the camera: all that the kernel writes of them are their radii, which are 0."""
    means = torch.tensor([[0.0, 0.0, -5.0], [1.0, 0.0, -5.0]])
    quats, scales, opacities = torch.ones(2, 4), torch.ones(2, 3), torch.ones(2)
    view, K = torch.eye(4)[None], torch.eye(3)[None]
    kernels = emulator.kernels()
    radii, *others = kernels.projection_ewa_3dgs_fused_fwd(
        means, None, quats, scales, opacities, view, K, 8, 8, 0.3, 0.1, 9.0, 0.0, False, kernels.PINHOLE
    )
    assert not radii.any()
    assert all(value.isnan().all() for value in others[:3])


@pytest.mark.emulated
def test_a_splat_looks_the_same():
    """A chair of a run, at a size of many tiles, one of them cut off: no pixel is off by half a step of 8 bits."""
    chair = read_splat(CHAIR)
    cameras, white = cast(orbit(3, 72, elevation=20.0), torch.float32), torch.ones(3, 3)
    found, truth = (render(chair, cameras, white, backend) for backend in ("cuda", "cpu"))
    assert truth.alphas.mean() > 0.05
    assert (found.images - truth.images).abs().max() < 0.5 / 255
    assert (found.images - truth.images).square().mean().sqrt() < 1e-5
    assert torch.equal(found.radii > 0, truth.radii > 0)


@pytest.mark.emulated
@pytest.mark.parametrize("growing", [False, True])
def test_a_run_goes_the_same_way(growing, monkeypatch):
    """Twelve steps with the shapes prior: Gaussians go to the same places, and where runs refine, as many grow."""
    prior = load_prior("shapes", CPU, ModelSettings(precision="float32"))  # bfloat16 would magnify what rounding leaves
    densify = Gradient(enabled=growing, start=0.0, stop=1.0, every=0.5, grow_grad2d=1.0)
    ends = []
    for renderer in ("cuda", "cpu"):
        monkeypatch.setattr(
            "gsdistill.representation.gaussians.render", lambda *given, name=renderer: render(*given, name)
        )
        generator = torch.Generator().manual_seed(7)  # Adam walks along rounding where a gradient is 0: with 5 one does
        method = load("gsdistill.distillation", "sds")()
        splat = GaussianScene(Ball(count=200).create("", generator), SceneSettings(densify=densify), 12, CPU)
        text = prior.encode_text("a red torus", "")
        for _ in Distiller(splat, prior, method, text, ViewSettings(2, 48), 12, generator):
            pass
        ends.append(splat)
    ours, truth = ends
    assert (ours.grown, ours.pruned) == (truth.grown, truth.pruned)
    assert truth.grown > 20 if growing else truth.grown == 0
    if not growing:  # Adam walks along what rounding leaves of a gradient of 0, which that of a round one's quats is
        for name in ("means", "scales", "opacities", "sh"):
            torch.testing.assert_close(ours.params[name], truth.params[name], rtol=0, atol=3e-3, msg=name)
    cameras, white = cast(orbit(2, 48), torch.float32), torch.ones(2, 3)
    one, other = (render(scene.splat(), cameras, white).images for scene in ends)
    assert (one - other).square().mean().sqrt() < 5e-3
