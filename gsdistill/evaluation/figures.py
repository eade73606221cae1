"""What each figure of an evaluation means, in the groups and the order in which figures are shown. No heavy imports.

A figure that is not listed here is shown too, in a last group. Files of earlier versions call the Chamfer distance of
the centres ``chamfer``: :func:`renewed` translates the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["GROUPS", "JUDGE", "NOTHING", "PREFIX", "headline", "renewed"]

JUDGE = "judge"  # the entry that names the prior which gave the figures of fronts.py
NOTHING = "nothing known"  # the name of a splat that looks like no object of the world
LOOSE = 0.005  # share of the opacity; where a truth is known, the headline mentions only a larger loose part
PREFIX = "unseen_"  # of figures from the cameras above and below

_PICTURES = {
    "iou": "overlap of the silhouettes; 1 is best",
    "soft_iou": "of the alphas, so it sees haze; 1 is best",
    "psnr": "whole pictures over white, dB; higher is better",
    "picture_error": "RGB over white where either is; 0 is best",
    "colour_error": "RGB where both are; 0 is best",
}

# The figures of each group, by its title: what a figure means and which way is better.
GROUPS: dict[str, dict[str, str]] = {
    "name": {
        "name": "what it looks like",
        "name_right": "that is what the prompt says",
        "colour_right": "every part has the prompt's colour",
        "model": "which model it is measured against",
        "truth": "what that is drawn from",
    },
    "held-out views: 32 among those of a run, at -10 to 60 degrees": _PICTURES,
    "unseen views: 16 from below, -60 to -30, and above, 75 to 90": {
        f"{PREFIX}{name}": meaning for name, meaning in _PICTURES.items()
    },
    "surface: distances, the object fills a ball of radius 1": {
        "surface_chamfer": "mean of the next two; 0 is best",
        "surface_to_truth": "what is seen of the splat, to the truth",
        "truth_to_surface": "the truth, to what is seen of the splat",
        "floaters": "share of opacity outside of it; 0 is best",
    },
    "centres: of the Gaussians, which lie below the surface": {
        "centre_chamfer": "mean of the next two; 0 is best",
        "splat_to_truth": "the centres, to the truth",
        "truth_to_splat": "the truth, to the nearest centre",
    },
}

_MAIN = {
    "iou": "IoU {:.3f}",
    "unseen_iou": "unseen views {:.3f}",
    "psnr": "PSNR {:.1f} dB",
    "surface_chamfer": "surface Chamfer {:.3f}",
    "loose": "loose {:.3f}",
    "silhouette_agreement": "neighbouring silhouettes agree {:.3f}",
}
_RENAMED = {"chamfer": "centre_chamfer"}


def renewed(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a file under their current names."""
    return {_RENAMED.get(name, name): value for name, value in figures.items()}


def headline(figures: Mapping[str, Any]) -> str:
    """One line of the main figures that are there: those against the truth if it is known, else those of the splat."""
    parts = []
    if "name" in figures:
        wrong = figures["name"] != NOTHING and not figures.get("name_right")
        parts.append(f"looks like {figures['name']}" + ", not what was asked for" * wrong)
    numbers = {name: value for name in _MAIN if isinstance(value := figures.get(name), (int, float))}
    if "iou" in numbers:
        numbers.pop("silhouette_agreement", None)
        if numbers.get("loose", 0.0) <= LOOSE:
            numbers.pop("loose", None)
    return ", ".join([*parts, *(_MAIN[name].format(value) for name, value in numbers.items())])
