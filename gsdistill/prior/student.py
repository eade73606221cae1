"""A student of a network: LoRA (arXiv 2106.09685) on its attention projections, and an embedding of the camera.

A projection computes W x. While the student predicts, a hook adds B A x with the caller's weights; afterwards the
module is the prior's again, so that both share one copy of the frozen weights. The embedding of the camera, 16 numbers
through Linear(16, d), SiLU and Linear(d, d), is added to the time embedding, whose width is d, by another hook.
:func:`student_of` also makes students of another model's network than the prior's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import linear, silu

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Embedding
from gsdistill.prior.base import Prior, Student

__all__ = ["LoraStudent", "student_of"]

Inputs = Callable[[Tensor, Tensor, Embedding, Tensor | None], dict[str, Any]]
Output = Callable[[Tensor], Tensor]

TARGETS = (".to_q", ".to_k", ".to_v", ".to_out.0")  # how the names of attention projections end
TIMES = ("time_embedding", "time_text_embed.timestep_embedder", "time_embed.emb.timestep_embedder")  # modules' names
_PROJECTIONS: WeakKeyDictionary[Module, dict[str, Linear]] = WeakKeyDictionary()  # found once, not in each step
_BESIDE: WeakKeyDictionary[Prior, dict[str, Prior]] = WeakKeyDictionary()  # other models' networks, by name


class LoraStudent(Student):
    """W + B A of rank r on every attention projection, at scale 1; ``NAME.A`` is [r, in], ``NAME.B`` is [out, r]."""

    def __init__(
        self, prior: Prior, module: Module, inputs: Inputs, output: Output, rank: int, camera: bool = False
    ) -> None:
        """``inputs`` makes the module's arguments, ``output`` takes the prediction from the tensor that it returns.

        Raises:
            ConfigError: with ``camera``, if the network has no time embedding that is known here.
        """
        self.prior, self._module, self._inputs, self._output = prior, module, inputs, output
        self.camera, self._rank = camera, rank
        if module not in _PROJECTIONS:
            layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Linear)}
            _PROJECTIONS[module] = {name: layer for name, layer in layers.items() if name.endswith(TARGETS)}
        self._layers, self.shapes = _PROJECTIONS[module], {}
        for name, layer in self._layers.items():
            self.shapes |= {f"{name}.A": (rank, layer.in_features), f"{name}.B": (layer.out_features, rank)}
        if camera:
            self._time, width = _time_embedding(module, prior.name)
            self.shapes |= {"camera.0.weight": (width, 16), "camera.0.bias": (1, width)}
            self.shapes |= {"camera.2.weight": (width, width), "camera.2.bias": (1, width)}

    def initial(self, generator: torch.Generator) -> Float[Tensor, " P"]:
        """A normal with deviation 1 / rank and B zero, as in diffusers; the camera's layers as torch's ``Linear``.

        So the embedding of the camera is not zero at first, and an untrained student with it is near the prior.
        """
        size = sum(rows * columns for rows, columns in self.shapes.values())
        weights = torch.zeros(size, device=generator.device)
        for name, part in self.named(weights).items():
            if name.endswith(".A"):
                part.normal_(0, 1 / self._rank, generator=generator)
            elif name.startswith("camera."):
                bound = self.shapes[f"{name.rpartition('.')[0]}.weight"][1] ** -0.5
                part.uniform_(-bound, bound, generator=generator)
        return weights

    def network(
        self,
        weights: Mapping[str, Tensor],
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The network's raw prediction with B A x added to its projections, in the precision of ``weights``."""
        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                added = partial(_add, weights[f"{name}.A"], weights[f"{name}.B"])
                hooks.enter_context(layer.register_forward_hook(added))
            if self.camera and cameras is not None:
                hooks.enter_context(self._time.register_forward_hook(partial(_add_camera, weights, cameras)))
                cameras = None
            return self._output(self._module(**self._inputs(latents, timesteps, text, cameras)).sample)


def student_of(prior: Prior, rank: int, camera: bool, model: str | None = None) -> Student:
    """A student of the prior's network, or of that of another ``model``, which reads the prior's texts.

    With ``camera`` it is told the camera, by an embedding of its own where the network knows none.

    Raises:
        ConfigError: there is no such student, or the model does not fit the prior. As ``load_prior``.
    """
    base = prior if model is None else _beside(prior, model)
    student = base.student(rank, camera=True) if camera and not base.knows_cameras else base.student(rank)
    student.asker = prior
    return student


def _beside(prior: Prior, model: str) -> Prior:
    """The model as a prior of its own on the same device, loaded once for each prior."""
    from gsdistill.prior.families.base import Pretrained
    from gsdistill.prior.loading import load_prior

    loaded = _BESIDE.setdefault(prior, {})
    if model not in loaded:
        if not isinstance(prior, Pretrained):
            raise ConfigError(f"method.student = {model}: the prior {prior.name} is not one in the layout of diffusers")
        settings = replace(prior.origin.settings, compile=False, graph=False)  # its precision and layout
        base = load_prior(model, prior.device, replace(settings, lora=(), vae=None, revision=None, config=None))
        if why := _misfit(prior, base):
            raise ConfigError(f"method.student = {model} does not fit the prior {prior.name}: {why}")
        loaded[model] = base
    loaded[model].schedule = prior.schedule  # the same levels, on the device of the run
    return loaded[model]


def _misfit(prior: Any, base: Any) -> str | None:
    """Why the network of ``base`` cannot read the latents, times and texts of ``prior``."""
    if type(prior) is not type(base):
        return f"it is of the family {type(base).__name__}, not {type(prior).__name__}"
    if base.knows_cameras:
        return "it knows cameras"
    if base.latent_shape[0] != prior.latent_shape[0]:
        return f"its latents have {base.latent_shape[0]} channels, not {prior.latent_shape[0]}"
    ours, theirs = (each.text_width for each in (prior, base))
    if ours != theirs:
        return f"its network reads texts of {theirs} numbers a token, not {ours}"
    if len(base.schedule) != len(prior.schedule):
        return f"it has {len(base.schedule)} timesteps, not {len(prior.schedule)}"
    if not torch.allclose(base.schedule.alphas.cpu().double(), prior.schedule.alphas.cpu().double(), rtol=1e-3):
        return "it has other noise levels"
    return None


def _time_embedding(module: Module, name: str) -> tuple[Module, int]:
    """The module that makes the time embedding, and its width."""
    modules = dict(module.named_modules())
    found = next((modules[place] for place in TIMES if place in modules), None)
    if found is None:
        raise ConfigError(f"the network of {name} has no time embedding that is known: take --method.camera false")
    return found, [layer.out_features for layer in found.modules() if isinstance(layer, Linear)][-1]


def _add(a: Tensor, b: Tensor, layer: Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    (x,) = inputs
    return (output + linear(linear(x.to(a.dtype), a), b)).to(output.dtype)


def _add_camera(
    weights: Mapping[str, Tensor], cameras: Tensor, layer: Module, inputs: tuple[Any, ...], output: Tensor
) -> Tensor:
    first = weights["camera.0.weight"]
    hidden = silu(linear(cameras.to(first.dtype), first, weights["camera.0.bias"][0]))
    return (output + linear(hidden, weights["camera.2.weight"], weights["camera.2.bias"][0])).to(output.dtype)
