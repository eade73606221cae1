"""Do the figures see what a person sees? Six splats of a red torus, good and ruined, with all figures and pictures.

    python tools/readme/six_splats.py --splat outputs/a-red-torus/sds-seed0/gaussians.ply --output outputs/six

The good one is a finished run (`gsdistill generate --prompt "a red torus" --method sds --seed 0`), which is made first
unless --splat names it. Each of the others is the good one with one fault:

mottled      half of the Gaussians have a random colour
floater      a green ball of radius 0.25 hangs in the hole
two-faced    all that lies below the middle is blue
inside out   every centre mirrored at the middle of the tube, so that what was above is below
half         the Gaussians of negative x are gone

Prints a table, beside what a person sees in the pictures; writes six-splats.json with all figures, and six-splats.png
with a line for each splat, the truth first: three held-out and three unseen views.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from gsdistill.cli.flags import settings_of
from gsdistill.core.structs import SH_C0, Cameras, Gaussians
from gsdistill.disk.write import write_json
from gsdistill.evaluation.references import truth_of_prompt
from gsdistill.evaluation.truth import evaluate, truth_views
from gsdistill.evaluation.views import held_out, unseen
from gsdistill.export.pictures import shots, to_bytes
from gsdistill.generate import run
from gsdistill.run.config import resolve
from gsdistill.scene.read import read_splat

ROOT = Path(__file__).resolve().parents[2]
PROMPT, MAJOR = "a red torus", 0.62  # and its larger radius
SEEN, BELOW, SIDE, MARGIN = (4, 15, 28), (1, 10, 14), 112, 90
COLUMNS = {
    "looks like": "name", "IoU": "iou", "unseen": "unseen_iou", "soft IoU": "soft_iou", "colour": "colour_error",
    "picture": "picture_error", "unseen picture": "unseen_picture_error", "PSNR": "psnr", "unseen PSNR": "unseen_psnr",
    "centres": "centre_chamfer", "surface": "surface_chamfer", "floaters": "floaters",
}  # fmt: skip
# What a person sees in the pictures.
SEES = {
    "good": "a red torus with soft edges",
    "mottled": "a torus in all colours",
    "floater": "a red torus with a green ball in its hole",
    "two-faced": "a red torus from above, a blue one from below",
    "inside out": "a red torus that is dark above and bright below",
    "half": "one half of a red torus",
}


@dataclass(frozen=True)
class Settings:
    """What is measured, and where it goes."""

    # folder of the pictures, and of the run where one is made
    output: Path
    # the good splat; none: it is made
    splat: Path | None = None
    # file of the figures
    json: Path = ROOT / "tools" / "readme" / "results" / "six-splats.json"


def good(settings: Settings) -> Gaussians:
    """The good splat, whose run is done first unless it is named or there."""
    path = settings.splat or settings.output / "good" / "gaussians.ply"
    if not path.is_file():
        config = resolve({"prompt": PROMPT, "method": "sds", "prior": "shapes", "seed": 0})
        run(dataclasses.replace(config, output=path.parent, overwrite=True), Console(quiet=True), extras=False)
    return read_splat(path)


def colours(rgb: tuple[float, float, float] | torch.Tensor) -> torch.Tensor:
    """Coefficients of a colour, RGB in 0..1."""
    return (torch.as_tensor(rgb) - 0.5) / SH_C0


def six(splat: Gaussians, generator: torch.Generator) -> dict[str, Gaussians]:
    """The splat and what is made of it, by name."""
    count = len(splat)
    random = colours(torch.rand(count, 1, 3, generator=generator))
    some = torch.rand(count, 1, 1, generator=generator) < 0.5
    below, front = (splat.means[:, 2] < 0)[:, None, None], splat.means[:, 0] > 0
    return {
        "good": splat,
        "mottled": dataclasses.replace(splat, sh=torch.where(some, random, splat.sh)),
        "floater": joined(splat, ball(200, 0.25, (0.1, 0.7, 0.1), generator)),
        "two-faced": dataclasses.replace(splat, sh=torch.where(below, colours((0.15, 0.25, 0.9)), splat.sh)),
        "inside out": inside_out(splat),
        "half": splat.each(lambda value: value[front]),
    }


def inside_out(splat: Gaussians) -> Gaussians:
    """Each centre mirrored at the nearest point of the torus' middle circle."""
    flat = torch.nn.functional.normalize(splat.means[:, :2], dim=1) * MAJOR
    middle = torch.cat([flat, torch.zeros(len(splat), 1)], dim=1)
    return dataclasses.replace(splat, means=2.0 * middle - splat.means)


def ball(count: int, size: float, rgb: tuple[float, float, float], generator: torch.Generator) -> Gaussians:
    """Opaque Gaussians spread in a ball around the origin."""
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    means = directions * size * torch.rand(count, 1, generator=generator) ** (1 / 3)
    scales = torch.full((count, 3), math.log(0.12 * size))
    turns = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1)
    return Gaussians(means, turns, scales, torch.full((count,), 3.0), colours(rgb).expand(count, 1, 3))


def joined(*parts: Gaussians) -> Gaussians:
    """All Gaussians of the parts."""
    return Gaussians(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in parts[0].tensors()})


def sheet(splats: dict[str, Gaussians]) -> Image.Image:
    """A line for the truth and for each splat: held-out views, then unseen ones."""
    views = [held_out(SIDE).pick(torch.tensor(SEEN)), unseen(SIDE).pick(torch.tensor(BELOW))]
    lines = {"truth": np.concatenate([to_bytes(truth_views(PROMPT, cameras)) for cameras in views])}
    lines |= {name: pictures(splat, views) for name, splat in splats.items()}
    width = MARGIN + SIDE * (len(SEEN) + len(BELOW))
    page = Image.new("RGB", (width, 24 + SIDE * len(lines)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for column, title in ((0, "held-out views"), (len(SEEN), "unseen views: below, below, above")):
        pen.text((MARGIN + SIDE * column + 6, 12), title, fill="#333333", font=font, anchor="lm")
    for row, (name, pixels) in enumerate(lines.items()):
        top = 24 + SIDE * row
        pen.text((6, top + SIDE / 2), name, fill="#333333", font=font, anchor="lm")
        page.paste(Image.fromarray(np.concatenate(list(pixels), axis=1)), (MARGIN, top))
    return page


def pictures(splat: Gaussians, views: list[Cameras]) -> np.ndarray:
    """The splat from all of the views, [B, H, W, 3] of bytes."""
    return np.stack([image for cameras in views for image in shots(splat, cameras, (1.0, 1.0, 1.0))])


def main(settings: Settings) -> None:
    """Make the six, measure them and draw them."""
    splats, truth = six(good(settings), torch.Generator().manual_seed(0)), truth_of_prompt(PROMPT)
    found = {name: evaluate(splat, truth) for name, splat in splats.items()}
    print(f"| splat | a person sees | {' | '.join(COLUMNS)} |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for name, figures in found.items():
        values = (figures[column] for column in COLUMNS.values())
        print(f"| {name} | {SEES[name]} | {' | '.join(v if isinstance(v, str) else f'{v:.3f}' for v in values)} |")
    write_json(settings.json, {"prompt": PROMPT, "a person sees": SEES, "splats": found})
    settings.output.mkdir(parents=True, exist_ok=True)
    sheet(splats).save(settings.output / "six-splats.png", optimize=True)


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "six_splats.py"))
