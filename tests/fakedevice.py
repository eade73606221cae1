"""A device that is not there: tensors that say they lie on it, and whose numbers lie in main memory.

``install`` gives torch a device called ``fake`` for the rest of the process, which should be one of its own. Like an
accelerator it takes no tensor of the CPU beside its own, unless that is one number. It may be like Apple's GPU: without
float64, and with a fused Adam that does not read ``found_inf``. ``torch.fake`` holds little more than random numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from gsdistill.core import device

__all__ = ["install"]

FAKE = torch.device("privateuseone", 0)  # which is renamed to fake
FROM_ONE_TO_THE_OTHER = ("aten::_to_copy", "aten::copy_")
KEPT: list[Any] = []  # what undoes itself when it is collected


class Fake(torch.Tensor):
    """A tensor of the device, around one of the CPU."""

    own: torch.Tensor

    @staticmethod
    def __new__(cls, own: torch.Tensor) -> Fake:
        if own.dtype == torch.float64 and FAKE.type in device.APPLE:
            raise TypeError("the fake device has no float64")
        layout = {"strides": own.stride(), "storage_offset": own.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, own.shape, dtype=own.dtype, device=FAKE, **layout)
        made.own = own
        return made

    def __repr__(self, **kwargs: Any) -> str:
        return f"Fake({self.own})"

    def tolist(self) -> Any:
        return self.own.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, *args, **(kwargs or {}))


def compute(func: Any, *args: Any, **kwargs: Any) -> Any:
    """What an operator answers, computed on the CPU."""
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    strangers = [value.shape for value in given if not isinstance(value, Fake) and value.dim()]
    if strangers and func.name().partition(".")[0] not in FROM_ONE_TO_THE_OTHER:
        raise RuntimeError(f"{func.name()}: a tensor of shape {strangers[0]} lies on the CPU, the others do not")
    to_processor = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"
    kwargs |= {name: value for name, value in (("device", "cpu"), ("pin_memory", False)) if name in kwargs}
    if func is torch.ops.aten._fused_adam_.default and FAKE.type in device.APPLE:
        kwargs["found_inf"] = None
    args, kwargs = tree_map(lambda value: value.own if isinstance(value, Fake) else value, (args, kwargs))
    answer = func(*args, **kwargs)
    if to_processor:
        return answer
    known = {id(value.own): value for value in given if isinstance(value, Fake)}  # what an operator in place answers

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else Fake(value)

    return tree_map(wrapped, answer)


class Module(_DummyBackendModule):
    """``torch.fake``; its random numbers are those of the CPU."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.random.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.random.set_rng_state(state)

    def manual_seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)


@cache
def install(apple: bool = False) -> torch.device:
    """Let torch know the device; once in a process."""
    _setup_privateuseone_for_python_backend("fake", Module())
    KEPT.append(torch.library.Library("_", "IMPL"))
    KEPT[-1].fallback(compute, "PrivateUse1")
    original = torch.tensor  # makes no tensor of another class
    torch.tensor = lambda data, *, device=None, **more: original(data, **more).to(device or "cpu")
    torch.Tensor.pin_memory = lambda self, device=None: self
    if apple:
        device.APPLE = (FAKE.type,)
    return FAKE
