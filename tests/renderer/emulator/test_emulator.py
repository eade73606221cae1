"""That the emulator is one: what it compiles, what it leaves in fresh memory, and that its pictures are the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from renderer import emulator
from renderer.emulator.translation import translated
from renderer.scenes import cast
from torch import Tensor

from gsdistill.core.structs import Cameras, Gaussians, Render
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.loading import load_prior
from gsdistill.renderer.base import render
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.read import read_splat
from gsdistill.scene.viewpoints import orbit
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


def drawn(backend: str, gaussians: Gaussians, cameras: Cameras, white: Tensor, pull: Tensor) -> dict[str, Tensor]:
    """Pictures, radii, and the gradients of all parameters and of the places on the screen, for one of the pictures."""
    own = gaussians.each(lambda value: value.detach().clone().requires_grad_())
    found = render(own, cameras, white, backend)
    found.images.backward(pull)
    gradients = {name: value.grad for name, value in (*own.tensors().items(), ("screen", found.screen))}
    return {"images": found.images.detach(), "radii": (found.radii > 0).float(), **gradients}


@pytest.mark.emulated
def test_every_step_of_a_run_is_the_same(monkeypatch):
    """Twelve steps with the shapes prior on a splat that grows: the same pictures and gradients at the CPU's states.

    Two runs of their own would part: Adam makes a whole step of what rounding leaves of a gradient of 0.
    """
    steps: list[list[Any]] = []

    def watched(gaussians: Gaussians, cameras: Cameras, backgrounds: Tensor) -> Render:
        found = render(gaussians, cameras, backgrounds, "cpu")
        steps.append([gaussians.each(lambda value: value.detach().clone()), cameras, backgrounds])
        found.images.register_hook(lambda gradient, own=steps[-1]: own.append(gradient.clone()))
        return found

    monkeypatch.setattr("gsdistill.representation.gaussians.render", watched)
    prior = load_prior("shapes", CPU, ModelSettings(precision="float32"))
    densify = Gradient(enabled=True, start=0.0, stop=1.0, every=0.5, grow_grad2d=1.0)
    generator = torch.Generator().manual_seed(0)
    splat = GaussianScene(Ball(count=200).create("", generator), SceneSettings(densify=densify), 12, CPU)
    text, method = prior.encode_text("a red torus", ""), load("gsdistill.distillation", "sds")()
    for _ in Distiller(splat, prior, method, text, ViewSettings(2, 48), 12, generator):
        pass
    assert len(steps) == 12 and splat.grown > 20 and len({len(gaussians) for gaussians, *_ in steps}) > 1
    for place, step in enumerate(steps):
        ours, truth = (drawn(backend, *step) for backend in ("cuda", "cpu"))
        for name, value in truth.items():
            least = 0.0 if name in ("images", "radii") else 1e-6 * float(truth["means"].norm())
            limit = 1e-3 * float(value.norm()) + least  # a round Gaussian has no gradient of quats but rounding
            assert float((ours[name] - value).norm()) <= limit, f"{name} of step {place}"
