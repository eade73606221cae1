"""The comparison of tools/README.md: six methods, 12 prompts that no setting was tuned on, three seeds, shapes world.

    python tools/compare_methods.py --output outputs/comparison

It is `gsdistill sweep` with these methods, prompts and seeds; the flags of `gsdistill sweep` go over them. Two of it at
once, each with OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1, share the work of two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gsdistill.cli.main import execute

METHODS = ("sds", "ssd", "cds", "fsd", "asd", "csd")
PROMPTS = (
    "a green sphere", "an orange cube", "a purple torus", "a cyan cone", "a black cylinder", "a red pyramid",
    "a yellow star", "a blue cross", "a pink table", "a green chair", "an orange mug", "a blue octahedron",
)  # fmt: skip
SEEDS = ("0", "1", "2")
# The settings of the recipes were chosen on these.
TUNING = (
    "a red torus", "a blue chair", "a white cube", "a brown table", "a green star", "a yellow mug", "a pink ring",
    "an orange cross",
)  # fmt: skip
PRESET = {"--methods": METHODS, "--prompts": PROMPTS, "--seeds": SEEDS}


def words(given: Sequence[str]) -> list[str]:
    """The preset's flags but for those that are given, and the given ones."""
    typed = {word.partition("=")[0] for word in given}
    return [*(word for flag, values in PRESET.items() if flag not in typed for word in (flag, *values)), *given]


if __name__ == "__main__":
    sys.exit(execute(["sweep", *words(sys.argv[1:])]))
