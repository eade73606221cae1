"""Every method against its independent derivation (derived/README.md), on a large random network in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from distillation.derived import cases, make
from distillation.derived_prior import Case, Given, Taught, flat, gradient_of, moment_of

from gsdistill.core.structs import Guidance
from gsdistill.distillation.asd import ASD
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.dsd import DSD
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.ism import ISM
from gsdistill.distillation.nfsd import NFSD
from gsdistill.distillation.rfds import RFDS
from gsdistill.distillation.rfds_rev import RFDSRev
from gsdistill.distillation.sdi import SDI
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.sds_bridge import SDSBridge
from gsdistill.distillation.ssd import SSD
from gsdistill.distillation.vsd import VSD
from gsdistill.settings.registry import names

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


def csd_released(case: Case) -> Guidance:
    set_ = case["settings"]
    scales = zip(
        ("cond_scale", "uncond_scale", "null_scale", "perpneg_scale"), ("cond", "uncond", "null", "perp"), strict=True
    )
    method = CSD(
        flat(1.0), weighting=set_["weighting"], normalise=set_["normalised"],
        **{name: flat(set_[short]) for name, short in scales},
    )  # fmt: skip
    return gradient_of(method, case, once(case))


def nfsd(case: Case) -> Guidance:
    return gradient_of(NFSD(flat(case["settings"]["omega"])), case, once(case))


def ism(case: Case) -> Guidance:
    """A flat range of i is the case's t."""
    set_ = case["settings"]

    def one(row: Case) -> Guidance:
        t, s = (int(row["draws"][name]) for name in ("t", "s"))
        method = ISM(
            flat(set_["omega"]), interval=flat((t - s) / 1000), stride=set_.get("stride", 200) / 1000,
            t_min=flat((t - 1) / 1000), t_max=flat((t - 1) / 1000), noise_offset=0.0, xs_eta=set_.get("eta", 0.0),
            xs_inv_steps=set_.get("steps", 5), denoise_guidance_scale=set_.get("denoise", 1.0),
        )  # fmt: skip
        return gradient_of(method, row, {"noise": [row["draws"]["noise"], *row["draws"].get("step_noise", ())]})

    return view_by_view(case, one)


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
        sqrt_beta=set_.get("sqrt_beta", 1.0), weighting=set_["weighting"], refresh=flat(set_.get("refresh", 0.0)),
    )  # fmt: skip
    state = {"noise": draws["noise"], "background": torch.zeros(case["x0"].shape[1:])}
    with patch("gsdistill.distillation.fsd.draw_like", lambda old, generator: draws["refreshing"]):
        return gradient_of(method, case, {"noise": [draws["fresh"]]}, state)


def fsd_run(case: Case) -> Guidance:
    """Where plain steps of size 1 arrive, while t falls to 0."""
    settings, step, x0 = {**case["settings"], "weighting": "pf-ode"}, None, case["x0"]
    for t in range(int(case["draws"]["t"][0]), -1, -1):
        draws = {**case["draws"], "t": torch.tensor([t]), "fresh": None}
        step = fsd({**case, "x0": x0, "settings": settings, "draws": draws})
        x0 = x0 - step.gradient
    assert step is not None
    return replace(step, gradient=x0)


def asd(case: Case) -> Guidance:
    set_ = case["settings"]
    method = ASD(
        flat(set_["omega"]), eta=set_["eta"], t_min=flat(set_["least"] / 1000), t_max=flat(1.0),
        perp_neg=set_.get("factor", 0.5), weighting=set_.get("weighting", "sds"),
    )  # fmt: skip
    return gradient_of(method, case, {**once(case), "share": case["draws"]["share"]})


def vsd(case: Case) -> Guidance:
    set_ = case["settings"]
    scales = flat(set_["omega"]), flat(set_["scale"])
    return gradient_of(VSD(*scales, weighting=set_.get("weighting", "sds")), case, twice(case), prior=Taught(case))


def student_training(case: Case) -> Guidance:
    """The gradient that AdamW is given, of the student's output: a mean moment of betas 0 is that gradient."""
    method, prior = VSD(camera_dropout=float(case["settings"]["dropped"]), betas=(0.0, 0.0)), Taught(case)
    _, state = method.gradient(moment_of(case, twice(case), prior), method.init_state(prior, torch.Generator()))
    return Guidance(state["mean"].view_as(case["x0"]), 0)


def twice(case: Case) -> dict[str, Any]:
    """The same draws for the gradient and for the training of the student."""
    draws = case["draws"]
    return {"t": draws["t"], "noise": [draws["noise"]] * 2, "share": torch.full((case["views"],), 0.5)}


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
    "sds": sds, "ssd": ssd, "csd": csd, "csd_released": csd_released, "nfsd": nfsd, "ism": ism, "cds": cds, "fsd": fsd,
    "fsd_run": fsd_run, "asd": asd, "vsd": vsd, "student_training": student_training, "sdi": sdi, "dsd": dsd,
    "rfds": rfds, "rfds_rev": rfds_rev, "bridge": bridge,
}  # fmt: skip
# What a program adds to a standard deviation.
LEFT = {f"cds-floor-{progress}" for progress in (0.0, 0.4, 1.0)}
COMPARED = [case for case in cases.cases() if case["method"] in OURS and case["id"] not in LEFT]


@functools.cache
def written() -> dict[str, np.ndarray]:
    """The numbers of each case in the file."""
    with np.load(make.FILE) as file:
        ends = np.cumsum(file["views"])[:-1]
        return dict(zip(file["ids"].tolist(), np.split(file["digests"], ends), strict=True))


BRIEF = {"sds", "ssd", "csd", "nfsd", "rfds"}  # one view of these takes a moment
PARAMS = [
    pytest.param(case, id=case["id"], marks=() if case["method"] in BRIEF and case["views"] == 1 else pytest.mark.slow)
    for case in COMPARED
]


@pytest.mark.parametrize("case", PARAMS)
def test_the_gradient_is_that_of_the_derivation(case):
    ours, true = OURS[case["method"]](case).gradient, cases.expected(case)
    np.testing.assert_allclose(make.digest(case["id"], true), written()[case["id"]], rtol=1e-9, atol=1e-9)
    assert ours.dtype == torch.float64
    assert float((ours - true).abs().max() / true.abs().max()) < BOUND


def test_every_method_is_compared_but_cfd():
    """CFD's gradient has a closed form in test_cfd.py; its noise is compared in test_surface_noise.py."""
    assert {case["method"] for case in cases.cases()} == OURS.keys()
    ours = {name.replace("sds-bridge", "bridge").replace("-", "_") for name in names("gsdistill.distillation")}
    assert ours - OURS.keys() == {"cfd"}
