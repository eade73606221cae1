"""Compile ahead of the tests."""

import time

from renderer.emulator import kernels, missing

if reason := missing():
    raise SystemExit(f"gsplat's kernels cannot be compiled here: {reason}")
began = time.perf_counter()
kernels()
print(f"gsplat's kernels are there: {time.perf_counter() - began:.1f} s")
