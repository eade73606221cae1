"""Every method against its independent derivation (derived/README.md), on a large random network in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from distillation.derived import cases
from distillation.derived_prior import Case, flat, gradient_of

from gsdistill.core.structs import Guidance
from gsdistill.distillation.asd import ASD
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.rfds import RFDS
from gsdistill.distillation.rfds_rev import RFDSRev
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.sds_bridge import SDSBridge
from gsdistill.distillation.ssd import SSD

BOUND = 1e-9  # of the largest element


def sds(case: Case) -> Guidance:
    given = {name: case["settings"][name] for name in ("weighting", "variance_reduction") if name in case["settings"]}
    return gradient_of(SDS(flat(case["settings"]["omega"]), **given), case, once(case))


def ssd(case: Case) -> Guidance:
    until = flat(case["settings"]["limit"] / 1000)
    return gradient_of(SSD(flat(case["settings"]["omega"]), mode_seeking_until=until), case, once(case))


def csd(case: Case) -> Guidance:
    weighting = case["settings"].get("weighting", "sds")
    return gradient_of(CSD(flat(case["settings"]["omega"]), weighting=weighting), case, once(case))


def cds(case: Case) -> Guidance:
    """n is the same for all views; t is n and what is drawn."""
    set_, draws = case["settings"], case["draws"]
    near, clip = flat(float(draws["n"][0]) / 1000), flat(set_.get("clip", 0.0))
    method = CDS(
        flat(set_["omega"]), near=near, near_min=0.0, weighting=set_.get("weighting", "uniform"), clip=clip,
        rescale=set_.get("rescale", 0.0),
    )  # fmt: skip
    state = {"noise": draws["noise"][0]}
    return gradient_of(method, case, {"integers": [draws["t"] - draws["n"]]}, state)


def fsd(case: Case) -> Guidance:
    """One noise a view stands for that of the cameras."""
    set_, draws = case["settings"], case["draws"]
    method = FSD(
        flat(set_["omega"]), timestep=flat(float(draws["t"][0]) / 1000), noise="fixed", background="same",
        sqrt_beta=set_.get("sqrt_beta", 1.0), weighting=set_["weighting"],
    )  # fmt: skip
    state = {"noise": draws["noise"], "background": torch.zeros(case["x0"].shape[1:])}
    return gradient_of(method, case, {"noise": [draws["fresh"]]}, state)


def asd(case: Case) -> Guidance:
    set_ = case["settings"]
    method = ASD(
        flat(set_["omega"]), eta=set_["eta"], t_min=flat(set_["least"] / 1000), t_max=flat(1.0),
        perp_neg=set_.get("factor", 0.5), weighting=set_.get("weighting", "sds"),
    )  # fmt: skip
    return gradient_of(method, case, {**once(case), "share": case["draws"]["share"]})


def rfds(case: Case) -> Guidance:
    """The factor is drawn as a share, whose normal number is that of the case."""
    normal = case["draws"].get("weighting")
    share = {} if normal is None else {"share": torch.special.ndtr(normal)}
    method = RFDS(flat(case["settings"]["omega"]), random_factor=normal is not None)
    return gradient_of(method, case, {**once(case), **share})


def rfds_rev(case: Case) -> Guidance:
    set_ = case["settings"]
    correction = {"sigma": "scaled", "one": "whole"}[set_["step"]]
    return gradient_of(RFDSRev(flat(set_["omega"]), correction=correction), case, once(case))


def bridge(case: Case) -> Guidance:
    set_ = case["settings"]
    which = {1: ("guidance_scale", "weighting"), 2: ("bridge_scale", "bridge_weighting")}[set_["stage"]]
    given = dict(zip(which, (flat(set_["omega"]), set_["weighting"]), strict=True))
    return gradient_of(SDSBridge(**given), case, once(case))


def once(case: Case) -> dict[str, Any]:
    """t, and one noise."""
    return {"t": case["draws"]["t"], "noise": [case["draws"]["noise"]]}


OURS: dict[str, Callable[[Case], Guidance]] = {
    "sds": sds, "ssd": ssd, "csd": csd, "cds": cds, "fsd": fsd, "asd": asd,
    "rfds": rfds, "rfds_rev": rfds_rev, "bridge": bridge,
}  # fmt: skip
# What a program adds to a standard deviation.
LEFT = {"sds-mvdream-floor", *(f"cds-floor-{progress}" for progress in (0.0, 0.4, 1.0))}
LEFT |= {case["id"] for case in cases.cases() if case["method"] == "asd" or "refresh" in case["id"]}  # being repaired
COMPARED = [case for case in cases.cases() if case["method"] in OURS and case["id"] not in LEFT]


@pytest.mark.parametrize("case", COMPARED, ids=lambda case: case["id"])
def test_the_gradient_is_that_of_the_derivation(case):
    ours, true = OURS[case["method"]](case).gradient, cases.expected(case)
    assert ours.dtype == torch.float64
    assert float((ours - true).abs().max() / true.abs().max()) < BOUND
