"""How Numba kernels are compiled: once on a machine and kept on disk; they run without Python's lock."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

from gsdistill.core.errors import ConfigError
from gsdistill.disk.cache import cache_path
from gsdistill.disk.paths import expanded
from gsdistill.disk.write import can_write, temporary_folder

__all__ = ["compiled"]

CONFIG: Any = numba.config

# Without "nnan" and "ninf", since comparisons with NaN decide what is culled. "reassoc" makes kernels 4 times faster.
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}


def compiled(fast: bool = True, inline: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function on its first call, and keeps the result on disk.

    It is kept in the first of these folders that can be written: NUMBA_CACHE_DIR, that of the source file, the user's
    cache, a temporary folder. Without any, every process compiles again. Numba notices a changed file, but not a
    changed import: after editing ``_vectors`` or a constant of ``base``, touch the kernels that use it.

    ``inline`` is for functions that are called millions of times and allocate nothing, not even a view. They are always
    inlined, without reference counts of their arrays, which would take longer than small kernels and make threads wait
    for each other.

    ``fast`` allows sums in any order. A function that other kernels call must be ``inline`` or not ``fast``: the object
    code of each caller has its own optimised copy of what it does not inline, and a process runs the copy that it meets
    first, which depends on what it compiles and what it loads from disk. Copies with other orders of a sum would differ
    in the last bits.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast and FAST}
    if inline:
        options |= {"forceinline": True, "_nrt": False}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        setting = _cache_setting(Path(inspect.getfile(function)).parent)
        usual, CONFIG.CACHE_DIR = CONFIG.CACHE_DIR, setting  # Numba reads it while it decorates
        try:
            return numba.njit(cache=setting is not None, **options)(function)
        except RuntimeError:  # the source is no file, as inside an archive
            return numba.njit(**options)(function)
        finally:
            CONFIG.CACHE_DIR = usual

    return decorate


@cache
def _cache_setting(sources: Path) -> str | None:
    """Numba's CACHE_DIR for the files in a folder: empty to write beside them, None if no folder can be written.

    By itself Numba would take ``~/.cache``. For an account without a home folder that is a folder called ``~`` in the
    working directory, and code would be loaded from there.
    """
    with suppress(ConfigError):
        named = expanded(CONFIG.CACHE_DIR, "NUMBA_CACHE_DIR")
        if named and can_write(Path(named)):
            return named
    if can_write(sources / "__pycache__"):
        return ""
    others = (cache_path("numba"), temporary_folder())
    return next((str(folder) for folder in others if folder and can_write(folder)), None)
