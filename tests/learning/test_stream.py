"""A stream is a function of its keys: any number of workers, and a stop in between, give what direct calls give."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest
import torch
from learning.common import draw

from gsdistill.learning.stream import Key, Stream


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_direct_calls_in_order(workers):
    keys = (Key(7, step, shard) for step in count(4) for shard in (1, 3))
    got = list(islice(Stream(draw, workers).batches(keys), 9))
    assert [key for key, _ in got] == [Key(7, step, shard) for step in range(4, 9) for shard in (1, 3)][:9]
    for key, batch in got:
        assert all(torch.equal(batch[name], value) for name, value in draw(key).items())


def test_drawing_leaves_other_random_numbers_alone():
    before = torch.random.get_rng_state()
    list(islice(Stream(draw, 1).batches(Key(0, step, 0) for step in count()), 2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_key_has_numbers_of_its_own():
    keys = [Key(seed, step, shard) for seed in range(4) for step in range(30) for shard in range(8)]
    assert len({key.number for key in keys}) == len(keys)
    assert len({np.random.default_rng(key).integers(2**62) for key in keys}) == len(keys)
