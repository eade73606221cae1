"""What every world promises: prompts that come back, and one truth, whether it is drawn, measured or sampled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsdistill.core.errors import ConfigError, PromptError
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.registry import names
from gsdistill.worlds.base import world_named
from objects import known_world

every_world = pytest.mark.parametrize("name", names("gsdistill.worlds"))


def some(world, count=6):
    """Objects of the world in colours that differ from part to part."""
    colors, layouts = [*world.palette], world.layouts()
    picked = [layouts[place] for place in np.linspace(0, len(layouts) - 1, count).astype(int)]
    return [world.things(one, colors[i % len(colors) :] + colors) for i, one in enumerate(picked)]


@every_world
def test_a_caption_is_a_prompt_of_its_object(name):
    world = world_named(name)
    for layout in world.layouts():
        things = world.things(layout, [*world.palette])
        assert layout in world.meant(things)
        assert world.agrees(things, world.parse(world.caption(things)))
        assert world.parse(world.caption(things)) == things
        assert world.parse(world.normalised(f"  {world.caption(things).upper()}!")) == things


@every_world
def test_an_unknown_word_is_answered_with_what_is_near(name):
    world = world_named(name)
    shape = some(world)[0][0].shape
    with pytest.raises(PromptError, match=f"Did you mean '{shape}'"):
        world.parse(f"a red {shape}{shape[-1]}")
    with pytest.raises(PromptError, match="the object of 'xyzzy' is not known"):
        world.known("xyzzy")


@every_world
def test_its_surface_is_where_its_distance_is_nothing(name):
    world = known_world(name)
    for things in some(world):
        layout = world.meant(things)[0]
        points = world.surface(layout, 500, np.random.default_rng(0))
        assert points.shape == (500, 3) and points.norm(dim=1).max() <= 1.0
        assert world.distance(layout, points).abs().max() < 1e-5
        assert float(world.distance(layout, torch.tensor([[0.0, 0.0, 3.0]]))) > 1.5
        assert world.is_measurable(layout)


@every_world
def test_its_pictures_show_its_surface(name):
    """Points of the surface fall on pixels that something covers, and where a ray stays outside nothing does."""
    world, cameras = known_world(name), orbit(3, 48)
    for things in some(world, 3):
        layout = world.meant(things)[0]
        _, alpha = world.pictures(things, cameras, torch.zeros(3, 3), supersample=8)
        points = world.surface(layout, 400, np.random.default_rng(1)).float()
        local = torch.einsum("bij,nj->bni", cameras.viewmats[:, :3, :3], points) + cameras.viewmats[:, None, :3, 3]
        pixels = torch.einsum("bij,bnj->bni", cameras.Ks, local / local[..., 2:])[..., :2].long()
        near = torch.nn.functional.max_pool2d(alpha[..., 0], 3, 1, 1)  # the edge may lie between a pixel's rays
        hit = torch.stack([near[b, pixels[b, :, 1], pixels[b, :, 0]] for b in range(3)])
        assert hit.min() > 0
        away = torch.linspace(2.0, 5.0, 101)
        for b in range(3):
            row, column = torch.nonzero(alpha[b, ..., 0] == 0, as_tuple=True)
            pixel = torch.stack([column + 0.5, row + 0.5, torch.ones(len(row))], dim=1)
            ray = torch.linalg.solve(cameras.Ks[b], pixel.T).T[:, None] * away[:, None]
            world_points = (ray - cameras.viewmats[b, :3, 3]) @ cameras.viewmats[b, :3, :3]
            assert (
                world.distance(layout, world_points.reshape(-1, 3)).min() > -0.02
            )  # a pixel has nine rays, not this one


@every_world
def test_pictures_are_the_colours_of_the_buffers_over_the_background(name):
    world, cameras = known_world(name), orbit(2, 24)
    (things,) = some(world, 1)
    buffers = world.trace(world.meant(things)[0], cameras, 3)
    white, alpha = world.pictures(things, cameras, torch.ones(2, 3))
    black, _ = world.pictures(things, cameras, torch.zeros(2, 3))
    torch.testing.assert_close(alpha[..., 0], buffers.coverage.sum(1))
    torch.testing.assert_close(white - black, (1 - alpha).expand(-1, -1, -1, 3))
    expected = sum(buffers.shade[:, p, ..., None] * color for p, color in enumerate(world.colors(things)))
    fixed = 0 if buffers.fixed is None else buffers.fixed.movedim(1, -1)
    torch.testing.assert_close(black, expected + fixed)


def test_a_world_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"unknown world 'shape'\. Did you mean 'shapes'"):
        world_named("shape")
