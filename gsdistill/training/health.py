"""What a run can tell about its own health, from figures that it has, and what to do where they look bad.

Every Gaussian counts by what it shows: :func:`gsdistill.scene.extent.shown_area`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.scene.extent import shown_area, weighted_quantile

__all__ = ["Counts", "Health", "alarms", "measure"]

HELD = 0.95  # share of what is shown that the extent holds
ROOM = 0.25  # how far a colour may leave 0..1: what a pure colour overshoots by
TINY, MOST = 1e-12, 1e30  # so that sums stay finite

# When an alarm is raised. Of 58 runs on the shapes prior (nine methods with their recipes, seven as published, long and
# short, grown, without penalties, with guidance up to 1000, from other starts) none raised one: extent up to
# 0.84, drift 0.92 to 1.41, coverage at least 0.85 of the start's or of 1, garish up to 0.05. With 30 times the rates
# garish is 1 from step 5 on and the extent up to 41; with 100 times the opacity penalty coverage ends at 0.15 to 0.38;
# with guidance 0 CDS ends at drift 0.63 and coverage 0.07.
SKIPPED, PRUNED = 0.05, 0.9
INFLATED, COLLAPSED = 1.5, 0.7
GARISH, FADED = 0.25, 0.5


@dataclass(frozen=True)
class Counts:
    """What has happened so far."""

    steps: int = 0
    skipped: int = 0  # of them, for a gradient that was not finite
    grown: int = 0  # Gaussians that were duplicated or split, each is one more
    pruned: int = 0  # Gaussians that were removed as transparent, too large, over the budget, or by the final cut


@dataclass(frozen=True)
class Health:
    """A scene at one moment, beside its start; every number is finite."""

    skipped: float  # share of the steps that changed nothing, for a gradient that was not finite
    grown: int  # Gaussians
    pruned: int  # Gaussians
    pruned_share: float  # of all Gaussians that there have been
    broken: int  # Gaussians with a number that is not finite; they count nowhere else
    extent: float  # radius around the origin that holds 95 % of what is shown, with its size, world units
    drift: float  # extent over that of the start
    coverage: float  # area shown, of the disk of the extent
    garish: float  # share of what is shown whose colour leaves -0.25..1.25
    saturation: float  # mean saturation (HSV) of what is shown, 0..1


@torch.no_grad()
def measure(gaussians: Gaussians, first: Health | None = None, counts: Counts = Counts()) -> Health:
    """Look at a scene; ``first`` is what this function said of the scene that the run started from.

    About half a millisecond for 5,000 Gaussians on a CPU; waits for an accelerator, once.
    """
    g = gaussians
    shown = shown_area(g.opacities, g.scales)
    reach = (g.means.square().sum(1) + torch.exp(2 * g.scales.amax(1))).sqrt()
    colours = 0.5 + SH_C0 * g.sh[:, 0]
    most, least = colours.amax(1), colours.amin(1)
    whole = (shown + reach + g.opacities + g.quats.sum(1) + g.sh.sum((1, 2))).isfinite()
    shown, reach = torch.where(whole, shown, 0.0).clamp_max(MOST), torch.where(whole, reach, 0.0)
    vivid = (most.clamp(0, 1) - least.clamp(0, 1)) / most.clamp(TINY, 1)
    beyond = ((most > 1 + ROOM) | (least < -ROOM)).float()
    radius = weighted_quantile(reach, shown, HELD)
    figures = [(~whole).sum(), radius, shown.sum(), _mean(beyond, shown), _mean(vivid, shown)]
    broken, extent, area, garish, saturation = torch.stack(figures).tolist()  # the one wait
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
    """What looks bad beside the start, by a name for each kind: one line that says what it is and what to change.

    ``fault`` is what is wrong with the model, where that is known to be why steps change nothing.
    """
    h, raised = health, {}
    if h.skipped > SKIPPED:
        advice = "lower method.guidance_scale or the optim rates, or take model.precision float32"
        raised["skipped"] = (
            f"{h.skipped:.0%} of the steps changed nothing, for a gradient that is not finite; {fault or advice}"
        )
    if h.broken:
        raised["broken"] = f"{h.broken} Gaussians have a number that is not finite; lower the optim rates"
        if not h.extent:  # nothing else is left, of which more could be said
            return raised
    if h.pruned_share > PRUNED:
        raised["pruned"] = (
            f"{h.pruned_share:.0%} of all Gaussians that there have been were removed; lower densify.prune_opacity or "
            "densify.final_opacity, or raise densify.prune_scale3d or densify.budget"
        )
    if h.extent > INFLATED * max(1.0, first.extent):
        raised["inflated"] = (
            f"the scene has blown up to radius {h.extent:.3g}, from {first.extent:.3g}, and the object should fill 1; "
            "lower optim.means and optim.scales, or raise regularizers.opacity or regularizers.scale"
        )
    elif h.coverage < FADED * min(1.0, first.coverage):
        raised["faded"] = (
            f"the scene has faded, it shows {h.coverage:.2g} times the area that it spans; lower regularizers.opacity "
            "and regularizers.scale, or raise method.guidance_scale"
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
    """The weighted mean, 0 where nothing weighs."""
    return torch.where(weights > 0, values * weights, 0.0).sum() / weights.sum().clamp_min(TINY)
