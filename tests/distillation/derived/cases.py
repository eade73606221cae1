"""The cases: a method with its settings, its inputs and every draw, and the gradient that `derive.py` gives.

A case is a dict: id, method, settings, progress, views, levels ("vp" or "rf"), x0, texts, camera, draws, azimuth and
elevation (degrees, by view). `expected(case)` computes the gradient. Every random array is the standard normal draw of
numpy's default_rng([crc32(case id), crc32(array's name)]), so a case depends on no other. The latents are
x0 = 0.7 draw + 0.3; the text of each branch, the same in all cases, is the draw of the id "texts".
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
import torch
from distillation.derived import derive, network

PRIOR, STUDENT = 1, 2
AZIMUTH, ELEVATION = (20.0, 100.0, 200.0, 310.0), (10.0, 20.0, -5.0, 70.0)
LEVELS = {"vp": derive.variance_preserving(), "rf": derive.rectified_flow()}


@cache
def prior():
    """The prior of all cases."""
    return network.build(PRIOR)


@cache
def student():
    """The student of VSD."""
    return network.build(STUDENT)


def draw(case, name, *shape):
    """A standard normal tensor in float64, of the case's id and the array's name."""
    seed = [zlib.crc32(case.encode()), zlib.crc32(name.encode())]
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def text(name):
    """The embedding [L, D] of one text."""
    return draw("texts", name, network.TOKENS, network.TEXT)


def words(azimuth, elevation):
    """The hard view words of threestudio: overhead above 60, front within 45, back beyond 135, else side."""
    away = abs((azimuth + 180) % 360 - 180)
    return "overhead" if elevation > 60 else "front" if away < 45 else "back" if away > 135 else "side"


def branches(views, negative, perp):
    """The embeddings by branch: view-dependent positive, plain, empty, negative where asked, Perp-Neg where asked."""
    cameras = [(AZIMUTH[i % 4], ELEVATION[i % 4]) for i in range(views)]
    same = {name: text(name).expand(views, -1, -1) for name in ("plain", "empty")}
    if negative:
        same["negative"] = text("negative").expand(views, -1, -1)
    if not perp:
        return {**same, "positive": torch.stack([text(words(*camera)) for camera in cameras])}
    seen = [text(name) for name in ("front", "side", "back", "overhead", "negative" if negative else "empty")]
    rows = [derive.perp_neg(*camera, *seen) for camera in cameras]
    columns = [torch.stack([row[i] for row in rows]) for i in range(3)]
    weights = torch.tensor([row[3] for row in rows], dtype=torch.float64)
    return {**same, **dict(zip(("positive", "perp0", "perp1"), columns, strict=True)), "perp_weights": weights}


def case(name, method, settings, t, progress=0.0, negative=False, perp=False, levels="vp", camera=False, **draws):
    """One case. The timesteps `t`, one a view, and the other integers come in `draws`; the noise is always drawn."""
    views = len(t)
    shape = (views, network.CHANNELS, network.SIZE, network.SIZE)
    texts = branches(views, negative, perp)
    if method == "bridge":
        for role in ("target", "source"):
            texts[role] = torch.stack([text(f"{role} {words(AZIMUTH[i], ELEVATION[i])}") for i in range(views)])
    return {
        "id": name,
        "method": method,
        "settings": settings,
        "progress": progress,
        "views": views,
        "levels": levels,
        "x0": 0.7 * draw(name, "x0", *shape) + 0.3,
        "texts": texts,
        "camera": draw(name, "camera", views, 16) if camera else None,
        "azimuth": [AZIMUTH[i % 4] for i in range(views)],
        "elevation": [ELEVATION[i % 4] for i in range(views)],
        "draws": {"t": torch.tensor(t), "noise": draw(name, "noise", *shape), **draws},
    }


def steps(name, count, views):
    """The draws of `count` inversion steps, [count, views, C, h, w]."""
    return draw(name, "step_noise", count, views, network.CHANNELS, network.SIZE, network.SIZE)


# ------------------------------------------------------------------------------------------ from a case to a gradient


def view_by_view(case, function):
    """Methods whose timestep is one for all views are run for each view alone: function(row) -> [1, C, h, w]."""

    def row(b):
        texts = {name: value[b : b + 1] for name, value in case["texts"].items()}
        times = {name: int(value[b]) for name, value in case["draws"].items() if value.ndim == 1}
        noise = case["draws"]["noise"][b : b + 1]
        inner = case["draws"]["step_noise"][:, b : b + 1] if "step_noise" in case["draws"] else None
        return {"x0": case["x0"][b : b + 1], "texts": texts, "noise": noise, "step_noise": inner, **times}

    return torch.cat([function(row(b)) for b in range(case["views"])])


def run(case):
    """The gradient [B, C, h, w] of a case (for `student_training` that of the student's output)."""
    method, set_, levels = case["method"], case["settings"], LEVELS[case["levels"]]
    d, texts, camera, x0 = case["draws"], case["texts"], case["camera"], case["x0"]
    common = (prior(), levels, x0, d["t"], d["noise"], texts)
    if method == "cds":
        return derive.cds(*common[:4], d["n"], d["noise"], texts, camera=camera, **set_)
    if method == "fsd":
        rate = set_.get("refresh", 0.0)
        fixed = derive.refreshed(d["noise"], d["refreshing"], rate) if rate else d["noise"]
        options = {name: value for name, value in set_.items() if name != "refresh"}
        return derive.fsd(*common[:4], fixed, texts, fresh=d.get("fresh"), camera=camera, **options)
    if method == "fsd_run":
        return derive.fsd_run(prior(), levels, x0, d["noise"], texts, set_["omega"], int(d["t"][0]))
    if method == "asd":
        pairs = zip(d["t"].tolist(), d["share"].tolist(), strict=True)
        later = torch.tensor([derive.shifted(t, set_["least"], share, eta=set_["eta"]) for t, share in pairs])
        options = {name: value for name, value in set_.items() if name not in ("least", "eta")}
        return derive.asd(*common[:4], later, d["noise"], texts, camera=camera, **options)
    if method == "ism":

        def one(r):
            steps = {"step_noise": r["step_noise"]}
            return derive.ism(
                prior(), levels, r["x0"], r["t"], r["s"], r["noise"], r["texts"], camera=None, **steps, **set_
            )

        return view_by_view(case, one)
    if method == "sdi":
        return view_by_view(
            case,
            lambda r: derive.sdi(
                prior(), levels, r["x0"], r["t"], r["delta"], r["step_noise"], r["texts"], camera=None, **set_
            ),
        )
    if method == "dsd":
        options = {name: value for name, value in set_.items() if name not in ("least", "floor")}

        def one(r, share):
            later = derive.shifted(r["t"], set_["least"], share, floor=set_["floor"])
            return derive.dsd(prior(), levels, r["x0"], r["t"], later, r["noise"], r["texts"], **options)

        shares = iter(d["share"].tolist())
        return view_by_view(case, lambda r: one(r, next(shares)))
    if method == "vsd":
        return derive.vsd(prior(), student(), levels, x0, d["t"], d["noise"], texts, camera, **set_)
    if method == "student_training":
        return derive.student_training(student(), levels, x0, d["t"], d["noise"], texts, camera, **set_)[1]
    if method == "rfds":
        return derive.rfds(*common, draws=d.get("weighting"), camera=camera, **set_)
    names = ("sds", "ssd", "csd", "csd_released", "nfsd", "bridge", "rfds_rev")
    return {name: getattr(derive, name) for name in names}[method](*common, camera=camera, **set_)


def expected(case):
    """The gradient of a case, without autograd."""
    with torch.no_grad():
        return run(case)


# --------------------------------------------------------------------------------------------------------- the cases

T1, T3, T4 = (700,), (60, 420, 979), (60, 420, 700, 979)
TEXTS = (("", {}), ("-negative", {"negative": True}), ("-perp", {"perp": True, "negative": True}))


def plain_methods():
    """SDS, SSD, plain CSD and NFSD."""
    made = []
    for end, how in TEXTS:
        made += [
            case(f"sds-1{end}", "sds", {"omega": 101.0}, T1, **how),
            case(f"sds-4{end}", "sds", {"omega": 21.0}, T4, 0.5, **how),
            case(f"sds-adaptive{end}", "sds", {"omega": 7.5, "variance_reduction": "adaptive"}, T4, **how),
            case(f"sds-rescale{end}", "sds", {"omega": 50.0, "rescale": 0.5}, T4, **how),
            case(f"ssd-1{end}", "ssd", {"omega": 7.5, "limit": 200}, (120,), **how),
            case(f"ssd-4{end}", "ssd", {"omega": 7.5, "limit": 200}, (40, 200, 201, 800), 0.5, **how),
            case(f"ssd-zero{end}", "ssd", {"omega": 7.5, "limit": 0}, (40, 200, 201, 800), 0.5, **how),
            case(f"csd-1{end}", "csd", {"omega": 40.0}, T1, **how),
            case(f"csd-4{end}", "csd", {"omega": 40.0, "weighting": "uniform"}, T4, 0.5, **how),
        ]
        if "negative" in how:
            made += [
                case(f"nfsd-1{end}", "nfsd", {"omega": 7.5}, (150,), **how),
                case(f"nfsd-4{end}", "nfsd", {"omega": 7.5}, (50, 199, 200, 900), 0.5, **how),
            ]
    for kind in ("uniform", "fantasia3d", "snr", "flow", "pf-ode"):
        made.append(case(f"sds-weight-{kind}", "sds", {"omega": 7.5, "weighting": kind}, (0, 1, 420, 979)))
    mvdream = {"omega": 50.0, "rescale": 0.5, "group": 4, "weighting": "snr"}
    for views, t in ((4, 620), (8, 150)):
        made.append(case(f"sds-mvdream-{views}", "sds", mvdream, (t,) * views, 0.2, negative=True, camera=True))
    made.append(case("sds-mvdream-floor", "sds", {**mvdream, "floor": 1e-8}, (620,) * 4, negative=True, camera=True))
    return made


def csd_released():
    """The two released stages of CSD at several steps of 10,000."""
    made = []
    for stage, step in (("if", 0), ("if", 2000), ("if", 8000), ("sd", 0), ("sd", 4000), ("sd", 10000)):
        cond, uncond, null = derive.csd_scales(stage, step)
        settings = {"cond": cond, "uncond": uncond, "null": null, "perp": 3.0 if stage == "if" else 0.0}
        settings |= {"weighting": "uniform" if stage == "if" else "sds", "normalised": stage == "if"}
        how = {"negative": True, "perp": stage == "if"}
        t = T4 if stage == "if" and step < 5000 else (30, 150, 300, 490)
        made.append(case(f"csd-{stage}-{step}", "csd_released", settings, t, step / 10000, **how))
        if step:
            made.append(case(f"csd-{stage}-{step}-one", "csd_released", settings, t[2:3], step / 10000, negative=True))
            made.append(case(f"csd-{stage}-{step}-empty", "csd_released", settings, t[1:], step / 10000))
    return made


def cds():
    """CDS at three progresses of the coarse stage, with all weights, with and without rescale and clip."""
    made = []
    for progress in (0.0, 0.4, 1.0):
        omega, near, clip = derive.cds_schedule(progress)
        times = [derive.cds_times(near, jump) for jump in (100, 187, 299)]
        t, n = zip(*times, strict=True)
        for kind in ("uniform", "sds", "fantasia3d"):
            for rescale in (0.0, 0.5):
                settings = {"omega": omega, "weighting": kind, "rescale": rescale}
                name = f"cds-{kind}-{rescale}-{progress}"
                negative = kind != "uniform"
                made.append(case(name, "cds", settings, t, progress, negative=negative, n=torch.tensor(n)))
        settings = {"omega": omega, "weighting": "uniform", "rescale": 0.5, "clip": clip}
        made.append(case(f"cds-clip-{progress}", "cds", settings, t, progress, n=torch.tensor(n)))
        settings = {"omega": omega, "weighting": "sds", "rescale": 0.5, "floor": 1e-8, "beside": 1e-9}
        made.append(case(f"cds-floor-{progress}", "cds", settings, t[:1], progress, n=torch.tensor(n[:1])))
        how = {"perp": True, "n": torch.tensor(n)}
        made.append(case(f"cds-perp-{progress}", "cds", {"omega": omega, "rescale": 0.5}, t, progress, **how))
    for made_case in made:
        made_case["draws"]["noise"] = made_case["draws"]["noise"][:1].expand(made_case["views"], -1, -1, -1)
    return made


def fsd():
    """FSD and CFD: fixed noise, a share of fresh noise, the refresh, the weights, and DDIM by descent."""
    made = []
    fields = ("fresh", "refreshing")
    size = (network.CHANNELS, network.SIZE, network.SIZE)
    for end, how in TEXTS:
        for progress, t in ((0.0, 980), (0.5, 500), (0.9, 116)):
            for kind, settings in (
                ("fixed", {"weighting": "snr"}),
                ("pf-ode", {"weighting": "pf-ode"}),
                ("beta", {"weighting": "sds", "sqrt_beta": 0.8}),
                ("refresh", {"weighting": "uniform", "refresh": 0.01}),
            ):
                name = f"fsd-{kind}-{progress}{end}"
                extra = {field: draw(name, field, 3, *size) for field in fields}
                made.append(case(name, "fsd", {"omega": 7.0, **settings}, (t,) * 3, progress, **how, **extra))
        made.append(case(f"fsd-run{end}", "fsd_run", {"omega": 7.0}, (12,), **how))
    return made


def asd():
    """ASD at three ranges of t; the last view of the second case is where the clipped shift matters."""
    made = []
    share = torch.tensor([0.93, 0.27, 0.64, 0.5], dtype=torch.float64)
    for end, how in TEXTS:
        for progress, least, t in ((0.0, 500, (500, 640, 777, 980)), (0.5, 20, (33, 420, 700, 960))):
            settings = {"omega": 7.5, "least": least, "eta": 0.1, "factor": 0.5}
            made.append(case(f"asd-4-{progress}{end}", "asd", settings, t, progress, **how, share=share))
        settings = {"omega": 7.5, "weighting": "uniform", "least": 20, "eta": 0.1}
        made.append(case(f"asd-1{end}", "asd", settings, (960,), **how, share=share[2:3]))
    settings = {"omega": 7.5, "least": 20, "eta": 0.1}
    how = {"negative": True, "camera": True, "share": share[:1].expand(4)}
    made.append(case("asd-mvdream", "asd", settings, (700,) * 4, **how))
    return made


def ism():
    """ISM: the released program, the reversed guidance, the noise in the steps, few steps, no fixed number of steps."""
    made = []
    times = {"t": (81, 301, 981), "s": (1, 221, 881)}
    for end, how in TEXTS:
        for kind, settings in (
            ("released", {}),
            ("reversed", {"denoise": 1.5}),
            ("eta", {"eta": 0.3}),
            ("two", {"steps": 2}),
            ("free", {"steps": None, "stride": 150, "eta": 0.2, "denoise": 2.0}),
        ):
            name = f"ism-{kind}{end}"
            extra = {"s": torch.tensor(times["s"]), "step_noise": steps(name, 6, 3)}
            made.append(case(name, "ism", {"omega": 7.5, **settings}, times["t"], 0.5, **how, **extra))
        extra = {"s": torch.tensor([401])}
        made.append(case(f"ism-1{end}", "ism", {"omega": 7.5}, (481,), **how, **extra))
    return made


def sdi():
    """SDI: the program, the noise remapped to t, and the first call of the network at time 0."""
    made = []
    for end, how in TEXTS:
        for kind, settings in (("released", {}), ("remapped", {"remapped": True}), ("zero", {"asked_first": 0})):
            name = f"sdi-{kind}{end}"
            extra = {"delta": torch.tensor([0, 57, 99]), "step_noise": steps(name, 11, 3)}
            settings = {"omega": 7.5, "omega_inversion": -7.5, "eta": 0.3, **settings}
            made.append(case(name, "sdi", settings, (250, 640, 980), 0.4, **how, **extra))
        name = f"sdi-1{end}"
        extra = {"delta": torch.tensor([13]), "step_noise": steps(name, 11, 1)}
        made.append(case(name, "sdi", {"omega": 8.5, "omega_inversion": 0.0, "eta": 0.0}, (101,), **how, **extra))
    return made


def vsd():
    """VSD, ESD, the velocity student, and what trains the student."""
    made = []
    for end, how in TEXTS:
        for kind, settings in (
            ("vsd", {"scale": 1.0}),
            ("esd", {"scale": 0.5}),
            ("lora2", {"scale": 2.0, "prediction": "v"}),
            ("vsd-v", {"scale": 1.0, "prediction": "v", "weighting": "uniform"}),
        ):
            t = T3 if kind != "lora2" else T1
            made.append(case(f"{kind}{end}", "vsd", {"omega": 7.5, **settings}, t, 0.1, camera=True, **how))
    for kind in ("epsilon", "v"):
        for dropped in (False, True):
            name = f"student-{kind}{'-dropped' if dropped else ''}"
            settings = {"prediction": kind, "dropped": dropped}
            made.append(case(name, "student_training", settings, (0, 333, 999), camera=True))
    return made


def others():
    """SDS-Bridge, RFDS, RFDS-Rev and DSD."""
    made = []
    for end, how in TEXTS[:2]:
        for stage, weighting, progress in ((1, "sds", 0.4), (2, "uniform", 0.9), (2, "sds", 0.9)):
            settings = {"stage": stage, "omega": 100.0 if stage == 1 else 1.0, "weighting": weighting}
            made.append(case(f"bridge-{stage}-{weighting}{end}", "bridge", settings, T3, progress, **how))
    for end, how in TEXTS:
        flow = {"levels": "rf", **how}
        t = (20, 500, 970)
        made += [
            case(f"rfds-1{end}", "rfds", {"omega": 100.0}, (500,), 0.1, **flow),
            case(f"rfds-3{end}", "rfds", {"omega": 50.0}, t, 0.6, **flow),
            case(f"rfds-sigmoid{end}", "rfds", {"omega": 50.0}, t, 0.6, **flow, weighting=draw("rfds", "weighting", 3)),
            case(f"rfds-rev{end}", "rfds_rev", {"omega": 50.0, "step": "sigma"}, t, 0.6, **flow),
            case(f"rfds-rev-one{end}", "rfds_rev", {"omega": 50.0, "step": "one"}, t, 0.6, **flow),
            case(f"sds-flow{end}", "sds", {"omega": 50.0, "weighting": "flow"}, t, **flow),
        ]
        for progress, floor, t in ((0.0, 1, (980, 400, 985)), (0.9, 10, (320, 350, 700))):
            share = torch.tensor([0.8, 0.35, 0.99], dtype=torch.float64)
            for reference in ("conditional", "guided") if "perp" in how else ("conditional",):
                settings = {"omega": 7.5, "least": 320, "floor": floor, "reference": reference}
                name = f"dsd-{reference}-{progress}{end}"
                made.append(case(name, "dsd", settings, t, progress, **how, share=share))
    for made_case in made:
        if made_case["method"] == "dsd":
            made_case["draws"]["noise"] = made_case["draws"]["noise"][:1].expand(3, -1, -1, -1)
    return made


@cache
def cases():
    """All cases, in a fixed order."""
    groups = (plain_methods, csd_released, cds, fsd, asd, ism, sdi, vsd, others)
    return [made for group in groups for made in group()]
