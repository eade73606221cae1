"""Cameras of JSON files: the four kinds say the same of the same cameras, and paths go through their keys."""

import json
from pathlib import Path

import pytest
import torch
from export.scenes import pebble

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.renderer.base import render
from gsdistill.scene.camera_path import Lens, read_cameras, targeted
from gsdistill.scene.edit import moved
from gsdistill.scene.turn import frame_matrix, to_frame
from gsdistill.scene.viewpoints import orbit

ANGLES = {"azimuth": 0, "elevation": 20, "distance": 3.2}


def written(folder: Path, value: object) -> Path:
    path = folder / "cameras.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def seen(gaussians: Gaussians, cameras: Cameras) -> torch.Tensor:
    with torch.no_grad():
        return render(gaussians, cameras, torch.full((len(cameras), 3), 0.5)).images


def matrices(cameras: Cameras) -> list[dict]:
    pairs = zip(cameras.viewmats.double().tolist(), cameras.Ks.double().tolist(), strict=True)
    return [{"viewmat": view, "K": k, "width": cameras.width, "height": cameras.height} for view, k in pairs]


def inria(cameras: Cameras) -> list[dict]:
    worlds = torch.linalg.inv(cameras.viewmats.double())
    return [
        {
            "id": i, "img_name": f"{i:04}", "width": cameras.width, "height": cameras.height,
            "position": world[:3, 3].tolist(), "rotation": world[:3, :3].tolist(),
            "fx": float(k[0, 0]), "fy": float(k[1, 1]),
        }
        for i, (world, k) in enumerate(zip(worlds, cameras.Ks.double(), strict=True))
    ]  # fmt: skip


def nerfstudio(cameras: Cameras) -> dict:
    worlds = torch.linalg.inv(cameras.viewmats.double()) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]).double())
    path = [{"camera_to_world": world.flatten().tolist(), "fov": 40.0, "aspect": 1.0} for world in worlds]
    return {
        "camera_type": "perspective", "render_height": cameras.height, "render_width": cameras.width, "fps": 24,
        "camera_path": path,
    }  # fmt: skip


def test_angles_give_the_pixels_of_the_orbit(tmp_path):
    entries = [{**ANGLES, "azimuth": azimuth} for azimuth in (0, 45, 90, 135, 180, 225, 270, 315)]
    found, rate = read_cameras(written(tmp_path, entries), Lens(height=48))
    truth = orbit(8, 48)
    assert rate is None and found.width == found.height == 48
    assert all(torch.equal(getattr(found, name), getattr(truth, name)) for name in ("viewmats", "Ks", "azimuths"))
    assert torch.equal(seen(pebble(200, 1), found), seen(pebble(200, 1), truth))


@pytest.mark.parametrize("kind", [matrices, inria, nerfstudio])
def test_every_kind_gives_the_same_cameras(tmp_path, kind):
    truth = orbit(5, 48, elevation=-30.0)
    found, rate = read_cameras(written(tmp_path, kind(truth)))
    assert rate == (24 if kind is nerfstudio else None)
    assert (found.width, found.height) == (48, 48)
    for name in ("viewmats", "Ks", "elevations", "distances"):
        assert torch.allclose(getattr(found, name), getattr(truth, name), atol=1e-4), name
    assert torch.allclose(found.azimuths % 360, truth.azimuths % 360, atol=1e-3)


@pytest.mark.parametrize("kind", [matrices, inria, nerfstudio])
def test_positions_may_be_in_the_axes_of_another_program(tmp_path, kind):
    stone, truth = pebble(200, 2), orbit(3, 48)
    axes = torch.eye(4, dtype=torch.float64)
    axes[:3, :3] = frame_matrix("rdf")
    theirs = Cameras(**{**vars(truth), "viewmats": (truth.viewmats.double() @ axes.T).float()})
    assert (seen(to_frame(stone, "rdf"), theirs) - seen(stone, truth)).abs().max() < 1e-3
    found, _ = read_cameras(written(tmp_path, kind(theirs)), frame="rdf")
    assert torch.allclose(found.viewmats, truth.viewmats, atol=1e-5)


