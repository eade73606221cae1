"""Write licences.md: who made the models that the objects prior learnt from, under which licence, and where they are.

python tools/objects/licences.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gsdistill.disk.write import write_text
from gsdistill.worlds.objects.catalogue import Model, models

PAGE = Path(__file__).with_name("licences.md")


def page(learnt: Iterable[Model]) -> str:
    """The page about these models."""
    learnt = sorted(learnt, key=lambda model: model.name)
    authors = Counter(model.author for model in learnt).most_common()
    lines = [
        "# Licences of the models", "",
        f"The {len(learnt)} models that the weights of the objects prior learnt from, those of",
        "`gsdistill/worlds/objects/models.json`. Written by `python tools/objects/licences.py`;",
        "[sources.json](sources.json) has the commits and checksums.", "",
        "Authors: " + ", ".join(f"{author} {count}" for author, count in authors) + ".", "",
        "| model | author | licence | source |", "|---|---|---|---|",
        *(f"| {one.name} | {one.author} | {one.licence} | {one.source} |" for one in learnt),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(PAGE, page(models().values()))
