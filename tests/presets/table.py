"""The table of released values, read, and the settings of the presets that it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gsdistill.run.config import RunConfig, read_config, resolve
from gsdistill.settings.yaml import load_yaml

__all__ = ["PRESETS", "TABLE", "config_of", "rows"]

HERE = Path(__file__).parent
TABLE = load_yaml(HERE / "released.yaml")
PRESETS: Mapping[str, Any] = {path.stem: load_yaml(path) for path in sorted((HERE / "released").glob("*.yaml"))}


@cache
def config_of(name: str) -> RunConfig:
    """The settings of a run with a shipped config and the published prior."""
    return resolve({**read_config(name), "prompt": "x", "prior": PRESETS[name]["prior"]})


def rows(name: str, part: str = "released") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each value of a preset stands, and the value; ``none`` is a value with the reason."""
    for file in PRESETS[name].get(part, ()):
        where = f"{file['repository']}/{file['file']}"
        yield from ((where, row) for row in file.get("values", ()))
        for reason, values in file.get("none", {}).items():
            yield from ((where, {"key": key, "value": value, "none": reason}) for key, value in values.items())
