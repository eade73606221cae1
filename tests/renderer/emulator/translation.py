"""CUDA sources as C++ for ``cuda/emulator.h``: what a C++ compiler cannot read is written otherwise, the rest stays."""

from __future__ import annotations

import re

__all__ = ["translated"]

LAUNCH = re.compile(r"(?P<kernel>\w+\s*(?:<[^<>]*>)?)\s*<<<(?P<places>.*?)>>>\s*\(", re.DOTALL)
CHANNELS = 4  # colour and depth: the only number of channels that is compiled, of nineteen
CAST = re.compile(r"\((?P<type>u?int32_t)\)(?P<value>(?:floor|ceil)\(|radius_\w+)")  # of a float that may be too large
REPLACED = (
    (r"extern\s+__shared__\s+(\w+)\s+(\w+)\[\];", r"\1 *\2 = reinterpret_cast<\1 *>(emulator::shared_memory.data());"),
    (r"\b\w+\.is_cuda\(\)", "true"),
    (r"\bat::empty\(", "emulator::empty("),
    (rf"(?m)^\s*__(?:INS|LAUNCH_KERNEL)__\((?!{CHANNELS}\))\d+\)", ""),
)


def translated(source: str) -> str:
    """The text of a CUDA or C++ file of gsplat's, for the emulator."""
    for pattern, text in REPLACED:
        source = re.sub(pattern, text, source)
    while found := CAST.search(source):
        end = _closing(source, found.end() - 1) + 1 if found["value"].endswith("(") else found.end()
        value = source[found.start("value") : end]
        source = f"{source[: found.start()]}emulator::converted<{found['type']}>({value}){source[end:]}"
    while found := LAUNCH.search(source):
        end = _closing(source, found.end() - 1)
        arguments = source[found.end() : end]
        launch = f"emulator::launch({found['places']}, [&] {{ {found['kernel']}({arguments}); }})"
        source = source[: found.start()] + launch + source[end + 1 :]
    return source


def _closing(text: str, opening: int) -> int:
    """Where the bracket at ``opening`` is closed."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"a bracket is not closed: {text[opening : opening + 60]}")
