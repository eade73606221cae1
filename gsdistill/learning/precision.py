"""Mixed precision: which type a network multiplies in, by what its device can do.

bfloat16 where the device multiplies it in hardware; else float16 on an accelerator, its loss scaled up so that small
gradients do not vanish (P. Micikevicius et al., Mixed Precision Training, arXiv 1710.03740); else float32. Weights, and
what is computed outside of the network, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gsdistill.core.device import fastest_float

__all__ = ["Name", "Precision"]

Name: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]


class Precision:
    """``dtype`` is the type of the products, ``scaler`` scales the loss where that is float16, else does nothing."""

    def __init__(self, name: Name, device: torch.device) -> None:
        self.device = device
        self.dtype: torch.dtype = fastest_float(device) if name == "auto" else getattr(torch, name)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def of(self, model: nn.Module) -> Callable[..., Any]:
        """The model's call in this precision; what it returns may be of the type of the products."""
        if self.dtype == torch.float32:
            return model

        def network(*arguments: Any, **named: Any) -> Any:
            # the backward of fused attention costs a CPU eight times that of plain products
            plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
            with torch.autocast(self.device.type, self.dtype), plain:
                return model(*arguments, **named)

        return network
