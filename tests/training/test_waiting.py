"""No step waits for the device: the loop on PyTorch's meta device, whose tensors have no numbers to give back.

There ``float(x)``, ``if x:``, ``x.cpu()``, ``x.nonzero()`` and an index by a mask raise, which on an accelerator are
what holds the program up; and a copy from the CPU that is not queued is seen by a dispatch mode, or, where it is of
Python's numbers, by a function mode.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from tiny import deepfloyd, mvdream, sd3, sdxl, stable_diffusion
from tiny.steps import load
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gsdistill.core.structs import Render, to_device
from gsdistill.distillation.sds import SDS
from gsdistill.models.pipelines import FAMILIES
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import leaf_of
from gsdistill.prior.prompts import PromptSettings, encode_with_endings
from gsdistill.representation import gaussians, regularizers
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.representation.optimizer import OptimSettings
from gsdistill.representation.regularizers import RegularizerSettings
from gsdistill.scene.cameras.orbit import Orbit
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import load as load_class
from gsdistill.settings.registry import names
from gsdistill.training import distiller
from gsdistill.training.distiller import Distiller
from gsdistill.training.views import ViewSettings

META = torch.device("meta")
EVERYTHING = RegularizerSettings(*[Ramp(1.0, 1.0)] * len(fields(RegularizerSettings)))
PLAIN = OptimSettings()
VIEWS = ViewSettings(4, 16, cameras=Orbit(group=4))
METHODS = {name: load_class("gsdistill.distillation", name)() for name in names("gsdistill.distillation")}
del METHODS["cfd"]  # it lists the texels that its surface covers, and waits to learn how many there are
METHODS["sds-adaptive"] = SDS(timesteps="linear-anneal", variance_reduction="adaptive")
METHODS["fsd-mixed"] = replace(METHODS["fsd"], background="fresh", sqrt_beta=0.5)
METHODS["cds-rescaled"] = replace(METHODS["cds"], noise="antithetic", rescale=0.5)


def test_the_device_of_these_tests_gives_nothing_back():
    x = torch.ones(3, device=META)
    for ask in (
        lambda: float(x.sum()), lambda: bool(x.isfinite().all()), lambda: x.cpu(), lambda: x.tolist(),
        lambda: x.nonzero(), lambda: x[x > 0], lambda: x.unique(), lambda: x.masked_select(x > 0),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask()


class Numbers(TorchFunctionMode):
    """Keeps where Python's numbers, or an index on the CPU, become a tensor of the device, unseen by dispatch modes."""

    def __init__(self, found: list) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name, given = getattr(func, "__name__", ""), [*args, *(kwargs or {}).values()]
        if name in ("tensor", "as_tensor", "asarray", "new_tensor"):
            source = given[name == "new_tensor"]
            if out.device == META and not (isinstance(source, torch.Tensor) and source.device == META):
                self.found.append((name, source))
        elif name in ("__getitem__", "__setitem__") and args[0].device == META:
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, (list, torch.Tensor)) and getattr(part, "device", None) != META for part in parts):
                self.found.append((name, args[1]))
        return out


class Uploads(TorchDispatchMode):
    """Keeps where the program copies from the CPU and stands still for it."""

    def __init__(self) -> None:
        super().__init__()
        self.queued, self.blocking = 0, []
        self.numbers = Numbers(self.blocking)

    def __enter__(self) -> Uploads:
        self.numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.numbers.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        target, source = None, args[0] if args else None
        if func is torch.ops.aten._to_copy.default and "device" in kwargs:
            target = torch.device(kwargs["device"]).type
        elif func is torch.ops.aten.copy_.default:
            target, source = args[0].device.type, args[1]
        if target == "meta" and source.device.type == "cpu":
            queued = kwargs.get("non_blocking", False) or (len(args) > 2 and args[2])
            self.queued += queued
            if not queued:
                self.blocking.append((func, source.shape))
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    "copy",
    [
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: torch.tensor([1.0, 2.0], device=META),
        lambda x: torch.tensor(1.0, device=META),
        lambda x: torch.as_tensor(data=[1.0], device=META),
        lambda x: torch.ones(3).to(META),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x[[0, 1]],
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x[None].__setitem__((0, [0, 1]), 1.0),
    ],
)
def test_a_copy_that_waits_is_seen(copy):
    with Uploads() as uploads:
        copy(torch.ones(3, device=META))
    assert uploads.blocking


def test_what_stays_on_the_device_or_is_queued_is_no_such_copy():
    with Uploads() as uploads:
        x = torch.ones(3, device=META)
        torch.as_tensor(x), torch.tensor([1.0]), x[0:2], x[None, 1], torch.full((6,), 2.0, device=META), x.fill_(2.0)
        x[0] = 3.0
        x[x.argsort()], torch.ones(3).to(META, non_blocking=True)
    assert not uploads.blocking and uploads.queued == 1


