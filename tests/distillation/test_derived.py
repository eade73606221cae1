"""Every method against its independent derivation (derived/README.md), on a large random network in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from distillation.derived import cases
from distillation.derived_prior import Case, Given, flat, gradient_of

from gsdistill.core.structs import Guidance
from gsdistill.distillation.asd import ASD
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.dsd import DSD
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.sdi import SDI
from gsdistill.distillation.sds import SDS
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


class OfNegativeTimes(Given):
    """Asked at time 0, which only the first step of an inversion is, it answers as the network does at -99."""

    def network(self, latents, timesteps, text, cameras):
        return super().network(latents, torch.where(timesteps == 0, -99, timesteps), text, cameras)


def sdi(case: Case) -> Guidance:
    """The program's first question is at time -99; the cases "zero" have it at 0, where ours is."""
    set_ = case["settings"]
    prior = None if "asked_first" in set_ else OfNegativeTimes(case)

    def one(row: Case) -> Guidance:
        method = SDI(
            flat(set_["omega"]), set_["omega_inversion"], inversion_eta=set_["eta"], remap=set_.get("remapped", False),
            timestep=flat(int(row["draws"]["t"]) / 1000),
        )  # fmt: skip
        with patch.object(torch, "randint", lambda *_, **__: row["draws"]["delta"]):
            return gradient_of(method, row, {"noise": [*row["draws"]["step_noise"]]}, prior=prior)

    return view_by_view(case, one)


def dsd(case: Case) -> Guidance:
    set_ = case["settings"]

    def one(row: Case) -> Guidance:
        timestep = flat(int(row["draws"]["t"]) / 1000)
        method = DSD(flat(set_["omega"]), timestep=timestep, t_min=set_["least"] / 1000, reference=set_["reference"])
        with patch.object(torch, "rand", lambda *_, **__: row["draws"]["share"]):
            return gradient_of(method, row, {}, {"noise": row["draws"]["noise"][0]})

    return view_by_view(case, one)


def view_by_view(case: Case, answer: Callable[[Case], Guidance]) -> Guidance:
    """The answers to cases of one view each, for methods whose times are the same for all views of a step."""

    def row(b: int) -> Case:
        def of(name: str, value: Any) -> Any:
            return value[:, b : b + 1] if name == "step_noise" else value[b : b + 1]

        parts = {name: {key: of(key, value) for key, value in case[name].items()} for name in ("texts", "draws")}
        rows = {name: case[name][b : b + 1] for name in ("x0", "azimuth", "elevation")}
        return {**case, **parts, **rows, "views": 1}

    return Guidance(torch.cat([answer(row(b)).gradient for b in range(case["views"])]), 0)


def once(case: Case) -> dict[str, Any]:
    """t, and one noise."""
    return {"t": case["draws"]["t"], "noise": [case["draws"]["noise"]]}


OURS: dict[str, Callable[[Case], Guidance]] = {
    "sds": sds, "ssd": ssd, "csd": csd, "cds": cds, "fsd": fsd, "asd": asd, "sdi": sdi, "dsd": dsd,
}  # fmt: skip
# What a program adds to a standard deviation.
LEFT = {f"cds-floor-{progress}" for progress in (0.0, 0.4, 1.0)}
LEFT |= {case["id"] for case in cases.cases() if "refresh" in case["id"]}  # being repaired
COMPARED = [case for case in cases.cases() if case["method"] in OURS and case["id"] not in LEFT]


@pytest.mark.parametrize("case", COMPARED, ids=lambda case: case["id"])
def test_the_gradient_is_that_of_the_derivation(case):
    ours, true = OURS[case["method"]](case).gradient, cases.expected(case)
    assert ours.dtype == torch.float64
    assert float((ours - true).abs().max() / true.abs().max()) < BOUND
