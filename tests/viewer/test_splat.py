"""What a page is sent of a splat, against the definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gsdistill.renderer.reference import project
from gsdistill.scene.extent import UnitBall
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.viewer.splat import ROWS, UNIT, Splat, ball_of

EYE = (3.0, 0.5, 1.0)


def test_covariances_are_r_s2_rt(splat):
    gaussians = splat(50)
    _, covariances, _, _ = Splat.of(gaussians).arrays(EYE)
    rotation = Rotation.from_quat(gaussians.quats.double().numpy()[:, [1, 2, 3, 0]]).as_matrix()
    variances = np.exp(2 * gaussians.scales.double().numpy())
    expected = np.einsum("nij,nj,nkj->nik", rotation, variances, rotation)
    np.testing.assert_allclose(covariances[:50] * UNIT**2, expected, rtol=1e-4, atol=1e-7)


def test_size_multiplies_standard_deviations(splat):
    found = Splat.of(splat(20))
    np.testing.assert_allclose(found.arrays(EYE, size=1.5)[1], 2.25 * found.arrays(EYE)[1], rtol=1e-6)


def test_a_threshold_takes_the_opacity_of_those_below_it_alone(splat):
    gaussians = splat(200)
    whole, cut = (Splat.of(gaussians).arrays(EYE, threshold) for threshold in (0.0, 0.4))
    below = gaussians.opacities.sigmoid().numpy() < 0.4
    assert 0 < below.sum() < 200
    assert (cut[3][:200, 0] == np.where(below, 0, whole[3][:200, 0])).all()
    for before, after in zip(whole[:3], cut[:3], strict=True):
        assert (before == after).all()


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_colours_are_those_that_the_renderer_sees(splat, degree):
    gaussians = splat(40, degree)
    camera = look_at_origin(*(torch.tensor([value]) for value in (70.0, 20.0, 3.2, 40.0)), size=64)
    seen = project(gaussians, camera.viewmats[0], camera.Ks[0], 64, 64)
    eye = tuple((-camera.viewmats[0, :3, :3].T @ camera.viewmats[0, :3, 3]).tolist())
    expected = 255 * seen.colours.clamp(0, 1).numpy()
    assert len(expected) > 20
    assert np.abs(Splat.of(gaussians).colours(eye)[seen.index.numpy()] - expected).max() < 0.51


def test_another_ball_moves_scales_and_looks_along(splat):
    gaussians = splat(30, degree=2)
    centre, radius = torch.tensor([5.0, -7.0, 2.0]), 40.0
    far = replace(gaussians, means=gaussians.means * radius + centre, scales=gaussians.scales + np.log(radius))
    near, moved = Splat.of(gaussians).arrays(EYE), Splat.of(far, UnitBall((5.0, -7.0, 2.0), radius)).arrays(EYE)
    np.testing.assert_allclose(moved[0], near[0], atol=1e-4)
    np.testing.assert_allclose(moved[1], near[1], rtol=1e-4, atol=1e-5)
    assert np.abs(moved[2].astype(int) - near[2]).max() <= 1


def test_rows_are_filled_up_with_nothing(splat):
    arrays = Splat.of(splat(ROWS + 1)).arrays(EYE)
    assert {len(array) for array in arrays} == {2 * ROWS}
    assert all(not array[ROWS + 1 :].any() for array in arrays)


def test_the_widest_fit_half_precision_at_twice_the_size(splat):
    wide = replace(splat(5), scales=torch.full((5, 3), 50.0))
    with np.errstate(over="raise"):
        assert np.isfinite(Splat.of(wide).arrays(EYE, size=2.0)[1].astype(np.float16)).all()


def test_a_run_lies_in_the_unit_ball_whatever_flies_about(splat):
    gaussians = splat(500)
    gaussians.means[0], gaussians.opacities[1:6] = 1e6, -9.0
    gaussians.means[1:6] = 50.0  # too faint to be seen
    assert ball_of(gaussians) == UnitBall()


def test_another_scene_has_the_ball_of_what_can_be_seen(splat):
    gaussians = replace(splat(5000), means=splat(5000).means * 30 + torch.tensor([100.0, 0.0, -20.0]))
    ball = ball_of(gaussians)
    np.testing.assert_allclose(ball.centre, (100, 0, -20), atol=1.5)
    assert 28 < ball.radius < 32


def test_a_single_point_has_a_ball_too(splat):
    alone = replace(splat(1), means=torch.tensor([[9.0, 0.0, 0.0]]))
    assert ball_of(alone) == UnitBall((9.0, 0.0, 0.0), 1.0)


def test_what_is_shown_is_a_copy(splat):
    scene = splat(10)
    shown = Splat.of(scene)
    before = [shown.centers.copy(), shown.covariances.copy(), shown.opacities.copy(), shown.sh.clone().numpy()]
    for value in scene.tensors().values():
        value.add_(1.0)  # as an optimiser does while the page draws
    after = [shown.centers, shown.covariances, shown.opacities, shown.sh.numpy()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
