"""Figures that show whether a scene has gone wrong during a run, and advice where it has.

Every Gaussian is weighted by the area it shows: :func:`gsdistill.scene.extent.shown_area`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.scene.extent import shown_area, weighted_quantile

__all__ = ["Counts", "Health", "alarms", "measure"]

EXTENT_SHARE = 0.95  # share of the shown area that the extent contains
OVERSHOOT = 0.25  # how far a colour may leave 0..1; pure colours overshoot by about this much
TINY, MOST = 1e-12, 1e30  # bounds that keep sums finite and quotients defined

# Limits at which an alarm is raised. 58 sound runs on the shapes prior (nine methods with their recipes, seven as
# published, long and short, with growing, without penalties, with guidance up to 1000, from other starts) raised none:
# extent up to 0.84, drift 0.92 to 1.41, coverage at least 0.85 times the lesser of 1 and that of the start, garish up
# to 0.05. Broken runs: with 30 times the learning rates, garish is 1 from step 5 on and the extent reaches 41; with 100
# times the opacity penalty, coverage ends at 0.15 to 0.38; with guidance 0, CDS ends at drift 0.63 and coverage 0.07.
SKIPPED, PRUNED = 0.05, 0.9
INFLATED, COLLAPSED = 1.5, 0.7
GARISH, FADED = 0.25, 0.5


@dataclass(frozen=True)
class Counts:
    """What has happened in the run so far."""

    steps: int = 0
    skipped: int = 0  # steps that changed nothing, because their gradient was not finite
    grown: int = 0  # Gaussians added by duplicating or splitting
    pruned: int = 0  # Gaussians removed as transparent, too large, over the budget, or by the final cut


@dataclass(frozen=True)
class Health:
    """Figures of a scene at one moment; every number is finite."""

    skipped: float  # share of the steps that changed nothing, because their gradient was not finite, 0..1
    grown: int  # Gaussians added so far
    pruned: int  # Gaussians removed so far
    pruned_share: float  # removed Gaussians over all Gaussians that ever existed, 0..1
    broken: int  # Gaussians with a number that is not finite; the figures below leave them out
    extent: float  # radius of the ball around the origin that contains 95 % of the shown area, world units
    drift: float  # extent over the extent of the start
    coverage: float  # shown area over the square of the extent
    garish: float  # share of the shown area whose colour is outside of -0.25..1.25, 0..1
    saturation: float  # mean saturation (HSV) over the shown area, 0..1


@torch.no_grad()
def measure(gaussians: Gaussians, first: Health | None = None, counts: Counts = Counts()) -> Health:
    """Compute the figures of a scene; ``first`` are those of the scene that the run started from (for the drift).

    Takes about half a millisecond for 5,000 Gaussians on a CPU, and waits once for an accelerator.
    """
    g = gaussians
    shown = shown_area(g.opacities, g.scales)
    reach = (g.means.square().sum(1) + torch.exp(2 * g.scales.amax(1))).sqrt()
    colours = 0.5 + SH_C0 * g.sh[:, 0]
    most, least = colours.amax(1), colours.amin(1)
    finite = (shown + reach + g.opacities + g.quats.sum(1) + g.sh.sum((1, 2))).isfinite()
    shown, reach = torch.where(finite, shown, 0.0).clamp_max(MOST), torch.where(finite, reach, 0.0)
    vivid = (most.clamp(0, 1) - least.clamp(0, 1)) / most.clamp(TINY, 1)
    beyond = ((most > 1 + OVERSHOOT) | (least < -OVERSHOOT)).float()
    radius = weighted_quantile(reach, shown, EXTENT_SHARE)
    figures = [(~finite).sum(), radius, shown.sum(), _mean(beyond, shown), _mean(vivid, shown)]
    broken, extent, area, garish, saturation = torch.stack(figures).tolist()  # waits for the device, only here
    ever = counts.pruned + len(gaussians)
    return Health(
        skipped=counts.skipped / max(1, counts.steps),
        grown=counts.grown,
        pruned=counts.pruned,
        pruned_share=counts.pruned / max(1, ever),
        broken=int(broken),
        extent=extent,
        drift=extent / first.extent if first and first.extent else 1.0,
        coverage=area / max(extent**2, TINY),
        garish=garish,
        saturation=saturation,
    )


def alarms(health: Health, first: Health, fault: str | None = None) -> dict[str, str]:
    """What looks bad in comparison with the start ``first``: maps the kind of alarm to a line of text with advice.

    ``fault`` says what is wrong with the prior's model, if that is known to be why steps are skipped.
    """
    h, raised = health, {}
    if h.skipped > SKIPPED:
        advice = "lower method.guidance_scale or the optim rates, or take model.precision float32"
        raised["skipped"] = (
            f"{h.skipped:.0%} of the steps changed nothing, as their gradient was not finite; {fault or advice}"
        )
    if h.broken:
        raised["broken"] = f"{h.broken} Gaussians have a number that is not finite; lower the optim rates"
        if not h.extent:  # no Gaussian is left that the other alarms could be about
            return raised
    if h.pruned_share > PRUNED:
        raised["pruned"] = (
            f"{h.pruned_share:.0%} of all Gaussians that ever existed were removed; lower densify.prune_opacity or "
            "densify.final_opacity, or raise densify.prune_scale3d or densify.budget"
        )
    if h.extent > INFLATED * max(1.0, first.extent):
        raised["inflated"] = (
            f"the scene has blown up to radius {h.extent:.3g}, from {first.extent:.3g}, and the object should fill 1; "
            "lower optim.means and optim.scales, or raise regularizers.opacity or regularizers.scale"
        )
    elif h.coverage < FADED * min(1.0, first.coverage):
        raised["faded"] = (
            f"the scene has faded: its shown area is only {h.coverage:.2g} times the square of its radius; lower "
            "regularizers.opacity and regularizers.scale, or raise method.guidance_scale"
        )
    if h.drift < COLLAPSED:
        raised["collapsed"] = (
            f"the scene has shrunk to radius {h.extent:.3g}, from {first.extent:.3g}; lower regularizers.opacity and "
            "regularizers.scale, or raise method.guidance_scale"
        )
    if h.garish > GARISH:
        raised["garish"] = (
            f"{h.garish:.0%} of what is shown has a colour far outside of 0..1; lower optim.sh or method.guidance_scale"
        )
    return raised


def _mean(values: Float[Tensor, "N"], weights: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """The weighted mean, 0 if all weights are 0."""
    return torch.where(weights > 0, values * weights, 0.0).sum() / weights.sum().clamp_min(TINY)
