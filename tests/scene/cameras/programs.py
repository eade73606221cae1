"""How released programs draw their cameras, written anew in numpy, and how 10,000 of theirs are compared with ours.

Views of one step hang together, so statistics of a whole step (largest, spread, smallest gap) are compared beside each
view alone: programs that draw views alike but not steps would differ.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.stats import ks_2samp

from gsdistill.scene.cameras.orbit import Orbit, span

SIZE, VIEWS = 32, 4
LEVEL = 1e-5  # of one comparison: all of this file, some 150, are wrong together with a chance of about 0.001
TURN = span(-180, 180)


def steps_of(views: int) -> int:
    """How many steps are drawn: those of 10,000 cameras, but at most 2,500."""
    return min(10_000 // views, 2_500)


def ours(settings: Orbit, views: int = VIEWS, seed: int = 1):
    """Angles, distances and fields of view, [steps, views] each, and where the axes of the cameras stand and point."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [settings.draw(views, SIZE, 0.0, generator) for _ in range(steps_of(views))]
    stacked = {
        "azimuth": [one.azimuths for one in drawn],
        "elevation": [one.elevations for one in drawn],
        "distance": [one.distances for one in drawn],
        "fov": [torch.rad2deg(2 * torch.atan(0.5 * SIZE / one.Ks[:, 0, 0])) for one in drawn],
    }
    found = {name: torch.stack(values).double().numpy() for name, values in stacked.items()}
    matrices = torch.stack([one.viewmats for one in drawn]).double().numpy()
    turns = matrices[..., :3, :3]
    found["position"] = -np.einsum("svji,svj->svi", turns, matrices[..., :3, 3])
    found["right"], found["forward"] = turns[..., 0, :], turns[..., 2, :]
    return found


def uniform(rng, ends, shape):
    return ends[0] + (ends[1] - ends[0]) * rng.random(shape)


def placed(azimuth, elevation, distance):
    a, e = np.radians(azimuth), np.radians(elevation)
    return distance[..., None] * np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1)


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def half_and_half(rng, ends, shape, sine: bool):
    """Elevations of one step: one coin for all of them."""
    if rng.random() < 0.5:
        return uniform(rng, ends, shape)
    low, high = (2 * (end + 90) / 180 - 1 if sine else math.sin(math.radians(end)) for end in ends)
    return np.degrees(np.arcsin(low + (high - low) * rng.random(shape)))


def threestudio(seed, elevation, azimuth, distance, fov, sine=False, quarters=0, views=VIEWS, perturb=(0.0, 0.0, 0.0)):
    """data/uncond.py, with batch_uniform_azimuth; ``quarters`` is Consistent3D's n_views."""
    rng, each = np.random.default_rng(seed), (steps_of(views), views)
    sectors = np.arange(views) % (quarters or views)
    found = {
        "elevation": np.stack([half_and_half(rng, elevation, views, sine) for _ in range(steps_of(views))]),
        "azimuth": azimuth[0] + (azimuth[1] - azimuth[0]) * (rng.random(each) + sectors) / (quarters or views),
        "distance": uniform(rng, distance, each),
        "fov": uniform(rng, fov, each),
    }
    position = placed(found["azimuth"], found["elevation"], found["distance"])
    position = position + perturb[0] * (2 * rng.random((*each, 3)) - 1)
    centre, up = (
        perturb[1] * rng.normal(size=(*each, 3)),
        np.array([0, 0, 1]) + perturb[2] * rng.normal(size=(*each, 3)),
    )
    forward = unit(centre - position)
    return {**found, "position": position, "forward": forward, "right": unit(np.cross(forward, up))}


def mvdream(seed, elevation, azimuth, distance, fov, groups=2, views=4):
    """The cameras of ScaleDreamer's MVDream (data/uncond_multiview.py): groups of four, each drawn alone."""
    steps = steps_of(groups * views)
    rng, each = np.random.default_rng(seed), (steps, groups)
    lens = uniform(rng, fov, each)
    found = {
        "elevation": np.stack([half_and_half(rng, elevation, groups, sine=True) for _ in range(steps)]),
        "distance": uniform(rng, distance, each) / np.tan(np.radians(lens) / 2),
        "fov": lens,
    }
    found = {name: values.repeat(views, 1) for name, values in found.items()}
    places = ((rng.random(each)[..., None] + np.arange(views)) / views).reshape(steps, -1)
    return {**found, "azimuth": azimuth[0] + (azimuth[1] - azimuth[0]) * places}


def luciddreamer(seed, polar, azimuth, distance, fov, gamma, jitter):
    """rand_poses and GenerateRandomCameras of scene/dataset_readers.py, for a step of four; the front is +y there."""
    rng, each = np.random.default_rng(seed), (steps_of(VIEWS), VIEWS)

    def gathered(ends, power):
        side = np.where(rng.random(each) > 0.5, -1.0, 1.0) * rng.random(each) ** power
        return (ends[0] + ends[1]) / 2 + side * (ends[1] - ends[0]) / 2

    radius, theta, phi = gathered(distance, 1), gathered(polar, gamma), gathered(azimuth, gamma)
    found = {"azimuth": phi, "elevation": 90 - theta, "distance": radius}
    found["fov"] = np.degrees(uniform(rng, fov, (steps_of(VIEWS), 1)).repeat(VIEWS, 1))
    centre = placed(phi, 90 - theta, radius) + jitter[0] * (rng.random((*each, 3)) - 0.5)
    return {**found, "position": centre, "forward": unit(jitter[1] * rng.normal(size=(*each, 3)) - centre)}


def features(cameras):
    """What is compared: each value of the first and the last view, and what the views of a step do together."""
    for name in ("azimuth", "elevation", "distance", "fov"):
        values = cameras[name]
        yield f"{name} of the first", values[:, 0]
        if values.shape[1] == 1:
            continue
        yield f"{name} of the last", values[:, -1]
        yield f"spread of {name}", values.max(1) - values.min(1)
        yield f"least {name}", values.min(1)
    if cameras["azimuth"].shape[1] > 1:
        yield "least gap", np.diff(np.sort(cameras["azimuth"], 1), axis=1).min(1)
    yield "size of the object", (cameras["distance"] * np.tan(np.radians(cameras["fov"]) / 2))[:, 0]


def axes(cameras):
    """How far a camera stands from where it is told to be, and how its axes pass the origin and the vertical."""
    told = placed(cameras["azimuth"], cameras["elevation"], cameras["distance"])
    yield "shift", np.linalg.norm(cameras["position"] - told, axis=-1).ravel()
    yield "shift of x", (cameras["position"] - told)[..., 0].ravel()
    yield "miss", np.linalg.norm(np.cross(cameras["position"], cameras["forward"]), axis=-1).ravel()
    if "right" in cameras:
        yield "roll", cameras["right"][..., 2].ravel()


def differing(one, other, what=features):
    """The features whose distributions differ, with their p values."""
    pairs = ((name, first, second) for (name, first), (_, second) in zip(what(one), what(other), strict=True))
    test: Any = ks_2samp  # its result has no type
    p = {name: test(first.round(4), second.round(4)).pvalue for name, first, second in pairs}  # float32 and float64
    return {name: value for name, value in p.items() if value < LEVEL}
