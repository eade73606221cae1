"""Seconds by phase: on a CPU at once, on an accelerator (here a pretended one) when its events have passed."""

from __future__ import annotations

import time
from collections import deque

import pytest
import torch

from gsdistill.training.clock import KEPT, Clock

CPU = torch.device("cpu")
QUEUE = torch.device("meta")  # any device that is no CPU


class Pretended:
    """An event of a device with a clock of its own, which the test moves on; it has passed once the device is there."""

    now = 0.0  # milliseconds, as the program queues work
    reached = 0.0  # up to where the device has come
    waited = 0

    def __init__(self, device: torch.device | None = None, enable_timing: bool = False) -> None:
        assert enable_timing and device == QUEUE

    def record(self) -> None:
        self.at = Pretended.now

    def query(self) -> bool:
        return Pretended.reached >= self.at

    def synchronize(self) -> None:
        Pretended.waited += 1
        Pretended.reached = max(Pretended.reached, self.at)

    def elapsed_time(self, end: Pretended) -> float:
        assert self.query() and end.query()
        return end.at - self.at


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(torch, "Event", Pretended)
    Pretended.now = Pretended.reached = 0.0
    Pretended.waited = 0
    return Pretended


def test_a_cpu_is_timed_at_once():
    clock = Clock(CPU)
    for _ in range(3):
        with clock("sleep"):
            time.sleep(0.01)
    assert len(clock.laps["sleep"]) == 3
    assert all(0.01 <= lap < 0.5 for lap in clock.laps["sleep"])
    assert clock.seconds["sleep"] == pytest.approx(sum(clock.laps["sleep"]))


def test_goes_on_from_the_seconds_that_it_is_given():
    seconds = {"a": 5.0}
    clock = Clock(CPU, seconds)
    with clock("a"):
        pass
    assert clock.seconds is seconds and 5.0 < seconds["a"] < 5.1


def test_laps_are_the_last_ones_and_can_be_forgotten():
    clock = Clock(CPU)
    for _ in range(KEPT + 3):
        with clock("a"):
            pass
    total = clock.seconds["a"]
    assert len(clock.laps["a"]) == KEPT == 1024
    clock.reset()
    assert not clock.laps and clock.seconds["a"] == total


def test_a_block_that_raises_is_not_counted():
    clock = Clock(CPU)
    with pytest.raises(ValueError, match="x"), clock("a"):
        raise ValueError("x")
    with clock("b"):
        pass
    assert [*clock.seconds] == ["b"]


class Slow(torch.autograd.Function):
    """Twice its argument; its backward takes 20 ms."""

    @staticmethod
    def forward(ctx, value):
        return 2 * value

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.02)
        return 2 * gradient


def test_a_backward_is_split_where_the_gradient_of_a_tensor_arrives():
    clock, leaf = Clock(CPU), torch.ones(3, requires_grad=True)
    with clock("forward"):
        middle = Slow.apply(leaf)
        loss = Slow.apply(Slow.apply(middle)).sum()
    with clock("after"):
        clock.split(middle, "before")
        loss.backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [8.0] * 3
    assert [*clock.seconds] == ["forward", "after", "before"]
    assert 0.04 <= clock.seconds["after"] < 0.2
    assert 0.02 <= clock.seconds["before"] < 0.1


def test_a_split_counts_in_a_running_block_only():
    clock = Clock(CPU)
    middle = 2 * torch.ones(1, requires_grad=True)
    clock.split(middle, "before")
    clock.split(torch.ones(1), "never")  # has no gradient to wait for
    middle.sum().backward()
    assert not clock.seconds


def test_a_device_is_read_when_it_has_come_there(device):
    clock = Clock(QUEUE)
    for lap in range(3):
        with clock("render"):
            device.now += 100.0
        with clock("network"):
            device.now += 400.0
            device.reached = lap * 500.0 + 50.0  # it runs behind
    assert clock.laps == {"render": deque([0.1, 0.1]), "network": deque([0.4, 0.4])}
    clock.settle()
    assert len(clock.laps["render"]) == 2 and not device.waited
    clock.settle(wait=True)
    assert device.waited and clock.seconds == pytest.approx({"render": 0.3, "network": 1.2})
    assert clock.laps["render"] == pytest.approx([0.1] * 3)


def test_what_is_queued_when_laps_are_forgotten_stays_out_of_them(device):
    clock = Clock(QUEUE)
    with clock("a"):
        device.now += 7.0
    clock.reset()
    with clock("a"):
        device.now += 1000.0
    clock.settle(wait=True)
    assert clock.laps == {"a": deque([1.0])}


def test_a_split_on_a_device_leaves_no_gap(device):
    clock = Clock(QUEUE)
    leaf = torch.ones(1, requires_grad=True)
    with clock("after"):
        middle = leaf * 2
        clock.split(middle, "before")
        device.now += 30.0
        middle.sum().backward()
        device.now += 12.0
    clock.settle(wait=True)
    assert clock.seconds == pytest.approx({"after": 0.03, "before": 0.012})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_a_gpu_is_timed_without_waiting_for_it():
    clock, square = Clock(torch.device("cuda")), torch.randn(4096, 4096, device="cuda")
    square @ square
    torch.cuda.synchronize()
    began = time.perf_counter()
    with clock("matmul"):
        for _ in range(50):
            square @ square
    queued = time.perf_counter() - began
    torch.cuda.synchronize()
    whole = time.perf_counter() - began
    clock.settle(wait=True)
    assert queued < 0.5 * whole
    assert clock.seconds["matmul"] == pytest.approx(whole, rel=0.3)
