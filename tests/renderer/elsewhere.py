"""What test_elsewhere.py looks at, each in a process of its own: a scene on a device that does not draw."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from fakedevice import install
from rich.console import Console

from gsdistill import generate
from gsdistill.core import device
from gsdistill.core.errors import ConfigError, Notice
from gsdistill.core.structs import to_device
from gsdistill.disk.read import read_json
from gsdistill.distillation.sds import SDS
from gsdistill.evaluation.fronts import _turned
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.renderer import base, reference
from gsdistill.renderer.base import refusal, render
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.representation.optimizer import Optimizer, OptimSettings
from gsdistill.run import config as runconfig
from gsdistill.run import folder as runfolder
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.read import read_splat
from gsdistill.scene.viewpoints import orbit
from gsdistill.training import distiller
from gsdistill.training.distiller import Distiller
from gsdistill.training.views import ViewSettings

CPU = torch.device("cpu")
GROWING = Gradient(enabled=True, start=0.0, stop=1.0, every=0.3, grow_grad2d=0.01, budget=150, reset_every=0.5)
LACK = "CUDA error: no kernel image is available for execution on the device"
clock = distiller.Clock
distiller.Clock = lambda device: clock(CPU)  # the device has no events


@contextmanager
def told() -> Iterator[list[str]]:
    """What a user is told meanwhile."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        lines: list[str] = []
        yield lines
    lines += [str(one.message) for one in found if one.category is Notice]


def steps_are_those_of_the_cpu() -> None:
    """Ten steps with penalties, growing, pruning, a budget and a reset: the same bits."""
    fake, found = install(), {}
    with told() as lines:
        for place in (CPU, fake):
            mixture = Mixture(*(torch.ones(n, dtype=torch.float64).to(place) for n in ((1,), (1, 768), (1,))))
            prior, generator = AnalyticPrior(mixture, mixture, (3, 16, 16)), torch.Generator().manual_seed(0)
            text = to_device(prior.encode_text("a red torus", ""), place)
            initial = Ball(count=100).create("", generator)
            scene = GaussianScene(initial, SceneSettings(densify=GROWING), 10, place)
            run = Distiller(scene, prior, SDS(), text, ViewSettings(4, 16), 10, generator)
            counts = [record.count for record in run]
            assert {value.device.type for value in scene.params.values()} == {place.type}
            state = {**scene.params, **scene.densifier.state_dict()}
            found[place.type] = counts, {name: value.detach().cpu() for name, value in state.items()}
            assert scene.grown and scene.pruned and not run.skipped
    assert lines == ["fake:0 cannot draw, so the CPU does it instead: there is no renderer for fake"]
    assert found["cpu"][0] == found["fake"][0]
    assert all(torch.equal(value, found["fake"][1][name]) for name, value in found["cpu"][1].items())


def a_whole_run_needs_no_float64() -> None:
    """From the settings to the files, with the peak memory of the device it was on."""
    fake, folder = install(apple=True), Path(tempfile.mkdtemp())
    device.choose = lambda *_: fake
    asked: list[torch.device] = []
    runfolder.peak_memory = lambda place: asked.append(place) or 123 * 2**20
    given = {
        "prompt": "a red torus", "prior": "shapes", "method": "fsd", "init": {"name": "ball", "count": 100},
        "iterations": 2, "quality": "draft", "output": str(folder),
        "densify": {"enabled": True, "start": 0, "stop": 1, "every": 0.5, "grow_grad2d": 0.1},
        "export": {"formats": ["ply", "splat"], "frame": "y-up"},
    }  # fmt: skip
    generate.run(runconfig.resolve(given), Console(quiet=True), extras=False)
    summary = read_json(folder / "summary.json")
    assert summary["device"] == "fake:0" and summary["skipped_steps"] == 0
    assert asked == [fake] and summary["peak_memory_mb"] == 123
    assert len(read_splat(folder)) == summary["gaussians"] > 100
    here, there = (_turned(to_device(orbit(2, 8), place), 30.0) for place in (CPU, fake))  # of the prior's figures
    torch.testing.assert_close(there.viewmats.cpu(), here.viewmats)