def test_a_field_of_view_that_is_asked_for_comes_before_that_of_the_file(tmp_path):
    path = written(tmp_path, [{**ANGLES, "fov": 20}, ANGLES])
    lenses = {fov: orbit(1, 32, fov=fov).Ks for fov in (20.0, 40.0, 90.0)}
    assert torch.allclose(read_cameras(path, Lens(height=32))[0].Ks, torch.cat([lenses[20.0], lenses[40.0]]))
    assert torch.allclose(read_cameras(path, Lens(height=32, fov=90.0))[0].Ks, lenses[90.0].repeat(2, 1, 1))


def test_a_target_stands_in_the_middle_and_the_picture_may_be_wide(tmp_path):
    stone, step = pebble(200, 1), (0.3, -0.5, 0.2)
    entries = [{**ANGLES, "azimuth": 30, "fov": 50, "target": step}, {**ANGLES, "azimuth": 30, "fov": 50}]
    found, _ = read_cameras(written(tmp_path, entries), Lens(height=48, width=80))
    here, there = seen(moved(stone, step), found)[0], seen(stone, found)[1]
    assert here.shape == (48, 80, 3) and (here - there).abs().max() < 1e-3
    assert (seen(moved(stone, step), found)[1] - there).abs().max() > 0.1
    square = targeted(torch.tensor([[30.0, 20.0, 3.2, 50.0]]), torch.zeros(1, 3), 48, 48)
    assert (there[:, 16:64] - seen(stone, square)[0]).abs().max() < 1e-4  # the angle is the one from top to bottom


def test_a_path_by_angles_goes_evenly_the_way_of_its_numbers(tmp_path):
    keys = [{**ANGLES, "azimuth": azimuth, "distance": 3 + place} for place, azimuth in enumerate((350, 380, 410))]
    found, _ = read_cameras(written(tmp_path, keys), frames=9)
    assert torch.allclose(found.azimuths, torch.linspace(350.0, 410.0, 9))
    assert torch.allclose(found.distances, torch.linspace(3.0, 5.0, 9))


def test_a_path_does_not_overshoot_its_keys(tmp_path):
    keys = [{**ANGLES, "elevation": value} for value in (0, 0, 80, 80)]
    found, _ = read_cameras(written(tmp_path, keys), frames=40)
    steps = found.elevations.diff()
    assert found.elevations.min() == 0 and found.elevations.max() == 80 and steps.min() >= -1e-4 and steps.max() > 1


@pytest.mark.parametrize("kind", [matrices, inria, nerfstudio])
def test_a_path_by_matrices_follows_an_orbit_through_its_keys(tmp_path, kind):
    keys, truth = orbit(12, 48), orbit(36, 48)
    found, _ = read_cameras(written(tmp_path, kind(keys)), frames=34)  # three steps from each to the next
    assert torch.allclose(found.viewmats[::3], keys.viewmats, atol=1e-4)
    assert torch.allclose(found.Ks, truth.Ks[:34], atol=1e-4)
    assert (found.distances - 3.2).abs().max() < 0.1
    turns = found.viewmats[:, :3, :3]
    assert torch.allclose(turns @ turns.mT, torch.eye(3).expand(34, 3, 3), atol=1e-5)
    assert ((turns - truth.viewmats[:34, :3, :3]).abs().amax(dim=(1, 2)) < 0.03).all()


def test_another_size_scales_the_picture(tmp_path):
    wide = orbit(1, 48)
    entry = {**matrices(wide)[0], "width": 96, "K": [[70, 0, 40], [0, 60, 20], [0, 0, 1]]}
    found, _ = read_cameras(written(tmp_path, [entry]), Lens(height=24))
    assert (found.width, found.height) == (48, 24)
    assert torch.equal(found.Ks[0], torch.tensor([[35.0, 0.0, 20.0], [0.0, 30.0, 10.0], [0.0, 0.0, 1.0]]))


