"""Training data as a function: each piece of a batch depends on its key alone, not on who draws it or when.

The batch of a step consists of pieces ("shards"), which the processes divide among themselves. So the number of
processes, the number of workers that draw ahead, and interruptions do not change the training data.
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
    """The key of one piece of the batch of one step; ``numpy.random.default_rng(key)`` accepts it."""

    seed: int
    step: int  # from 0
    shard: int  # from 0

    @property
    def number(self) -> int:
        """A seed of 64 bits made of all three numbers, for generators that take one number."""
        return int(np.random.SeedSequence(self).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Stream(Generic[B]):
    """Batches that ``draw`` makes of keys: a tensor on the CPU, or a mapping or dataclass with tensors.

    All random numbers in ``draw`` must be seeded with its key. ``workers`` processes call it in advance; with 0 it is
    called when its batch is needed. On systems without fork, ``workers`` above 0 need a ``draw`` that can be pickled.
    """

    draw: Callable[[Key], B]
    workers: int = 0

    def __getitem__(self, key: Key) -> tuple[Key, B]:
        """The key and its piece of a batch."""
        return key, self.draw(key)

    def batches(self, keys: Iterable[Key]) -> Iterator[tuple[Key, B]]:
        """Yield each key and its piece, in the order of ``keys``, which may be endless."""
        pieces: Any = self  # to the type checker a data set has a length
        own = torch.Generator()  # without it, the loader would draw from torch's default generator
        return iter(DataLoader(pieces, None, None, keys, None, self.workers, _identity, generator=own))


def _identity(batch: B) -> B:
    return batch
