"""Write the list of the models that the world of everyday objects shows: gsdistill/worlds/objects/models.json.

    GSDISTILL_OBJECTS=FOLDER python tools/objects/models.py

Of each noun of words.yaml up to three models, evenly spread over all that there are; what is left over is held out, for
tests of the prior on shapes that it has not seen.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gsdistill.disk.write import write_text
from gsdistill.worlds.objects.captions import COLORS
from gsdistill.worlds.objects.catalogue import MODELS, Model, words
from gsdistill.worlds.objects.meshes import VARIABLE, folder, mesh_of

MOST = 3  # models of a noun


def learnt(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of up to three models of each noun, those with colours first."""
    chosen = []
    for noun in sorted(noun for nouns in words().categories.values() for noun in nouns):
        own = sorted((r for r in records if r["noun"] == noun), key=lambda r: (r["uncoloured"], r["id"]))
        chosen += own[:: max(1, len(own) // MOST)][:MOST]
    return chosen


def color_of(record: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """The colour of a model; of one without any that of most others of its noun, or else the usual one."""
    if not record["uncoloured"]:
        return next((word for word in record["adjectives"] if word in COLORS), "")
    others = [color_of(one, []) for one in records if one["noun"] == record["noun"] and not one["uncoloured"]]
    return Counter(filter(None, others)).most_common(1)[0][0] if any(others) else words().usual[record["noun"]]


def row(record: dict[str, Any], records: list[dict[str, Any]], place: Path) -> dict[str, Any]:
    """A record of objects.json as the world reads it."""
    model = Model(
        name=record["id"],
        noun=record["noun"],
        synonyms=tuple(record["synonyms"]),
        color=color_of(record, records),
        paint="all" if record["uncoloured"] else "main" if record["recolourable"] else "none",
        author=record["author"],
        licence=record["licence"],
        source=record["source"],
    )
    painted = mesh_of(model, place).shades.any()  # not where no colour covers enough of it
    told = asdict(model if painted else replace(model, paint="none"))
    del told["name"]
    return told


def write(place: Path, path: Path = MODELS) -> None:
    """Write the list, one model a line."""
    records = json.loads((place / "objects.json").read_text(encoding="utf-8"))
    rows = [
        f"{json.dumps(one['id'])}: {json.dumps(row(one, records, place), ensure_ascii=False)}"
        for one in learnt(records)
    ]
    write_text(path, "{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    if (here := folder()) is None:
        raise SystemExit(f"set {VARIABLE} to the folder of the meshes")
    write(here)
