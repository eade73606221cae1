"""Prompts of text files, published lists of prompts by their names, and random shares of them.

Short lists ship in ``assets/prompts``: as text, or as YAML, where each part of a list is a product of phrases. Long
ones are read from the JSON files of ScaleDreamer (arXiv 2407.02040), ``{"train": [..], "val": [..], "test": [..]}``,
in the folder that the variable GSDISTILL_PROMPTS names.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path

from gsdistill.core.errors import BadFile, ConfigError, did_you_mean
from gsdistill.disk.paths import there
from gsdistill.disk.places import data_path
from gsdistill.disk.read import read_json, read_text
from gsdistill.settings.yaml import load_yaml

__all__ = ["VARIABLE", "prompt_lists", "read_prompts", "sampled"]

VARIABLE = "GSDISTILL_PROMPTS"
PARTS = ("train", "val", "test")
SOURCE = "https://github.com/theEricMa/ScaleDreamer, folder load"
LIBRARIES = {  # file and content of each list that does not ship
    "cap3d-100k": ("cap3d_100k_prompt_library.json", "captions of Objaverse by Cap3D"),
    "dreamfusion-415": ("dreamfusion_415_prompt_library.json", "415 prompts of DreamFusion's gallery"),
    "instant3d-17k": (
        "instant3d_17000_prompt_library.json",
        "17,241 prompts of Instant3D, 13,551 of them different",
    ),
}


def prompt_lists() -> dict[str, str]:
    """The names of all lists, each with a line that says what is in it."""
    files = [file for file in data_path("assets", "prompts").glob("*") if file.suffix in (".txt", ".yaml")]
    shipped = {file.stem: read_text(file).partition("\n")[0].lstrip("# ") for file in files}
    others = {name: f"{content}; needs {file} in {VARIABLE}" for name, (file, content) in LIBRARIES.items()}
    return dict(sorted((shipped | others).items()))


def read_prompts(source: Path | str) -> tuple[str, ...]:
    """Read the prompts of a text file, one on each line, or those of a list of :func:`prompt_lists` by its name.

    ``NAME:val`` and ``NAME:test`` are other parts of a list than its training part. In a text file, empty lines and
    lines that begin with # are skipped. A prompt that a list repeats is returned once.

    Raises:
        ConfigError: there is no such list or part, or the list is not on this machine.
        BadFile: the file cannot be read, is not UTF-8, or holds no prompt.
    """
    name, _, part = str(source).partition(":")
    known = prompt_lists()
    if name not in known:
        if {"/", os.sep, "\0"} & {*str(source)} or Path(source).suffix or there(source):
            return _lines(source)
        available = ", ".join([*known, "or the path of a text file"])
        raise ConfigError(f"unknown list of prompts '{name}'.{did_you_mean(name, known)} Available: {available}")
    if (part := part or PARTS[0]) not in PARTS:
        raise ConfigError(f"'{source}' is no part of a list.{did_you_mean(part, PARTS)} Allowed: {', '.join(PARTS)}")
    return _library(name, part) if name in LIBRARIES else _shipped(name, part)


def sampled(prompts: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """``count`` of the prompts, drawn by ``seed``, in their order; those of a smaller count are among them."""
    draw = random.Random(seed)
    ranks = [draw.random() for _ in prompts]
    chosen = sorted(range(len(prompts)), key=ranks.__getitem__)[:count]
    return tuple(prompts[place] for place in sorted(chosen))


def _lines(path: Path | str) -> tuple[str, ...]:
    lines = (line.strip() for line in read_text(path).splitlines())
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise BadFile(
            f"the prompt file {path} holds no prompt: one is expected on each line that does not begin with #"
        )
    return prompts


def _shipped(name: str, part: str) -> tuple[str, ...]:
    """A shipped list. One of text has only one part, which is all three; of a product, test is train."""
    folder = data_path("assets", "prompts")
    if (text := folder / f"{name}.txt").is_file():
        return _lines(text)
    phrases = load_yaml(folder / f"{name}.yaml")["val" if part == "val" else "train"]
    return tuple(" ".join(words) for words in itertools.product(*phrases))


def _library(name: str, part: str) -> tuple[str, ...]:
    folder, (file, _) = os.environ.get(VARIABLE), LIBRARIES[name]
    if not folder or not there(path := Path(folder, file)):
        now = f"which is now '{folder}'" if folder else "which is not set"
        raise ConfigError(
            f"the prompts of '{name}' are not on this machine: get {file} from {SOURCE}, and name the folder in which "
            f"you keep it in the variable {VARIABLE}, {now}"
        )
    prompts = read_json(path).get(part)
    texts = prompts if isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts) else []
    found = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not found:
        raise BadFile(f"{path}: expected a list of prompts under '{part}'")
    return found