def test_a_thin_picture_keeps_two_pixels_when_it_is_scaled_down(tmp_path):
    found, _ = read_cameras(written(tmp_path, [{**VIEW, "width": 2, "height": 2000}]), Lens(height=8))
    assert (found.width, found.height) == (2, 8)
    assert torch.equal(found.Ks[0, 0], torch.tensor(VIEW["K"][0]))


SQUARE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
VIEW = {**matrices(orbit(1, 48))[0], "viewmat": SQUARE}
FLIGHT = nerfstudio(orbit(1, 48))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a list of cameras, or a camera_path of nerfstudio, found []"),
        ({"cameras": []}, "expected a list of cameras"),
        ([5], "camera 1 = 5 has none of azimuth, viewmat, position, camera_to_world"),
        ([ANGLES, 5], "camera 2 = 5 has the wrong type"),
        ([ANGLES, {"azimuth": 1, "elevation": 2}], "the setting 'camera 2.distance' is missing"),
        ([{**ANGLES, "elevation": 91}], "camera 1.elevation = 91 is out of range; it must be at least -90 and"),
        ([ANGLES, {**ANGLES, "azimuth": "x"}], "camera 2.azimuth = 'x' has the wrong type; expected a number"),
        ("[{\"azimuth\": NaN, \"elevation\": 0, \"distance\": 3}]", "camera 1.azimuth = nothing has the wrong type"),
        ([{**ANGLES, "fovy": 40}], "unknown setting 'camera 1.fovy' (value 40). Did you mean 'camera 1.fov'?"),
        ([ANGLES, VIEW], "unknown setting 'camera 2.viewmat'"),
        ([VIEW, {**VIEW, "width": 50}], "camera 2 is 50 x 48 pixels large, the first one 48 x 48"),
        ([{**VIEW, "viewmat": SQUARE[:3]}], "camera 1.viewmat = "),
        ([VIEW, {**VIEW, "viewmat": [[2, 0, 0, 0], *SQUARE[1:]]}], "camera 2: its matrix is no"),
        ([{**VIEW, "viewmat": [[-1, 0, 0, 0], *SQUARE[1:]]}], "camera 1: its matrix is no"),
        ([{**VIEW, "K": [[1, 0, 0], [0, -1, 0], [0, 0, 1]]}], "camera 1: K must be [[fx, 0, cx], [0, fy, cy],"),
        ({**FLIGHT, "camera_path": [{"camera_to_world": [1, 2], "fov": 40}]}, "1: camera_to_world has 2 numbers"),
        ({**FLIGHT, "camera_path": []}, "expected a list of cameras"),
        ({**FLIGHT, "fps": "fast"}, "fps = 'fast' has the wrong type"),
        ({**FLIGHT, "camera_type": "fisheye"}, "its cameras are of the type 'fisheye'; only perspective is read"),
        ({"camera_path": FLIGHT["camera_path"]}, "the setting 'camera 1.render_width' is missing"),
    ],
)  # fmt: skip
def test_what_is_no_camera_is_named(tmp_path, value, message):
    path = written(tmp_path, value)
    with pytest.raises(BadFile) as caught:
        read_cameras(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ([ANGLES], {"frames": 5}, "has one camera, and a path needs two"),
        ([ANGLES], {"frame": "rdf"}, "are angles in gsdistill's own axes"),
        ([VIEW], {"lens": Lens(width=50)}, "width = 50: the cameras of"),
        ([{**VIEW, "width": 2000, "height": 2}], {"lens": Lens(height=100)}, "would be 100,000 pixels wide"),
        ([VIEW], {"lens": Lens(fov=50.0)}, "fov = 50.0: the cameras of"),
    ],
)
def test_what_does_not_fit_to_the_file_is_told(tmp_path, value, options, message):
    with pytest.raises(ConfigError, match=message):
        read_cameras(written(tmp_path, value), **options)
