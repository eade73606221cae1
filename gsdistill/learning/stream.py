"""Training data as a function: a piece of a batch follows from its key alone, whoever draws it and when.

The batch of a step is made of pieces ("shards") that the processes share out among themselves. So neither the number of
processes, nor that of the workers that draw ahead, nor a stop in between changes what is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

__all__ = ["Key", "Stream"]

B = TypeVar("B")


class Key(NamedTuple):
    """One piece of the batch of one step; ``numpy.random.default_rng(key)`` takes it as it is."""

    seed: int
    step: int  # 0 for the first
    shard: int  # 0 for the first

    @property
    def number(self) -> int:
        """A seed of 64 bits, for generators that take one number."""
        return int(np.random.SeedSequence(self).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Stream(Generic[B]):
    """What ``draw`` makes of keys: a tensor on the CPU, or a mapping or dataclass of tensors and of other things.

    ``draw`` must use no random numbers but those that it seeds with its key. ``workers`` processes call it ahead; with
    0 it is called when its batch is asked for. Where the system does not fork, workers need a ``draw`` that can be
    pickled.
    """

    draw: Callable[[Key], B]
    workers: int = 0

    def __getitem__(self, key: Key) -> tuple[Key, B]:
        """Return a batch with its key."""
        return key, self.draw(key)

    def batches(self, keys: Iterable[Key]) -> Iterator[tuple[Key, B]]:
        """The batches of keys, which may be endless, in their order."""
        pieces: Any = self  # which has no length, as its keys have none
        own = torch.Generator()  # else it would draw from torch's default one
        return iter(DataLoader(pieces, None, None, keys, None, self.workers, _same, generator=own))


def _same(batch: B) -> B:
    return batch
