"""How a frozen network is run: its layout in memory, whether it is compiled, and calls recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from gsdistill.core.structs import Embedding
from gsdistill.models.settings import Layout

__all__ = ["Call", "Graphs", "Record", "answering", "memory_format"]

Given: TypeAlias = tuple[Tensor, Tensor, Embedding, Tensor | None]  # latents, timesteps, text, cameras
Call: TypeAlias = Callable[[Tensor, Tensor, Embedding, Tensor | None], Tensor]
# Records the device's work in a call; returns a function that does it again, and the tensor that gets its result.
Record: TypeAlias = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


def memory_format(layout: Layout, device: torch.device) -> torch.memory_format:
    """The memory format of weights and images; ``auto`` is channels last on accelerators, unchanged on a CPU."""
    if layout == "auto":
        return torch.preserve_format if device.type == "cpu" else torch.channels_last
    return getattr(torch, "contiguous_format" if layout == "contiguous" else layout)


def answering(network: Any, compiled: bool) -> Callable[..., Tensor]:
    """A function that calls a network of diffusers with named arguments and returns its tensor.

    If ``compiled``, it is compiled anew for each number of samples: code for any number would be slower, and its graphs
    could not be replayed.
    """
    if not compiled:
        return lambda **inputs: network(**inputs).sample
    called = torch.compile(network, mode="reduce-overhead", dynamic=False)
    return lambda **inputs: called(**inputs).sample.clone()  # the next call reuses the buffers


class Graphs:
    """A network's call, recorded once for each form of its arguments and then replayed without Python and launches.

    A form is the arguments' shapes and types; a run has one for each number of samples that its method sends at once. A
    recording reads the arguments from its own buffers, and the weights where they lie: their values may change, but
    they must not move. No gradient flows through it.
    """

    def __init__(self, call: Call, record: Record) -> None:
        """``call`` must do the same work each time; ``record`` is :func:`gsdistill.core.device.recorder`'s."""
        self._call, self._record = call, record
        self._recorded: dict[object, tuple[Given, Callable[[], None], Tensor]] = {}

    @torch.no_grad()
    def __call__(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B K h w"]:
        """The network's answer, in new memory."""
        given: Given = (latents, timesteps, text, cameras)
        if is_in_torch_dispatch_mode():  # something counts operations, which a replay would hide
            return self._call(*given)
        form = tuple((name, value.shape, value.dtype) for name, value in _tensors(given).items())
        if form not in self._recorded:
            own = (_copy(latents), _copy(timesteps), Embedding(*map(_copy, vars(text).values())), _copy(cameras))
            self._recorded[form] = own, *self._record(lambda: self._call(*own))
        held, replay, answer = self._recorded[form]
        for buffer, value in zip(_tensors(held).values(), _tensors(given).values(), strict=True):
            buffer.copy_(value)
        replay()
        return answer.clone()


def _tensors(given: Given) -> dict[str, Tensor]:
    latents, timesteps, text, cameras = given
    named = {"latents": latents, "timesteps": timesteps, **vars(text), "cameras": cameras}
    return {name: value for name, value in named.items() if value is not None}


def _copy(value: Any) -> Any:
    return None if value is None else value.clone(memory_format=torch.contiguous_format)