def a_bad_step_changes_nothing() -> None:
    """Neither parameters nor moments, where the fused Adam would go on."""
    fake = install(apple=True)
    for settings in (OptimSettings(), OptimSettings(rule="adan", betas=(0.98, 0.92, 0.99))):
        value = torch.nn.Parameter(torch.ones(3).to(fake))
        optimizer, seen = Optimizer(value, settings), []
        for gradient, found_inf in ((2.0, 0.0), (float("nan"), 1.0), (1.0, 0.0)):
            value.grad = torch.full((3,), gradient).to(fake)
            optimizer.step(0.1, torch.tensor(found_inf).to(fake))
            state = optimizer.state[value]
            seen.append([part.detach().cpu().clone() for part in (value, *state.values())])
        assert all(torch.equal(before, after) for before, after in zip(seen[0], seen[1], strict=True))
        assert not torch.equal(seen[1][0], seen[2][0]) and all(part.isfinite().all() for part in seen[2])


def what_comes_back_lies_where_it_should() -> None:
    """Values, gradients and the gradient of the screen, of two backward passes one after the other."""
    fake, found = install(), {}
    for place in (CPU, fake):
        scene = to_device(Ball(count=20).create("", torch.Generator().manual_seed(0)), place)
        leaves = {name: value.clone().requires_grad_() for name, value in scene.tensors().items()}
        grey = torch.full((2, 3), 0.5).to(place).requires_grad_()
        out = render(type(scene)(**leaves), to_device(orbit(2, 24), place), grey)
        out.images.square().sum().backward(retain_graph=True)
        (out.depths.sum() + out.alphas.sum()).backward()
        parts = {**vars(out), "screen": out.screen.grad, "grey": grey.grad}
        parts |= {f"d_{name}": value.grad for name, value in leaves.items()}
        assert {value.device for value in parts.values()} == {place}
        found[place] = {name: value.detach().cpu() for name, value in parts.items()}
        with torch.no_grad():
            assert not render(scene, to_device(orbit(1, 8), place), grey[:1]).screen.requires_grad
    assert found[CPU]["d_means"].any() and found[CPU]["screen"].any()
    assert all(torch.equal(value, found[fake][name]) for name, value in found[CPU].items())
    try:
        render(scene, to_device(orbit(1, 8), fake), grey[:1], backend="cuda")
    except ConfigError as error:
        assert "'cuda' needs an NVIDIA GPU" in str(error)
    else:
        raise AssertionError("a backend asked for by its name is not replaced")


def a_backend_is_tried_before_it_is_used() -> None:
    """One that draws as it must is taken; one that fails, or draws something else, gives way to the CPU."""
    fake = install()
    refusal.cache_clear()
    base._choose.cache_clear()
    real, state = base._module, SimpleNamespace(change=lambda out: out, calls=0)

    def rasterize(*given):
        state.calls += 1
        return state.change(reference.rasterize(*given))

    base.backends = lambda: ("cpu", "fake", "reference")
    base._module = lambda name: SimpleNamespace(rasterize=rasterize) if name == "fake" else real(name)
    scene, cameras = to_device(Ball(count=20).create("", torch.Generator().manual_seed(0)), fake), orbit(1, 8)

    def draw() -> tuple[int, list[str]]:
        state.calls = 0
        with told() as lines:
            for _ in range(3):
                assert render(scene, to_device(cameras, fake), torch.zeros(1, 3).to(fake)).images.device == fake
        refusal.cache_clear()
        base._choose.cache_clear()
        return state.calls, lines

    def fails(error: Exception):
        def change(out):
            raise error

        return change

    def dimmed(out):
        return type(out)(**{**vars(out), "alphas": out.alphas * 0.5})

    def wrong_slope(out):
        return type(out)(**{**vars(out), "alphas": out.alphas.square() * 2})

    assert draw() == (4, [])  # one to try
    lack = "fake:0 cannot draw, so the CPU does it instead: "
    for change, reason in (
        (fails(RuntimeError(f"{LACK}\nmore")), LACK),
        (fails(ConfigError("gsplat has no compiled kernels here")), "gsplat has no compiled kernels here"),
        (fails(ImportError("libcudart.so.13: cannot open")), "libcudart.so.13: cannot open"),
        (dimmed, "it draws 0.25 with the derivative 0.125, but 0.5 and 0.25 are correct"),
        (wrong_slope, "it draws 0.5 with the derivative 0.5, but 0.5 and 0.25 are correct"),
    ):
        state.change = change
        assert draw() == (1, [lack + reason])
    state.change = fails(RuntimeError("CUDA error: out of memory"))
    assert refusal(fake) is None  # it can draw what needs less
    assert refusal(CPU) is None


if __name__ == "__main__":
    for check in sys.argv[1:]:
        globals()[check]()