def pretended_render(gaussians, cameras, backgrounds):
    """Something of a render's shapes that depends on every parameter."""
    everything = sum(value.sum() for value in gaussians.tensors().values())
    blank = torch.zeros(len(cameras), cameras.height, cameras.width, 1, device=everything.device) + everything
    screen = gaussians.means[None, :, :2] * cameras.viewmats[:, :1, :1]
    screen.retain_grad()
    blank = blank + screen.sum()
    radii = torch.zeros(len(cameras), len(gaussians), dtype=torch.int32, device=everything.device)
    return Render(backgrounds[:, None, None] + blank, blank, blank, screen, radii)


@pytest.fixture
def on_meta(monkeypatch):
    """The loop without what the meta device has no kernels or no events for."""
    for module in (gaussians, regularizers):
        monkeypatch.setattr(module, "render", pretended_render)
    monkeypatch.setattr(distiller, "Clock", lambda device: real_clock(torch.device("cpu")))

    def without_kernel(parameters, gradients, *_, found_inf, **__):
        assert found_inf.device == parameters[0].device == gradients[0].device == META

    monkeypatch.setattr("gsdistill.representation.optimizer.adam", without_kernel)


real_clock = distiller.Clock


def carry(
    prior: Prior, method, settings: PromptSettings, device: torch.device, watch: Any, densify: str = "gradient",
    optim: OptimSettings = PLAIN,
) -> None:  # fmt: skip
    """Three steps on ``device``; the first may prepare what the others use, which are made within ``watch``."""
    # observes in every step, refines in none of these
    growing = load_class("gsdistill.scene.densify", densify)(enabled=True, start=1.0, stop=1.0)
    generator = torch.Generator().manual_seed(0)
    initial = Ball(count=20).create("", generator)
    text = encode_with_endings(prior.encode_text, "a red torus", "", settings, method.endings())
    text = to_device(text, device)
    run = Distiller(
        GaussianScene(initial, SceneSettings(optim=optim, regularizers=EVERYTHING, densify=growing), 9, device),
        prior,
        method,
        text,
        VIEWS,
        9,
        generator,
    )
    stream = iter(run)
    records = [next(stream)]
    with watch:
        records += [next(stream), next(stream)]
    assert records[-1].images.device.type == records[-1].finite.device.type == device.type
    assert run.evaluations > 0 and run.done == 3


def alike(device: torch.device) -> AnalyticPrior:
    """A world of one Gaussian, prompt or not, that lies on ``device``."""
    mixture = Mixture(*(torch.ones(shape, device=device) for shape in ((1,), (1, 3 * 16 * 16), (1,))))
    return AnalyticPrior(mixture, mixture, (3, 16, 16))


@pytest.mark.parametrize("name", METHODS)
def test_no_method_waits(name, on_meta):
    uploads = Uploads()
    carry(alike(META), METHODS[name], PromptSettings(), META, uploads)
    assert uploads.queued and not uploads.blocking


@pytest.mark.parametrize("name", names("gsdistill.scene.densify"))
def test_no_densifier_waits_between_refinements(name, on_meta):
    uploads = Uploads()
    carry(alike(META), METHODS["sds"], PromptSettings(), META, uploads, name)
    assert uploads.queued and not uploads.blocking


@pytest.mark.parametrize("optim", [replace(PLAIN, max_grad_norm=1.0), replace(PLAIN, rule="adan", betas=(0.9,) * 3)])
def test_no_rule_waits(optim, on_meta):
    uploads = Uploads()
    carry(alike(META), METHODS["sds"], PromptSettings(), META, uploads, optim=optim)
    assert uploads.queued and not uploads.blocking


@contextmanager
def watched(device: torch.device):
    """Whatever waits for a GPU raises."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "place",
    [
        "cpu",  # shows that the test itself runs
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
        ),
    ],
)
def test_a_gpu_is_not_waited_for(place, name, monkeypatch):
    for module in (gaussians, regularizers):
        monkeypatch.setattr(module, "render", pretended_render)  # gsplat's waits once
    device = torch.device(place)
    carry(alike(device), METHODS[name], PromptSettings(), device, watched(device))


TINY = {
    "StableDiffusionPipeline": stable_diffusion, "StableDiffusionXLPipeline": sdxl, "MVDreamPipeline": mvdream,
    "IFPipeline": deepfloyd, "StableDiffusion3Pipeline": sd3,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", TINY)
@pytest.mark.parametrize("direction", ["view", "perp-neg"])
def test_no_family_of_networks_waits(pipeline, direction, on_meta, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prior = load(leaf_of(FAMILIES[pipeline]), TINY[pipeline].build(tmp_path / "model"))
    method = METHODS["vsd"] if pipeline == "StableDiffusionPipeline" else METHODS["cds"]
    text = prior.encode_text("a red torus", "", PromptSettings(direction))
    prior._network.to(META)
    if vae := getattr(prior._codec, "_vae", None):
        vae.to(META, torch.float16)  # in which the gradient is scaled
    prior.device = META
    if hasattr(prior, "_times"):
        prior._times = prior._times.to(META)
    prior.encode_text = lambda *_: text
    uploads = Uploads()
    carry(prior, method, PromptSettings(direction), META, uploads)
    assert uploads.queued and not uploads.blocking
