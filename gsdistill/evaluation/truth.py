"""A splat judged against the object of its prompt, whose pictures and surface the shapes world knows exactly.

Nothing is aligned first: the object must stand where the world's convention puts it, +z up, its front towards +x.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.config import load_yaml
from gsdistill.errors import BadFile, PromptError
from gsdistill.evaluation.naming import nearest
from gsdistill.evaluation.surface import floaters, splat_to_truth, truth_to_splat
from gsdistill.evaluation.views import colour_error, iou, photograph, seen_colours, truth
from gsdistill.scene.ply import read_ply
from gsdistill.shapes.captions import Thing, object_name, parse
from gsdistill.shapes.raycast import paint, trace
from gsdistill.shapes.world import build
from gsdistill.structs import Cameras, Gaussians, on_processor, to_device

__all__ = ["Figures", "evaluate", "evaluate_run", "truth_views"]

Figures: TypeAlias = dict[str, str | bool | int | float]

_SPLAT, _CONFIG = "gaussians.ply", "config.yaml"


def evaluate_run(run_dir: Path | str) -> Figures:
    """Evaluate the splat in the folder of a finished run: its ``config.yaml`` names the prompt; see :func:`evaluate`.

    Raises:
        BadFile: the folder lacks a file, or one of them cannot be read.
        PromptError: as :func:`evaluate`.
    """
    folder = Path(run_dir)
    missing = [name for name in (_CONFIG, _SPLAT) if not (folder / name).is_file()]
    if missing:
        what = f"it lacks {' and '.join(missing)}" if folder.is_dir() else "there is no such folder"
        raise BadFile(f"{folder} is not the folder of a finished run: {what}")
    prompt = load_yaml(folder / _CONFIG).get("prompt")
    if not isinstance(prompt, str):
        raise BadFile(f"{folder / _CONFIG} names no prompt")
    _known(prompt)
    return evaluate(read_ply(folder / _SPLAT), prompt)


def evaluate(gaussians: Gaussians, prompt: str) -> Figures:
    """Return the figures of a splat that was made for ``prompt``; distances in world units, shares and colours in 0..1.

    ``name``: the object of the shapes world that the splat looks like (naming.py), and ``name_right``: it is the
    prompt's. ``iou``: of the silhouettes. ``colour_error``: mean absolute RGB error where both silhouettes are, and
    ``colour_right``: every part's nearest named colour is the prompt's (views.py). ``chamfer``: the mean of
    ``splat_to_truth`` and ``truth_to_splat``; ``floaters``: share of opacity outside of the surface (surface.py).
    ``gaussians``: how many.

    Raises:
        PromptError: the prompt is not one of the shapes world, so its object is not known.
    """
    things = _known(prompt)
    shapes = tuple(thing.shape for thing in things)
    gaussians = on_processor(gaussians)
    ours, true = photograph(gaussians), truth(things)
    named = nearest(ours)
    forth, back = splat_to_truth(gaussians, shapes), truth_to_splat(gaussians, shapes)
    return {
        "name": object_name(named),
        "name_right": named == things,
        "iou": iou(ours, true),
        "colour_error": colour_error(ours, true),
        "colour_right": seen_colours(ours, shapes) == tuple(thing.color for thing in things),
        "chamfer": 0.5 * (forth + back),
        "splat_to_truth": forth,
        "truth_to_splat": back,
        "floaters": floaters(gaussians, shapes),
        "gaussians": len(gaussians),
    }


def truth_views(
    prompt: str, cameras: Cameras, background: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Float[Tensor, "B H W 3"]:
    """Pictures of the true object of ``prompt`` for contact sheets, RGB in 0..1 over ``background``.

    Raises:
        PromptError: as :func:`evaluate`.
    """
    world = build(_known(prompt))
    backgrounds = torch.tensor(background).expand(len(cameras), 3)
    images, _ = paint(trace(world.parts, to_device(cameras, "cpu")), torch.from_numpy(world.colors), backgrounds)
    return images


def _known(prompt: str) -> tuple[Thing, ...]:
    try:
        return parse(prompt)
    except PromptError as error:
        raise PromptError(
            f"evaluation on truth needs a shapes prompt, '[a] colour solid [on [a] colour solid]'; "
            f"the object of '{prompt}' is not known"
        ) from error
