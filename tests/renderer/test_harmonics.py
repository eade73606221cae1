"""The reference is scipy's complex harmonics, made real, and integrals over the sphere by a rule exact to degree 7."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from gsdistill.core.frames import FRAMES
from gsdistill.renderer.harmonics import sh_basis, sh_rotation
from gsdistill.scene.turn import frame_matrix

degrees = pytest.mark.parametrize("degree", [0, 1, 2, 3])
REFLECTION = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))


def turns() -> list[torch.Tensor]:
    """Four rotations, each also with a reflection."""
    rotations = torch.from_numpy(Rotation.random(4, random_state=0).as_matrix())
    return [*rotations, *(rotations @ REFLECTION)]


def sphere() -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights by which polynomials up to degree 7 are integrated exactly."""
    z, weights = np.polynomial.legendre.leggauss(4)
    phi = np.arange(8) * (2 * np.pi / 8)
    z, phi, weights = (
        part.ravel() for part in np.broadcast_arrays(z[:, None], phi, weights[:, None] * (2 * np.pi / 8))
    )
    radius = np.sqrt(1 - z * z)
    return torch.from_numpy(np.stack([radius * np.cos(phi), radius * np.sin(phi), z], 1)), torch.from_numpy(weights)


def reference_basis(directions: torch.Tensor, degree: int) -> torch.Tensor:
    """Real harmonics from scipy's: sqrt 2 times the real part of order m > 0, the imaginary part of order -m for m < 0.

    Both keep the Condon-Shortley phase, as 3D Gaussian Splatting does.
    """
    x, y, z = directions.numpy().T
    theta, phi = np.arccos(z), np.arctan2(y, x)
    columns = []
    for band in range(degree + 1):
        for order in range(-band, band + 1):
            value = sph_harm_y(band, abs(order), theta, phi)
            columns.append(value.real if order == 0 else math.sqrt(2) * (value.real if order > 0 else value.imag))
    return torch.from_numpy(np.stack(columns, axis=1))


@degrees
def test_the_basis_is_scipys(degree):
    directions, _ = sphere()
    assert torch.allclose(sh_basis(directions, degree), reference_basis(directions, degree), atol=1e-13)


def test_the_basis_is_orthonormal():
    directions, weights = sphere()
    basis = sh_basis(directions, 3)
    assert torch.allclose(basis.T @ (weights[:, None] * basis), torch.eye(16, dtype=torch.float64), atol=1e-13)


@degrees
@pytest.mark.parametrize("turn", turns())
def test_the_matrices_are_the_integrals_that_define_them(degree, turn):
    directions, weights = sphere()
    after, before = reference_basis(directions, degree), reference_basis(directions @ turn, degree)
    assert torch.allclose(sh_rotation(turn, degree), after.T @ (weights[:, None] * before), atol=1e-12)


@pytest.mark.parametrize("turn", turns())
def test_degree_one_is_the_matrix_itself_in_other_order(turn):
    """The linear part of a colour is v . d with v = (-c_3, -c_1, c_2), and v turns as any vector does."""
    vector = torch.tensor([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(sh_rotation(turn, 1)[1:, 1:], vector.T @ turn @ vector, atol=1e-12)


def test_matrices_are_orthogonal_and_compose():
    first, second = turns()[1], turns()[6]
    one, other = sh_rotation(first, 3), sh_rotation(second, 3)
    assert torch.allclose(one @ one.T, torch.eye(16, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(sh_rotation(first @ second, 3), one @ other, atol=1e-12)


def test_the_point_reflection_changes_the_sign_of_odd_degrees():
    signs = torch.tensor([1.0] + [-1.0] * 3 + [1.0] * 5 + [-1.0] * 7, dtype=torch.float64)
    assert torch.allclose(sh_rotation(-torch.eye(3), 3), signs.diag(), atol=1e-12)


@pytest.mark.parametrize("frame", FRAMES)
def test_named_frames_only_shuffle_degree_one(frame):
    matrix = sh_rotation(frame_matrix(frame), 1)
    shuffle = matrix.round()
    assert torch.allclose(matrix, shuffle, atol=1e-14) and torch.equal(shuffle @ shuffle.T, torch.eye(4).double())


def test_axes_that_change_places_leave_no_dust():
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    found = sh_rotation(flip, 3)
    assert torch.equal(found.abs(), torch.eye(16, dtype=torch.float64))
