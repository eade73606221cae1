"""How Numba kernels are compiled: once per machine, kept on disk, free of Python's lock."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

from gsdistill.core.errors import ConfigError
from gsdistill.disk.cache import place
from gsdistill.disk.paths import expanded
from gsdistill.disk.write import can_write, temporary_folder

__all__ = ["compiled"]

CONFIG: Any = numba.config

# No "nnan" and "ninf": comparisons with NaN decide what is culled. "reassoc" makes the kernels four times faster.
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}


def compiled(fast: bool = True, inline: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that compiles on the first call and keeps the result on disk where any folder can be written.

    That is NUMBA_CACHE_DIR, the folder of the source file, the user's cache folder, or one among the temporary folders;
    without any of them every process compiles anew. Numba notices a changed file, not a changed import: after editing
    ``_vectors`` or a constant of ``base``, touch the kernels that use it. ``inline``: for what is called millions of
    times and allocates nothing, not even a view: always inlined, its arrays not counted as references, which would cost
    more than small kernels do and would make threads wait for each other.

    ``fast``: sums in any order. What other kernels call is then inlined, or not ``fast``: each caller's object code
    holds a copy of what it does not inline, optimised anew, and a process runs whichever copy came first, the callee's
    own where it compiles, another where it loads from disk. Two orders of a sum would differ in the last bits.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast and FAST}
    if inline:
        options |= {"forceinline": True, "_nrt": False}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        setting = _cache_setting(Path(inspect.getfile(function)).parent)
        usual, CONFIG.CACHE_DIR = CONFIG.CACHE_DIR, setting  # read while it decorates
        try:
            return numba.njit(cache=setting is not None, **options)(function)
        except RuntimeError:  # it finds no such file, as inside an archive
            return numba.njit(**options)(function)
        finally:
            CONFIG.CACHE_DIR = usual

    return decorate


@cache
def _cache_setting(sources: Path) -> str | None:
    """Numba's CACHE_DIR for the files in a folder: empty where it can write beside them, None without any place.

    Left to itself it would come to ``~/.cache``, which for an account without a home is a folder called ``~`` in the
    working directory, and would load code from there.
    """
    with suppress(ConfigError):
        named = expanded(CONFIG.CACHE_DIR, "NUMBA_CACHE_DIR")
        if named and can_write(Path(named)):
            return named
    if can_write(sources / "__pycache__"):
        return ""
    others = (place("numba"), temporary_folder())
    return next((str(folder) for folder in others if folder and can_write(folder)), None)
