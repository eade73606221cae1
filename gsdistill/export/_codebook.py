"""Vector quantisation for packed formats: a few numbers, or a few vectors, that replace many."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8

__all__ = ["codebook", "palette"]

ENTRIES = 256  # of a codebook, so that an index is a byte
ROUNDS = 16  # of Lloyd's algorithm
HALVINGS = 16  # of a palette, so that an index is two bytes


def codebook(values: Float[np.ndarray, "*S"]) -> tuple[Float[np.ndarray, "256"], UInt8[np.ndarray, "*S"]]:
    """256 ascending numbers that approximate all ``values`` with a small squared error, and the index of each value's.

    This is Lloyd's algorithm, started from quantiles and equal steps. A number to which no value is nearest moves to
    where the error is largest. A round costs 256 searches, by cumulative sums of the sorted values.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (ordered, np.square(ordered)))
    quantiles = np.quantile(ordered, np.linspace(0, 1, ENTRIES // 2))
    book = np.sort(np.append(quantiles, np.linspace(ordered[0], ordered[-1], ENTRIES // 2)))
    for _ in range(ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(ordered, _midway(book)), [len(ordered)]])
        counts = np.diff(ends)
        book = np.where(counts > 0, np.diff(sums[ends]) / np.maximum(counts, 1), book)
        unused = np.flatnonzero(counts == 0)
        worst = np.argsort(counts * book**2 - np.diff(squares[ends]))[: len(unused)]
        book[unused] = np.take(ordered, ends[worst], mode="clip")
        book.sort()
    return book, np.searchsorted(_midway(book), values).astype(np.uint8)


def _midway(book: Float[np.ndarray, "E"]) -> Float[np.ndarray, "E-1"]:
    """The midpoints between neighbouring numbers, where the nearest number changes."""
    return (book[1:] + book[:-1]) / 2


def palette(vectors: Float[np.ndarray, "N D"]) -> tuple[Float[np.ndarray, "P D"], Int[np.ndarray, "N"]]:
    """At most 65,536 vectors that approximate all ``vectors``, and for each of these the index of its approximation.

    The set is halved at the median of the coordinate with the largest variance, and so are its halves, sixteen times.
    """
    count = len(vectors)
    if count <= 1 << HALVINGS:
        return vectors, np.arange(count)
    order, starts = np.arange(count), np.array([0])
    for _ in range(HALVINGS):
        x, sizes = vectors[order], np.diff(starts, append=count)
        mean, square = (np.add.reduceat(v, starts) / sizes[:, None] for v in (x, x * x))
        group = np.repeat(np.arange(len(starts)), sizes)
        key = x[np.arange(count), (square - mean * mean).argmax(1)[group]]
        order = order[np.lexsort((key, group))]
        starts = np.stack([starts, starts + sizes // 2], axis=1).ravel()
    sizes, labels = np.diff(starts, append=count), np.empty(count, int)
    labels[order] = np.repeat(np.arange(len(starts)), sizes)
    return np.add.reduceat(vectors[order], starts) / sizes[:, None], labels
