"""How Numba kernels are compiled: once per machine, kept on disk, free of Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["compiled"]

# No "nnan" and "ninf": comparisons with NaN decide what is culled. "reassoc" makes the kernels four times faster.
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}


def compiled(fast: bool = True, inline: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that compiles on the first call and keeps the result on disk where any folder can be written.

    Numba tries NUMBA_CACHE_DIR, the folder of the source file and the user's cache folder; with none of them, every
    process compiles anew. It notices a changed file, not a changed import: after editing ``_vectors`` or a constant
    of ``base``, touch the kernels that use it. ``inline``: for what is called millions of times and allocates nothing,
    not even a view: always inlined, its arrays not counted as references, which would cost more than small kernels do
    and would make threads wait for each other.

    ``fast``: sums in any order. What other kernels call is then inlined, or not ``fast``: each caller's object code
    holds a copy of what it does not inline, optimised anew, and a process runs whichever copy came first, the callee's
    own where it compiles, another where it loads from disk. Two orders of a sum would differ in the last bits.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast and FAST}
    if inline:
        options |= {"forceinline": True, "_nrt": False}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to keep it in
            return numba.njit(**options)(function)

    return decorate
