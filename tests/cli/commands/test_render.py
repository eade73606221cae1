"""``gsdistill render`` as a user calls it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsdistill.cli.main import execute
from gsdistill.export.pictures import shots
from gsdistill.scene.read import read_splat
from gsdistill.scene.viewpoints import orbit

CHAIR = Path(__file__).parents[2] / "data" / "chair.ply"
SMALL = ("--size", 32, "--frames", 3)


def draw(*words: object) -> int:
    return execute(["render", *map(str, words)])


def drawn(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def mistake(capsys, *words: object) -> str:
    assert draw(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def test_a_sheet_and_a_turntable_beside_the_file_and_what_is_there_stays(tmp_path, capsys):
    source = shutil.copy(CHAIR, tmp_path / "a.ply")
    assert draw(source, *SMALL, "--background", 0, 0, 0.5, "--views", 4) == 0
    folder = tmp_path / "a-render"
    assert capsys.readouterr().out.splitlines()[1:] == [str(folder / name) for name in ("views.png", "turntable.mp4")]
    assert drawn(folder) == ["turntable.mp4", "views.png"]
    assert pixels(folder / "views.png").shape == (64, 128, 3) and tuple(pixels(folder / "views.png")[0, 0]) == (
        0,
        0,
        128,
    )
    (folder / "views.png").unlink()
    line = f"{folder}/turntable.mp4 exists; choose another --output, or replace it with --overwrite"
    assert mistake(capsys, source, *SMALL) == line
    assert drawn(folder) == ["turntable.mp4"]
    assert draw(source, *SMALL, "--overwrite") == 0
    assert drawn(folder) == ["turntable.mp4", "views.png"]


def test_a_run_is_named_by_its_folder_and_distance_and_angle_are_those_asked_for(tmp_path):
    shutil.copy(CHAIR, tmp_path / "gaussians.ply")
    assert draw(tmp_path, *SMALL, "--video", "png", "--distance", 5, "--fov", 30, "--elevation", -10) == 0
    folder = tmp_path / "gaussians-render"
    assert drawn(folder) == ["turntable-00000.png", "turntable-00001.png", "turntable-00002.png", "views.png"]
    truth = list(shots(read_splat(CHAIR), orbit(3, 32, -10.0, 5.0, 30.0), (1.0, 1.0, 1.0)))
    assert all(np.array_equal(pixels(folder / f"turntable-0000{i}.png"), truth[i]) for i in range(3))
    assert np.array_equal(pixels(folder / "views.png")[:32, :32], truth[0])


def test_frames_of_a_longer_film_do_not_stay_among_the_new_ones(tmp_path, capsys):
    given = (CHAIR, "--output", tmp_path, "--size", 8, "--video", "png", "--frames")
    assert draw(*given, 3) == 0
    for name in ("turntable-00000.png", "turntable-00001.png", "views.png"):
        (tmp_path / name).rename(tmp_path / f"kept-{name}")
    capsys.readouterr()
    assert mistake(capsys, *given, 2).startswith(f"{tmp_path}/turntable-00002.png exists; choose another --output")
    assert draw(*given, 2, "--overwrite") == 0
    new = ["turntable-00000.png", "turntable-00001.png", "views.png"]
    assert drawn(tmp_path) == [*(f"kept-{name}" for name in new), *new]


@pytest.mark.parametrize("video", ["webm", "gif", "mp4"])
def test_the_film_has_the_format_asked_for(tmp_path, video):
    assert draw(CHAIR, *SMALL, "--output", tmp_path, "--video", video) == 0
    assert drawn(tmp_path) == [f"turntable.{video}", "views.png"]


def test_without_background_pictures_have_alpha_and_the_film_is_a_webm(tmp_path):
    assert draw(CHAIR, *SMALL, "--output", tmp_path, "--transparent") == 0
    assert drawn(tmp_path) == ["turntable.webm", "views.png"]
    assert pixels(tmp_path / "views.png").shape == (64, 256, 4)


def test_a_still_is_what_the_camera_sees(tmp_path):
    assert draw(CHAIR, "--output", tmp_path, "--camera", 120, -15, 2.5, "--fov", 55, "--size", 40, "--width", 64) == 0
    assert drawn(tmp_path) == ["still.png"] and pixels(tmp_path / "still.png").shape == (40, 64, 3)
    assert draw(CHAIR, "--output", tmp_path / "b", "--camera", 120, 20, 3.2, "--size", 40, "--transparent") == 0
    truth = list(shots(read_splat(CHAIR), orbit(3, 40), None))
    assert np.array_equal(pixels(tmp_path / "b" / "still.png"), truth[1])


def test_a_file_of_cameras_gives_their_pictures_and_a_film_along_them(tmp_path, capsys):
    keys = [{"azimuth": azimuth, "elevation": 20, "distance": 3.2} for azimuth in (0, 90, 180)]
    (tmp_path / "c.json").write_text(json.dumps(keys))
    given = (CHAIR, "--cameras", tmp_path / "c.json", "--size", 32)
    assert draw(*given, "--output", tmp_path / "a", "--video", "png") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'a' / 'path-00000.png'} and 2 more"
    truth = list(shots(read_splat(CHAIR), orbit(4, 32), (1.0, 1.0, 1.0)))
    assert all(np.array_equal(pixels(tmp_path / "a" / f"path-0000{i}.png"), truth[i]) for i in range(3))
    assert draw(*given, "--output", tmp_path / "b", "--video", "gif", "--frames", 7, "--fps", 10, "--width", 48) == 0
    assert drawn(tmp_path / "b") == ["path.gif"]
    with Image.open(tmp_path / "b" / "path.gif") as image:
        assert image.n_frames == 7 and image.size == (48, 32) and image.info["duration"] == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", 63), "a video of size 63 cannot be encoded as .mp4; the size must be even, such as 64"),
        (
            ("--camera", 0, 0, 3, "--frames", 5),
            "frames = 5 is for --cameras and for sheet and turntable, not for --camera",
        ),
        (("--width", 50), "width = 50 is for --camera and for --cameras, not for sheet and turntable"),
        (("--cameras", "c.json", "--elevation", 5), "elevation = 5.0 is for sheet and turntable, not for --cameras"),
        (("--cameras-frame", "rdf"), "cameras_frame = rdf is for --cameras, not for sheet and turntable"),
        (("--cameras", "c.json", "--camera", 0, 0, 3), "camera and cameras exclude each other"),
        (("--camera", 0, 95, 3), "the elevation must be from -90 to 90, the distance greater than 0"),
        (("--transparent", "--video", "mp4"), "video = 'mp4' holds no transparent background; webm, gif and png do"),
        (("--transparent", "--background", 0, 0, 0), "background = [0.0, 0.0, 0.0] and transparent exclude each other"),
        (("--video", "gif", "--fps", 100), "100 frames a second are too many for a .gif; 50 is the most"),
        (("--video", "avi"), "video = 'avi' is not a choice"),
        (("--cameras", "c.json"), "c.json: cannot be read"),
        (("--cameras", "bad.json"), "bad.json: the setting 'camera 1.elevation' is missing"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text('[{"azimuth": 3}]')
    assert message in mistake(capsys, CHAIR, "--output", "out", *words)
    assert drawn(tmp_path) == ["bad.json"]
