"""A turned splat seen by a camera turned with it is the same picture."""

from dataclasses import replace

import pytest
import torch
from export.scenes import held_out, pebble, psnr
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from gsdistill.core.errors import BadFile
from gsdistill.core.frames import FRAMES
from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.export.ply import Ply
from gsdistill.renderer.base import render
from gsdistill.scene.read import read_splat
from gsdistill.scene.turn import frame_matrix, from_frame, to_frame, turned

every_frame = pytest.mark.parametrize("frame", FRAMES)
OTHERS = [frame for frame in FRAMES if frame != "world"]
FRONT, LEFT, UP = torch.eye(3, dtype=torch.float64)
MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))


def seen(gaussians: Gaussians, cameras: Cameras) -> torch.Tensor:
    with torch.no_grad():
        return render(gaussians, cameras, torch.full((len(cameras), 3), 0.5)).images


def camera_turned(cameras: Cameras, matrix: torch.Tensor, image: torch.Tensor) -> Cameras:
    """Cameras in axes turned by ``matrix``, whose own axes are changed by ``image``: [W | t] to [I W M^T | I t]."""
    views = cameras.viewmats.double().clone()
    views[:, :3, :3] = image @ views[:, :3, :3] @ matrix.T
    views[:, :3, 3] = views[:, :3, 3] @ image.T
    return replace(cameras, viewmats=views.float())


def rotations(quats: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_quat(quats.double().roll(-1, dims=1).numpy()).as_matrix())


@pytest.mark.parametrize(
    ("frame", "axes", "handedness"),
    [
        ("rdf", (-LEFT, -UP, FRONT), 1),
        ("y-up", (LEFT, UP, FRONT), 1),
        ("z-up", (LEFT, -FRONT, UP), 1),
        ("unity", (-LEFT, UP, FRONT), -1),
        ("world", (FRONT, LEFT, UP), 1),
    ],
)
def test_each_frame_is_what_its_viewers_take_it_for(frame, axes, handedness):
    matrix = frame_matrix(frame)
    for place, axis in enumerate(axes):
        assert torch.equal(matrix @ axis, torch.eye(3, dtype=torch.float64)[place])
    assert torch.linalg.det(matrix) == handedness


def test_inria_viewers_turn_rdf_by_180_degrees_about_z_into_y_up():
    half_turn = torch.from_numpy(Rotation.from_euler("z", 180, degrees=True).as_matrix())
    assert torch.allclose(half_turn @ frame_matrix("rdf"), frame_matrix("y-up"), atol=1e-15)


@every_frame
@pytest.mark.parametrize("degree", [0, 3])
def test_the_picture_stays_when_the_camera_turns_too(frame, degree):
    stone, cameras, matrix = pebble(400, degree), held_out(), frame_matrix(frame)
    again = seen(to_frame(stone, frame), camera_turned(cameras, matrix, torch.eye(3, dtype=torch.float64)))
    assert psnr(again, seen(stone, cameras)) >= 90


def test_any_turn_will_do():
    stone, cameras = pebble(400, 3), held_out()
    for matrix in torch.from_numpy(Rotation.random(3, random_state=1).as_matrix()):
        for turn in (matrix, matrix @ MIRROR):
            again = seen(turned(stone, turn), camera_turned(cameras, turn, torch.eye(3, dtype=torch.float64)))
            assert psnr(again, seen(stone, cameras)) >= 90


def test_left_handed_axes_show_a_right_handed_viewer_the_mirror_image():
    """M mirrors, so W M^T is no camera; with its x mirrored too it is one, in whose picture u becomes width - u."""
    stone, cameras = pebble(400, 3), held_out()
    proper = camera_turned(cameras, frame_matrix("unity"), MIRROR)
    assert torch.allclose(torch.linalg.det(proper.viewmats[:, :3, :3]), torch.ones(len(cameras)))
    there, here = seen(to_frame(stone, "unity"), proper), seen(stone, cameras)
    assert psnr(there, here.flip(2)) >= 90 and psnr(there, here) < 30


@every_frame
def test_turning_there_and_back_changes_nothing(frame):
    stone = pebble(500, 3)
    there = to_frame(stone, frame)
    again = from_frame(there, frame)
    assert torch.equal(there.means.double(), stone.means.double() @ frame_matrix(frame).T)
    assert torch.equal(again.means, stone.means)
    assert torch.equal(again.scales, stone.scales) and torch.equal(again.opacities, stone.opacities)
    assert torch.allclose(rotations(again.quats), rotations(stone.quats), atol=2e-6)
    assert torch.allclose(again.sh, stone.sh, atol=1e-6)


@every_frame
def test_rotations_turn_and_keep_their_length(frame):
    stone, matrix = pebble(500, 0), frame_matrix(frame)
    there = to_frame(stone, frame)
    truth = torch.linalg.det(matrix) * matrix @ rotations(stone.quats)
    assert torch.allclose(rotations(there.quats), truth, atol=1e-6)
    assert torch.allclose(there.quats.norm(dim=1), stone.quats.norm(dim=1), rtol=1e-6)


def test_types_and_gradients_pass_through():
    stone = Gaussians(**{name: value.double().requires_grad_() for name, value in pebble(9, 1).tensors().items()})
    there = to_frame(stone, "unity")
    assert {value.dtype for value in there.tensors().values()} == {torch.float64}
    there.sh.sum().backward()
    assert stone.sh.grad is not None and stone.sh.grad.abs().sum() > 0


@every_frame
def test_a_file_says_its_axes_and_is_read_back_into_ours(tmp_path, frame):
    stone = pebble(300, 3)
    Ply(frame=frame).write(stone, tmp_path / "a.ply")
    rows = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    written = torch.stack([torch.from_numpy(rows[axis].copy()) for axis in "xyz"], dim=1)
    assert torch.equal(written, to_frame(stone, frame).means)
    for told in (None, frame):
        again = read_splat(tmp_path / "a.ply", told)
        assert torch.equal(again.means, stone.means)
        assert psnr(seen(again, held_out()), seen(stone, held_out())) >= 90


@pytest.mark.parametrize("frame", OTHERS)
def test_axes_can_be_told_of_a_file_that_does_not_name_them_but_not_against_its_header(tmp_path, frame):
    stone = pebble(20, 1)
    Ply(frame=frame).write(stone, tmp_path / "a.ply")
    with pytest.raises(BadFile, match=f"names the frame '{frame}', not 'world'"):
        read_splat(tmp_path / "a.ply", "world")
    silent = (tmp_path / "a.ply").read_bytes().replace(f"comment gsdistill frame {frame}\n".encode(), b"")
    (tmp_path / "b.ply").write_bytes(silent)
    assert torch.equal(read_splat(tmp_path / "b.ply", frame).means, stone.means)
    assert torch.equal(read_splat(tmp_path / "b.ply").means, to_frame(stone, frame).means)


def test_unknown_axes_in_a_header_are_named_with_the_nearest(tmp_path):
    Ply(frame="y-up").write(pebble(3, 0), tmp_path / "a.ply")
    wrong = (tmp_path / "a.ply").read_bytes().replace(b"gsdistill frame y-up", b"gsdistill frame yup")
    (tmp_path / "a.ply").write_bytes(wrong)
    with pytest.raises(BadFile, match=r"names the frame 'yup'\. Did you mean 'y-up'\? Allowed: rdf, y-up, z-up"):
        read_splat(tmp_path / "a.ply")
