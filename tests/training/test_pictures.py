"""Mirror images are renders of the mirrored scene, and depth pictures show how near things are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from renderer.scenes import cast

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Gaussians
from gsdistill.distillation.sds import SDS
from gsdistill.renderer.base import render
from gsdistill.renderer.maps import disparities, normal_pictures
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.viewpoints import orbit
from gsdistill.training.distiller import Distiller
from gsdistill.training.pictures import PictureSettings, mirrored, shown
from gsdistill.training.views import ViewSettings

BLACK = torch.zeros(3, 3)


def scene(seed: int = 0) -> Gaussians:
    """Forty Gaussians of all shapes, directions and colours."""
    generator = torch.Generator().manual_seed(seed)
    shape = {"means": (40, 3), "quats": (40, 4), "scales": (40, 3), "opacities": (40,), "sh": (40, 1, 3)}
    values = {name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in shape.items()}
    return Gaussians(**{**values, "means": 0.4 * values["means"], "scales": 0.5 * values["scales"] - 2.0})


def three_cameras():
    cameras = cast(orbit(3, 24, elevation=15.0), torch.float64)
    Ks = cameras.Ks.clone()
    Ks[:, 0, 2] += 2.5  # so that the middle of the picture is not on the axis
    return replace(cameras, Ks=Ks)


def test_a_mirror_image_is_what_mirrored_cameras_see_of_the_mirrored_scene():
    gaussians, cameras = scene(), three_cameras()
    across = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    turned = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)  # w x y z
    other = replace(gaussians, means=gaussians.means * across, quats=gaussians.quats * turned)
    found, seen_by = mirrored(render(gaussians, cameras, BLACK.double(), "reference"), cameras)
    truth = render(other, seen_by, BLACK.double(), "reference")
    for name in ("images", "alphas", "depths"):
        torch.testing.assert_close(getattr(found, name), getattr(truth, name), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen_by.azimuths, -cameras.azimuths)
    torch.testing.assert_close(torch.linalg.det(seen_by.viewmats), torch.ones(3, dtype=torch.float64))
    again, back = mirrored(found, seen_by)
    torch.testing.assert_close(back.viewmats, cameras.viewmats)
    torch.testing.assert_close(back.Ks, cameras.Ks)
    torch.testing.assert_close(again.images, found.images.flip(2))


def test_a_depth_picture_is_the_inverse_of_the_depth_where_something_is():
    """Two opaque plates, 2.2 and 4.4 before the camera: white and half as bright, between them black."""
    at = torch.tensor([[1.0, 0.55, 0.0], [-1.2, -1.1, 0.0]])
    one = torch.ones(2)
    plates = Gaussians(at, torch.eye(4)[:1].expand(2, 4), torch.full((2, 3), -1.6), 12 * one, torch.zeros(2, 1, 3))
    cameras = orbit(1, 96, elevation=0.0, distance=3.2, fov=60.0)
    out = render(plates, cameras, BLACK[:1])
    (picture,) = disparities(out)[..., 0]
    points = at @ cameras.viewmats[0, :3, :3].T + cameras.viewmats[0, :3, 3]
    pixels = points @ cameras.Ks[0].T
    near, far = (float(picture[int(y / z), int(x / z)]) for x, y, z in pixels)
    assert points[:, 2].tolist() == pytest.approx([2.2, 4.4])
    assert near == pytest.approx(1.0, abs=0.01) and far == pytest.approx(2.2 / 4.4, abs=0.01)
    assert picture.min() == 0 and 0 <= float(picture.max()) <= 1


def test_the_depth_picture_of_nothing_is_black_and_has_no_gradient():
    nothing = scene().each(lambda value: value.float())
    nothing = replace(nothing, opacities=torch.full((40,), -30.0, requires_grad=True))
    picture = disparities(render(nothing, orbit(2, 16), BLACK[:2]))
    assert torch.equal(picture, torch.zeros_like(picture))
    picture.sum().backward()
    assert torch.equal(nothing.opacities.grad, torch.zeros(40))


def test_shares_are_shares_of_the_steps_and_shares_of_zero_draw_nothing():
    cameras = three_cameras()
    out, generator = render(scene(), cameras, BLACK.double(), "reference"), torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert shown(out, cameras, PictureSettings(), generator) == (out, cameras)
    assert torch.equal(generator.get_state(), before)
    depth, flipped = disparities(out), disparities(mirrored(out, cameras)[0])
    grey, turned, both = 0, 0, 0
    for _ in range(1000):
        found, eyes = shown(out, cameras, PictureSettings(depth=0.2, flip=0.5), generator)
        assert (eyes is not cameras) == torch.equal(found.alphas, out.alphas.flip(2))
        is_grey = any(torch.equal(found.images, one.expand(-1, -1, -1, 3)) for one in (depth, flipped))
        grey, turned, both = grey + is_grey, turned + (eyes is not cameras), both + (is_grey and eyes is not cameras)
    assert 160 < grey < 240 and 450 < turned < 550 and 70 < both < 130  # four standard deviations or more


def test_a_step_shows_depth_or_normals_and_the_mirror_image_has_normals_of_its_own():
    cameras = three_cameras()
    out, generator = render(scene(), cameras, BLACK.double(), "reference"), torch.Generator().manual_seed(1)
    turned, seen_by = mirrored(out, cameras)
    plain = {"depth": disparities(out).expand(-1, -1, -1, 3), "normals": normal_pictures(out, cameras)}
    other = {"depth": plain["depth"].flip(2), "normals": normal_pictures(turned, seen_by)}
    counts = dict.fromkeys(("depth", "normals", "colours", "mirrored normals"), 0)
    for _ in range(1000):
        found, eyes = shown(out, cameras, PictureSettings(depth=0.3, normals=0.6, flip=0.5), generator)
        expected = plain if eyes is cameras else other
        kind = next((name for name, one in expected.items() if torch.equal(found.images, one)), "colours")
        counts[kind] += 1
        counts["mirrored normals"] += kind == "normals" and eyes is not cameras
    assert 240 < counts["depth"] < 360 and 540 < counts["normals"] < 660 and 60 < counts["colours"] < 140
    assert 240 < counts["mirrored normals"] < 360  # four standard deviations or more
    # mirrored at y = 0, a normal has the opposite y, which is the green of its picture
    seen, mirror = plain["normals"], other["normals"].flip(2)
    drawn = seen.amax(-1) > 0
    assert drawn.any(dim=(1, 2)).all() and torch.equal(drawn, mirror.amax(-1) > 0)
    torch.testing.assert_close(mirror[..., [0, 2]], seen[..., [0, 2]])
    torch.testing.assert_close(mirror[..., 1][drawn], (out.alphas[..., 0] - seen[..., 1])[drawn])


def test_shares_of_what_is_shown_beside_colours_are_at_most_all_steps():
    assert PictureSettings(depth=0.3, normals=0.7).normals == 0.7
    with pytest.raises(ConfigError, match=r"pictures.depth = 0.5 and pictures.normals = 0.6 are more than all steps"):
        PictureSettings(depth=0.5, normals=0.6)


class Watching(SDS):
    """SDS that keeps what it is asked."""

    def gradient(self, moment, state):
        seen.append(moment)
        return super().gradient(moment, state)


seen: list = []


def test_the_method_and_the_text_are_told_of_the_mirrored_view(prior):
    """Every step is mirrored: latents, alphas and cameras are of the mirror image, the step's pictures are not."""
    seen.clear()
    generator = torch.Generator().manual_seed(3)
    start = Ball(count=30).create("", generator)
    start = replace(start, means=start.means * torch.tensor([1.0, 0.3, 1.0]) + torch.tensor([0.0, 0.5, 0.0]))
    splat = GaussianScene(start, SceneSettings(), 3, torch.device("cpu"))
    views = ViewSettings(2, 8, pictures=PictureSettings(flip=1.0))
    run = Distiller(splat, prior, Watching(), prior.encode_text("", ""), views, 3, generator)
    for step, moment in zip(run, seen, strict=False):
        told = prior.encode(step.images.flip(2))
        torch.testing.assert_close(moment.views.latents, told.to(moment.views.latents))
        assert not torch.allclose(told, prior.encode(step.images))
    assert len(seen) == 3 and all(len({float(a) for a in one.views.cameras.azimuths}) == 2 for one in seen)
