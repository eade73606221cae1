"""Gaussians whose numbers have gone wrong: no crash, no unbounded memory, and the others look as if they were alone."""

from __future__ import annotations

import math
import resource
from dataclasses import replace

import pytest
import torch
from renderer.scenes import ball, everything, views

from gsdistill.core.structs import Gaussians
from gsdistill.renderer.base import render

EVIL = [math.nan, math.inf, -math.inf, 1e30, -1e30]
UNSEEN = [("means", v) for v in EVIL] + [(name, math.nan) for name in ("scales", "opacities", "quats")]
UNSEEN += [("scales", math.inf), ("scales", 1e30), ("opacities", -math.inf), ("opacities", -1e30), ("quats", 0.0)]


def spoilt(gaussians: Gaussians, name: str, value: float, rows: slice) -> Gaussians:
    """The scene with one number of some Gaussians replaced, of quaternions all four where it is zero."""
    changed = getattr(gaussians, name).clone()
    changed.view(len(gaussians), -1)[rows, slice(None) if value == 0 else slice(1)] = value
    return replace(gaussians, **{name: changed})


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("name", "value"), UNSEEN)
def test_what_has_no_place_size_or_opacity_is_not_drawn(name, value, backend):
    scene, cameras, grey = ball(30), views(2), torch.full((2, 3), 0.5)
    others = scene.each(lambda tensor: tensor[1:])
    found, alone = (render(g, cameras, grey, backend=backend) for g in (spoilt(scene, name, value, slice(1)), others))
    assert not found.radii[:, 0].any()
    torch.testing.assert_close(found.images, alone.images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities"])
@pytest.mark.parametrize("value", EVIL)
def test_a_whole_scene_gone_wrong_is_rendered_and_differentiated_in_bounded_memory(name, value):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = everything(spoilt(ball(2000), name, value, slice(None)), views(3), "cpu")
    assert {key: len(tensor) for key, tensor in found.items()}["images"] == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    if name == "means" or math.isnan(value):
        assert not found["radii"].any() and not any(tensor.any() for key, tensor in found.items() if key[:2] == "d_")


def test_gaussians_as_wide_as_the_screen_cost_a_pair_for_each_tile_at_most():
    """Scales grow, pairs do not: 27 x 20 pixels are 4 x 2 tiles."""
    from gsdistill.renderer import cpu

    seen = []
    original = cpu.bins_of

    def counting(*inputs):
        seen.append(original(*inputs))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "bins_of", counting)
        for size in (0.1, 1e3, 1e12):
            render(ball(500, size=size), views(3), torch.zeros(3, 3), backend="cpu")
    assert all(len(bins["ids"]) <= 500 * 3 * 8 for bins in seen)
