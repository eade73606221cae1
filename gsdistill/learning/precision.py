"""Mixed precision: the floating type in which a network multiplies, chosen by what its device supports.

``auto`` is bfloat16 if the device multiplies it in hardware, else float16 on an accelerator, else float32. With float16
the loss is scaled up, so that small gradients do not vanish (P. Micikevicius et al., Mixed Precision Training, arXiv
1710.03740). Weights, and all that is computed outside of the network, keep their type.
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
    """``dtype`` is the type of products; ``scaler`` scales the loss if that is float16, and otherwise does nothing."""

    def __init__(self, name: Name, device: torch.device) -> None:
        self.device = device
        self.dtype: torch.dtype = fastest_float(device) if name == "auto" else getattr(torch, name)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def of(self, model: nn.Module) -> Callable[..., Any]:
        """A function that calls the model in this precision; its outputs may have the type of the products."""
        if self.dtype == torch.float32:
            return model

        def network(*arguments: Any, **named: Any) -> Any:
            # On a CPU, the backward of fused attention takes eight times as long as that of plain products.
            plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
            with torch.autocast(self.device.type, self.dtype), plain:
                return model(*arguments, **named)

        return network
