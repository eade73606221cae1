"""Rows that several threads share give what one thread gives, and torch's own threads are as before."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gsdistill.prior.families.small.rows import MOST, by_rows


@pytest.fixture(params=[1, 2, 3, 9])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def network(seen: list[tuple[int, int, str]], grads: list[bool]):
    """A function of rows that notes how many it got, with how many threads of torch, and where."""

    def function(values: Tensor, factors: Tensor) -> Tensor:
        seen.append((len(values), torch.get_num_threads(), threading.current_thread().name))
        grads.append(torch.is_grad_enabled())
        return values * factors[:, None]

    return function


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_shares_cover_the_rows_in_their_order(rows, threads):
    values, factors = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)), torch.arange(float(rows))
    seen, grads = [], []
    with torch.no_grad():
        answer = by_rows(network(seen, grads), values, factors)
    assert torch.equal(answer, values * factors[:, None])
    shares = min(threads, rows, MOST)
    assert sorted(count for count, _, _ in seen) == sorted(len(part) for part in values.tensor_split(shares))
    assert {own for _, own, _ in seen} == {threads if shares == 1 else threads // shares}
    assert all(name.startswith("rows") for _, _, name in seen) or shares == 1
    assert not any(grads) and torch.get_num_threads() == threads


def test_with_gradients_the_batch_stays_whole():
    torch.set_num_threads(2)
    seen, values = [], torch.ones(4, 3, requires_grad=True)
    by_rows(network(seen, []), values, torch.full((4,), 2.0)).sum().backward()
    assert [count for count, _, _ in seen] == [4]
    assert values.grad is not None and torch.equal(values.grad, torch.full((4, 3), 2.0))


def test_inference_mode_reaches_the_threads():
    torch.set_num_threads(2)
    with torch.inference_mode():
        assert by_rows(lambda values: values + 1, torch.zeros(4, 2)).is_inference()


def test_what_a_share_raises_is_raised_and_the_threads_are_as_before():
    torch.set_num_threads(2)

    def fails(values: Tensor) -> Tensor:
        raise ValueError("as it should")

    with torch.no_grad(), pytest.raises(ValueError, match="as it should"):
        by_rows(fails, torch.zeros(4, 2))
    assert torch.get_num_threads() == 2
