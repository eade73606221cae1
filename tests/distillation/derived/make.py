"""Writes numbers.npz: what the derivations give, so that a later change of them is seen.

    PYTHONPATH=tests python -m distillation.derived.make           # writes the file
    PYTHONPATH=tests python -m distillation.derived.make --check   # compares with the file

A gradient is kept as 32 numbers a view: its sum, its norm, 22 of its elements and 8 inner products with random
vectors. `digest` makes them; the whole gradient is `cases.expected(case)`.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
import torch
from distillation.derived import cases, derive, surface

FILE = Path(__file__).with_name("numbers.npz")
KINDS = ("sds", "uniform", "fantasia3d", "snr", "flow", "pf-ode")
TIMES = (0, 1, 20, 250, 500, 980, 998)
AZIMUTHS = (0, 30, 89, 90, 135, 180, 225, 300, -45, 400)
WORLD = ((0.0, 0.0), (33.0, 17.0), (-120.0, -8.0), (359.0, 60.0), (181.0, -45.0))
FLOW = {"omega": 50.0, "weighting": "flow"}
CAMERAS = (*((azimuth, 10.0) for azimuth in AZIMUTHS), (10.0, 61.0), (10.0, 60.0))


def digest(name, gradient):
    """[B, 32] of a gradient [B, C, h, w]: sum, norm, 22 elements, 8 inner products divided by the root of the size."""
    flat = gradient.reshape(len(gradient), -1).numpy()
    chance = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(b"digest")])
    places = chance.choice(flat.shape[1], 22, replace=False)
    probes = flat @ chance.standard_normal((flat.shape[1], 8)) / np.sqrt(flat.shape[1])
    return np.column_stack([flat.sum(1), np.sqrt((flat**2).sum(1)), flat[:, places], probes])


def surface_numbers():
    """CFD's noise of three made-up views over one texture of 64 x 64, and the places of some directions."""
    chance = np.random.default_rng(77)
    textures, background = chance.standard_normal((6, 4, 64, 64, 4)), chance.standard_normal((4, 8, 8))
    found = {"directions": chance.standard_normal((24, 3))}
    for number, chart in enumerate(surface.CHARTS):
        place, depth = surface.square(found["directions"], chart)
        found[f"chart{number}"] = np.column_stack([place, depth])
    for number, (azimuth, bump) in enumerate(((20, 0.1), (35, 0.1), (200, 0.3))):
        points, opacity = surface.field(azimuth, bump)
        found[f"noise{number}"], found[f"count{number}"] = surface.surface_noise(points, opacity, textures, background)
    return {f"surface_{name}": value for name, value in found.items()}


def worldmap_numbers():
    """The first row of the crop of some cameras, from the world map of a 6 x 8 latent."""
    found = {}
    for theta in (180.0, 60.0):
        size = (4, int(180 / theta * 6) + 6, int(360 / theta * 8) + 8)
        buffer = derive.worldmap_buffer(cases.draw(f"worldmap-{theta:.0f}", "white", *size), 8, theta)
        crops = [derive.worldmap(buffer, azimuth, elevation, 6, 8, theta) for azimuth, elevation in WORLD]
        found[f"worldmap_{theta:.0f}"] = torch.stack([crop[:, 0, :] for crop in crops]).numpy()
    return {"worldmap_cameras": np.array(WORLD), **found}


def identities():
    """What must hold between the derivations: each entry is a largest relative difference, about 1e-12 or less."""
    by = {case["id"]: case for case in cases.cases()}
    found = {}

    def same(name, a, b):
        found[name] = float((a - b).abs().max() / b.abs().max())

    for name in ("fsd-run", "fsd-run-negative"):
        case = by[name]
        start = derive.noised(cases.LEVELS["vp"], case["x0"], case["draws"]["noise"], torch.tensor([12]))
        same(
            name,
            cases.expected(case),
            derive.ddim_run(cases.prior(), cases.LEVELS["vp"], start, case["texts"], 7.0, 12),
        )
    for end in ("", "-negative", "-perp"):
        case = by[f"rfds-3{end}"]
        same(f"rfds{end}", cases.expected(case), cases.expected({**case, "method": "sds", "settings": FLOW}))
        case = by[f"ssd-zero{end}"]
        same(f"csd{end}", cases.expected(case), cases.expected({**case, "method": "csd", "settings": {"omega": 7.5}}))
        case = by[f"csd-1{end}"]
        settings = {"cond": 40.0, "uncond": -40.0, "null": 0.0, "perp": 40.0, "weighting": "sds"}
        same(
            f"released{end}",
            cases.expected({**case, "method": "csd_released", "settings": settings}),
            cases.expected(case),
        )
    return found


def numbers():
    """Everything in the file."""
    made = cases.cases()
    rows = np.concatenate([digest(case["id"], cases.expected(case)) for case in made])
    times = torch.tensor(TIMES)
    weights = {
        f"weights_{name}": torch.stack([derive.weight(kind, levels, times).flatten() for kind in KINDS]).numpy()
        for name, levels in cases.LEVELS.items()
    }
    levels = {f"levels_{name}": torch.stack(pair)[:, times].numpy() for name, pair in cases.LEVELS.items()}
    views = [cases.text(name) for name in ("front", "side", "back", "overhead", "empty")]
    rules = [derive.perp_neg(*camera, *views) for camera in CAMERAS]
    shares = [(t, low, share) for t in (25, 320, 700, 960, 999) for low in (20, 320) for share in (0.15, 0.62, 0.97)]
    with torch.no_grad():
        anchor = made[1]
        told = [derive.each(anchor["x0"], 333), anchor["texts"]["positive"], cases.draw("anchor", "camera", 4, 16)]
        answers = [model(anchor["x0"], *told) for model in (cases.prior(), cases.student())]
    return {
        "ids": np.array([case["id"] for case in made]),
        "views": np.array([case["views"] for case in made]),
        "digests": rows,
        "networks": np.stack([digest("anchor", answer) for answer in answers]),
        "weight_kinds": np.array(KINDS),
        "weight_times": np.array(TIMES),
        **weights,
        **levels,
        "perp_neg_cameras": np.array(CAMERAS),
        "perp_neg_weights": np.array([rule[3] for rule in rules]),
        "perp_neg_texts": np.stack([torch.stack(rule[:3]).flatten(1)[:, :8].numpy() for rule in rules]),
        "shift_arguments": np.array(shares),
        "shift_later": np.array([derive.shifted(*row) for row in shares]),
        "cds_schedule": np.array([derive.cds_schedule(k / 8) for k in range(9)]),
        "csd_scales": np.array([[derive.csd_scales(stage, 1250 * k) for k in range(9)] for stage in ("if", "sd")]),
        **surface_numbers(),
        **worldmap_numbers(),
    }


def check(tolerance=1e-10):
    """Compares the derivations with the file; raises where they differ by more than `tolerance` of the largest."""
    with np.load(FILE) as kept:
        now = numbers()
        assert sorted(now) == sorted(kept.files)
        for name, value in now.items():
            if value.dtype.kind == "f":
                rows = value.reshape(len(value), -1), kept[name].reshape(len(value), -1)
                worst = np.abs(rows[0] - rows[1]).max(1) / np.maximum(np.abs(rows[1]).max(1), 1e-300)
                assert worst.max() <= tolerance, (name, int(worst.argmax()), float(worst.max()))
            else:
                assert (value == kept[name]).all(), name
    with torch.no_grad():
        for name, difference in identities().items():
            assert difference < 1e-11, (name, difference)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        check()
        print("equal")
    else:
        np.savez_compressed(FILE, **numbers())
        print(FILE, FILE.stat().st_size)
