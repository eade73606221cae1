"""Pictures of normals: those of planes and spheres in closed form, and their derivatives."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from renderer.scenes import cast
from torch.autograd import gradcheck

from gsdistill.core.structs import Cameras, Gaussians, Render
from gsdistill.renderer.base import render
from gsdistill.renderer.maps import SOLID, normal_pictures, surface_points
from gsdistill.scene.viewpoints import orbit


def three_cameras(size: int = 48) -> Cameras:
    """Three views whose axes miss the middle of their pictures, in float64."""
    cameras = cast(orbit(3, size, elevation=25.0), torch.float64)
    Ks = cameras.Ks.clone()
    Ks[:, 0, 2] += 2.5
    Ks[:, 1, 2] -= 1.5
    return replace(cameras, Ks=Ks)


def rays(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the cameras stand [B 1 1 3], and the directions of the pixels' rays [B H W 3], of camera z 1."""
    place = torch.linalg.inv(cameras.viewmats)[:, :3, 3]
    row, column = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([column + 0.5, row + 0.5, torch.ones_like(row)], -1).double()
    return place[:, None, None], pixels @ (torch.linalg.inv(cameras.Ks).mT @ cameras.viewmats[:, :3, :3])[:, None]


def plane(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Camera z [B H W 1] and unit normals [B 1 1 3] of planes through the origin, alike for each camera and tilted."""
    normals = (torch.tensor([0.36, 0.48, -0.8], dtype=torch.float64) @ cameras.viewmats[:, :3, :3])[:, None, None]
    place, ray = rays(cameras)
    return -(place * normals).sum(-1, keepdim=True) / (ray * normals).sum(-1, keepdim=True), normals


def drawn(depths: torch.Tensor, alphas: torch.Tensor) -> Render:
    """A render of these mean depths and opacities [B H W 1]."""
    images, none = depths.expand(-1, -1, -1, 3), torch.zeros(len(depths), 0)
    return Render(images, alphas, depths * alphas, none[..., None].expand(-1, 0, 2), none.int())


def sphere_depths(cameras: Cameras, radius: float, hollow: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Camera z of the near side of a sphere, or of its far side, and 1 where it is seen, else 0."""
    place, ray = rays(cameras)
    a, b, c = ray.square().sum(-1), (ray * place).sum(-1), place.square().sum(-1) - radius**2
    root = (b.square() - a * c).clamp_min(0.0).sqrt()
    return ((-b + root if hollow else -b - root) / a)[..., None], (root > 0).double()[..., None]


def test_points_lie_behind_their_pixels():
    cameras = three_cameras()
    depths = 2.0 + torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    place, ray = rays(cameras)
    found = surface_points(depths, cameras)  # whose rotations are orthogonal as far as float32 goes
    torch.testing.assert_close(found, place + depths[..., None] * ray, rtol=0, atol=1e-6)


@pytest.mark.parametrize("opacity", [1.0, 0.7])
def test_a_plane_has_its_normal_everywhere(opacity):
    cameras = three_cameras()
    depths, normals = plane(cameras)
    assert depths.min() > 1 and depths.max() > 4
    found = normal_pictures(drawn(depths, torch.full_like(depths, opacity)), cameras)
    torch.testing.assert_close(found, (0.5 * (normals + 1) * opacity).expand_as(found), rtol=0, atol=1e-6)


@pytest.mark.parametrize("hollow", [False, True])
def test_a_sphere_has_the_normals_of_its_radii(hollow):
    cameras = three_cameras(256)
    depths, alphas = sphere_depths(cameras, 0.8, hollow)
    found = normal_pictures(drawn(depths, alphas), cameras)
    normals = surface_points(depths[..., 0], cameras) / (-0.8 if hollow else 0.8)
    _, ray = rays(cameras)
    facing = -(normals * ray).sum(-1) / ray.norm(dim=-1) > 0.3  # at the rim neighbours lie far from each other
    inside = alphas[..., 0] > 0
    assert facing[inside].float().mean() > 0.8
    torch.testing.assert_close(found[facing & inside], 0.5 * (normals + 1)[facing & inside], rtol=0, atol=4e-3)
    assert torch.equal(found[~inside], torch.zeros_like(found[~inside]))
    assert ((2 * found[inside] - 1) * ray[inside]).sum(-1).max() < 0  # each faces its camera, also at the rim


def test_a_ball_of_gaussians_has_the_normals_of_a_sphere():
    """3,000 flat discs on a sphere: 4.3 degrees off on the mean, since neighbours' depths differ by their blending."""
    count = torch.arange(3000, dtype=torch.float64) + 0.5
    height, turn = 1 - 2 * count / 3000, math.pi * (1 + 5**0.5) * count
    out = torch.stack([turn.cos() * (1 - height**2).sqrt(), turn.sin() * (1 - height**2).sqrt(), height], -1)
    quats = torch.stack([1 + height, -out[:, 1], out[:, 0], torch.zeros_like(height)], -1)  # turns z to the radius
    scales = torch.tensor([0.05, 0.05, 0.001]).log().expand(3000, 3)
    ball = Gaussians(0.8 * out.float(), quats.float(), scales, torch.full((3000,), 6.0), torch.zeros(3000, 1, 3))
    cameras = orbit(4, 96, elevation=20.0)
    found = normal_pictures(render(ball, cameras, torch.zeros(4, 3)), cameras)
    depths, alphas = sphere_depths(cast(cameras, torch.float64), 0.8, False)
    points = surface_points(depths[..., 0], cast(cameras, torch.float64))
    _, ray = rays(cast(cameras, torch.float64))
    facing = (alphas[..., 0] > 0) & (-(points / 0.8 * ray).sum(-1) / ray.norm(dim=-1) > 0.3)
    cosines = ((2 * found.double() - 1) * points / 0.8).sum(-1)[facing]
    assert float(torch.rad2deg(cosines.clamp(-1, 1).acos()).mean()) < 5
    assert torch.equal(found[:, 0, 0], torch.zeros(4, 3))


def test_what_is_not_solid_is_black_and_no_neighbour():
    """A plane under a mask of any shape: the pixels left are as without it, single ones are black."""
    cameras = three_cameras(24)
    depths, _ = plane(cameras)
    alphas = (torch.rand(depths.shape, generator=torch.Generator().manual_seed(2)) > 0.5).double() * 0.5 + 0.4
    garbage = torch.where(alphas > SOLID, depths, 77.0)
    found, whole = (normal_pictures(drawn(d, a), cameras) for d, a in ((garbage, alphas), (depths, 0.9 + 0 * alphas)))
    solid = torch.nn.functional.pad((alphas > SOLID)[..., 0], (1, 1, 1, 1))
    beside = solid[:, 1:-1, :-2] | solid[:, 1:-1, 2:]
    above = solid[:, :-2, 1:-1] | solid[:, 2:, 1:-1]
    left = solid[:, 1:-1, 1:-1] & beside & above
    assert 0.2 < left.double().mean() < 0.45
    torch.testing.assert_close(found[left], whole[left])
    assert torch.equal(found[~left], torch.zeros_like(found[~left]))


def test_the_derivatives_are_those_of_finite_differences():
    cameras = cast(orbit(2, 5, elevation=25.0), torch.float64)
    random = torch.Generator().manual_seed(4)
    depths = 2.0 + torch.rand(2, 5, 5, 1, generator=random, dtype=torch.float64)
    alphas = torch.rand(2, 5, 5, 1, generator=random, dtype=torch.float64)
    alphas = torch.where((alphas - SOLID).abs() < 0.05, 0.9, alphas)
    given = depths.requires_grad_(), alphas.requires_grad_()
    assert gradcheck(lambda d, a: normal_pictures(drawn(d, a), cameras), given)


def test_lonely_pixels_have_no_gradient_that_is_not_finite():
    cameras = cast(orbit(1, 5), torch.float64)
    alphas = torch.zeros(1, 5, 5, 1, dtype=torch.float64)
    alphas[0, 2, 2] = 0.9
    depths = torch.full_like(alphas, 3.0).requires_grad_()
    normal_pictures(drawn(depths, alphas.requires_grad_()), cameras).sum().backward()
    assert torch.equal(depths.grad, torch.zeros_like(depths)) and torch.equal(alphas.grad, torch.zeros_like(alphas))
