"""Mixed precision by what a device can do: where it applies, where it falls back, and why the loss is scaled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from learning.common import everything, settings
from torch import Tensor, nn

from gsdistill.core import device as devices
from gsdistill.learning.precision import Precision
from gsdistill.learning.trainer import Trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "hardware", "dtype"),
    [
        ("cpu", False, torch.float32),
        ("cpu", True, torch.bfloat16),
        ("cuda", False, torch.float16),
        ("cuda", True, torch.bfloat16),
        ("mps", True, torch.float32),
    ],
)
def test_the_fastest_float_is_what_a_device_multiplies_in_hardware(kind, hardware, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: hardware)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: hardware and not including_emulation
    )
    assert devices.fastest_float(torch.device(kind)) == dtype


class Line(nn.Module):
    """y = w x, which remembers the type that it was computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.layer.weight)
        self.dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        self.dtype = y.dtype
        return y


def trained(slope: float, **changes) -> Trainer:
    """One step of w by a loss slope * w."""
    line = Line()
    run = Trainer(
        line,
        lambda network, batch, progress: slope * network(batch).float().mean(),
        lambda key: torch.ones(1, 1),
        settings(warmup=1, decay_from=0.99, clip=1e9, steps=1000, stop_after=1, **changes),
        [torch.optim.SGD(line.parameters(), 1.0)],
    )
    list(run)
    return run


@pytest.mark.parametrize("hardware", [False, True])
def test_auto_is_bfloat16_where_the_processor_has_it_and_else_plain_float32(hardware, monkeypatch):
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda device: hardware)
    auto, named = trained(0.25, precision="auto"), trained(0.25, precision="bfloat16" if hardware else "float32")
    assert auto.model.dtype == named.model.dtype == (torch.bfloat16 if hardware else torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(everything(auto), everything(named), strict=True))
    assert not auto.precision.scaler.is_enabled()


def test_weights_stay_float32():
    run = trained(0.25, precision="bfloat16")
    assert {value.dtype for value in everything(run)} == {torch.float32}
    assert run.model.layer.weight.item() == 0.75


def test_a_scaled_loss_keeps_a_gradient_that_float16_cannot_hold():
    """2^-26 is below half of float16's least number, 2^-24, so without a scale it would be 0."""
    run = trained(2.0**-20, precision="float16")
    assert run.model.dtype == torch.float16 and run.precision.scaler.get_scale() == 2.0**16
    assert torch.tensor(2.0**-26).half() == 0.0
    run = trained(2.0**-26, precision="float16")
    gradient = run.model.layer.weight.grad
    assert gradient is not None and gradient.item() == 2.0**-26


def test_a_scale_that_is_too_large_is_halved_and_the_step_skipped():
    run = trained(1.0, precision="float16")
    assert run.skipped == 1 and run.model.layer.weight.item() == 1.0 and run.precision.scaler.get_scale() == 2.0**15
    run.settings = replace(run.settings, stop_after=2)
    list(run)
    assert run.skipped == 1 and run.model.layer.weight.item() == pytest.approx(0.0, abs=1e-6)


def test_what_is_computed_outside_of_the_network_keeps_its_type():
    seen = []

    def loss(network, batch, progress):
        product = batch @ batch
        seen.append((network(batch).dtype, product.dtype))
        return product.sum() * network(batch).float().sum()

    line = Line()
    list(Trainer(line, loss, lambda key: torch.ones(1, 1), settings(precision="bfloat16", stop_after=1)))
    assert seen == [(torch.bfloat16, torch.float32)]


def test_a_network_in_float32_is_the_model_itself():
    line = Line()
    assert Precision("float32", CPU).of(line) is line
