"""All figures of a splat against a truth: an object of a world by its prompt, or a user's own mesh or splat.

Nothing is aligned first: both must follow the world's convention, +z up, the front towards +x, in the unit ball.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras, Gaussians, on_processor
from gsdistill.evaluation.figures import NOTHING, PREFIX
from gsdistill.evaluation.naming import nearest
from gsdistill.evaluation.references import Truth, truth_of_prompt, world_that_knows
from gsdistill.evaluation.surface import centres, floaters, surface
from gsdistill.evaluation.views import compared, photograph, seen_colours, unseen
from gsdistill.worlds.base import World

__all__ = ["Figures", "evaluate", "truth_views"]

Figures: TypeAlias = dict[str, str | bool | int | float]


def evaluate(gaussians: Gaussians, truth: str | Truth) -> Figures:
    """Return the figures of a splat against a truth or a prompt; distances in world units, other figures in 0..1.

    From the held-out cameras, and with the prefix ``unseen_`` from those above and below (views.py): ``iou`` of the
    silhouettes, ``soft_iou`` of the alphas, ``colour_error`` where both silhouettes are, ``picture_error`` over white
    where either is, and ``psnr`` of the whole pictures in dB. ``surface_chamfer`` is the mean of ``surface_to_truth``
    and ``truth_to_surface``; ``centre_chamfer``, of the Gaussians' centres, that of ``splat_to_truth`` and
    ``truth_to_splat`` (surface.py). ``gaussians`` is their number.

    For an object of a world also ``name``, the object that the splat looks like, or "nothing known" (naming.py);
    ``name_right``, whether this is the prompt's; ``colour_right``, whether every part has the prompt's colour
    (views.py); ``model``, the one of those that the prompt may mean which the splat is nearest to and measured against,
    if there are several; ``truth``, what that is drawn from where it is not exact; ``floaters``, the share of the
    opacity outside of a closed surface.

    Raises:
        PromptError: the prompt is of no world, so its object is not known.
    """
    truth = truth_of_prompt(truth) if isinstance(truth, str) else truth
    gaussians = on_processor(gaussians)
    ours, others = photograph(gaussians), photograph(gaussians, unseen())
    figures: Figures = {}
    if (world := truth.world) and (things := truth.things):
        truth, likest = truth.nearest_to(ours), nearest(ours, world, things)
        colours = zip(seen_colours(ours, world, truth.layout), things, strict=True)
        figures |= {
            "name": world.caption(likest) if likest else NOTHING,
            "name_right": likest is not None and world.agrees(likest, things),
            "colour_right": all(color in ("", thing.color) for color, thing in colours),
        }
        named = {"model": world.title(truth.layout), "truth": world.drawn_from(truth.layout)}
        figures |= {key: value for key, value in named.items() if value}
    figures |= compared(ours, truth.seen)
    figures |= {f"{PREFIX}{name}": value for name, value in compared(others, truth.unseen).items()}
    if truth.surface:
        figures |= surface(ours, others, truth.surface)
        figures |= centres(gaussians, truth.surface)
        if truth.surface.signed:
            figures["floaters"] = floaters(gaussians, truth.surface)
    return {**figures, "gaussians": len(gaussians)}


def truth_views(
    prompt: str,
    cameras: Cameras,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    world: World | None = None,
) -> Float[Tensor, "B H W 3"]:
    """Pictures of the true object of ``prompt`` for contact sheets, RGB in 0..1 over ``background``.

    Raises:
        PromptError: as :func:`evaluate`.
    """
    world = world or world_that_knows(prompt)
    return world.pictures(world.known(prompt), cameras, torch.tensor(background).expand(len(cameras), 3))[0]
