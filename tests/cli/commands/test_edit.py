"""``gsdistill edit`` as a user calls it."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export.scenes import pebble, pictures, psnr
from plyfile import PlyData

from gsdistill.cli.main import execute
from gsdistill.core.structs import Gaussians
from gsdistill.edit.reduce import reduced
from gsdistill.export.ply import Ply
from gsdistill.scene.edit import about_axis, colour_matrix, in_ball, join, moved, picked, recoloured, scaled
from gsdistill.scene.read import read_splat
from gsdistill.scene.turn import turned

CHAIR = Path(__file__).parents[2] / "data" / "chair.ply"


def edit(*words: object) -> int:
    return execute(["edit", *map(str, words)])


def told(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def stone(tmp_path) -> Gaussians:
    """What a.ply holds."""
    Ply().write(pebble(300, 2), tmp_path / "a.ply")
    return read_splat(tmp_path / "a.ply")


@pytest.mark.slow
def test_each_step_is_told_and_taken_in_one_order_whatever_that_of_the_flags(tmp_path, capsys, stone):
    source, target = tmp_path / "a.ply", tmp_path / "b.ply"
    look = ("--tint", 1, 0.5, 0.5, "--hue", 30, "--saturation", 0.5, "--brightness", 0.9)
    place = ("--move", -1, 0, 0.5, "--rotate", 1, 0, 0, -30, "--turn", 90, "--scale", 2)
    assert edit(source, target, *look, *place, "--reduce", 200, "--crop-ball", 0, 0, 0, 0.7, "--merge", source) == 0
    lines = told(capsys)
    inside = int((stone.means.norm(dim=1) <= 0.7).sum())
    assert 150 < inside < 300
    both = join([stone, stone])
    few, factor = reduced(picked(both, in_ball(both, (0.0, 0.0, 0.0), 0.7)), 200)
    assert len(few) == 200 and factor > 1
    assert lines[:7] == [
        f"merge: 300 Gaussians of {source} added to 300",
        f"crop to the ball: {600 - 2 * inside} of 600 Gaussians removed",
        f"reduce: {2 * inside - 200} of {2 * inside} Gaussians removed; "
        f"the others are {factor} times as wide, to close the gaps",
        "scaled by 2",
        "turned by 90 degrees",
        "rotated by -30 degrees about 1 0 0",
        "moved by -1 0 0.5",
    ]
    assert lines[7].startswith("recoloured: hue 30, saturation 0.5, brightness 0.9, tint 1 0.5 0.5")
    assert lines[8].startswith(f"{target}: 200 Gaussians, frame rdf, ") and len(lines) == 9


def test_what_is_written_is_what_the_functions_make(tmp_path, stone):
    place = ("--scale", 0.8, "--turn", 50, "--rotate", 0, 1, 0, 20, "--move", 0, 0, 0.1)
    assert edit(tmp_path / "a.ply", tmp_path / "b.ply", *place, "--hue", 60) == 0
    truth = turned(turned(scaled(stone, 0.8), about_axis((0.0, 0.0, 1.0), 50.0)), about_axis((0.0, 1.0, 0.0), 20.0))
    truth = recoloured(moved(truth, (0.0, 0.0, 0.1)), colour_matrix(hue=60.0))
    assert psnr(pictures(read_splat(tmp_path / "b.ply")), pictures(truth)) > 70


def test_a_run_is_named_by_its_folder_also_where_it_is_merged(tmp_path, capsys):
    shutil.copy(CHAIR, tmp_path / "gaussians.ply")
    assert edit(tmp_path, tmp_path / "b.splat", "--merge", tmp_path, CHAIR, "--frame", "y-up") == 0
    lines = told(capsys)
    assert sum("does not name its axes" in line for line in lines) == 3
    assert f"{tmp_path / 'b.splat'}: 2,010 Gaussians, frame y-up, 64,320 bytes" in lines


def test_axes_that_are_told_are_for_the_files_that_do_not_name_theirs(tmp_path, capsys, stone):
    named, nameless, target = tmp_path / "a.ply", tmp_path / "n.ply", tmp_path / "b.ply"
    nameless.write_bytes(named.read_bytes().replace(b"gsdistill frame", b"another remark!"))
    line = f"{named} names its axes: rdf; --from-frame y-up is for the others"
    parts = {named: stone, nameless: read_splat(nameless, "y-up")}
    for one, other in ((named, nameless), (nameless, named)):
        assert edit(one, target, "--merge", other, "--from-frame", "y-up", "--overwrite") == 0
        assert line in told(capsys)
        assert torch.allclose(read_splat(target).means, join([parts[one], parts[other]]).means, atol=1e-6)
    assert edit(named, target, "--turn", 5, "--from-frame", "y-up", "--overwrite") == 2
    assert "a.ply: its header names the frame 'rdf', not 'y-up'" in capsys.readouterr().err


def test_cleaning_alone_is_an_edit(tmp_path, capsys, stone):
    rows, broken = PlyData.read(tmp_path / "a.ply"), tmp_path / "c.ply"
    rows["vertex"].data["x"][:2] = math.nan
    rows.write(broken)
    assert edit(broken, tmp_path / "b.ply", "--clean") == 0
    assert "2 of its 300 Gaussians are left out and 0 mended" in "".join(capsys.readouterr())
    assert torch.equal(read_splat(tmp_path / "b.ply").means, stone.means[2:])


def test_the_most_transparent_go(tmp_path, capsys, stone):
    assert edit(tmp_path / "a.ply", tmp_path / "b.ply", "--min-opacity", 0.5) == 0
    kept = read_splat(tmp_path / "b.ply")
    assert kept.opacities.min() >= 0 and len(kept) == int((stone.opacities >= 0).sum()) < 300
    assert told(capsys)[0] == f"opacity: {300 - len(kept)} of 300 Gaussians removed"


def test_floaters_go_by_the_size_of_their_parts(tmp_path, capsys, stone):
    body = replace(stone, scales=stone.scales + 0.5, opacities=torch.full((300,), 3.0))  # without holes
    moons = [moved(scaled(picked(body, torch.arange(n)), 0.2), (0.0, 0.0, height)) for n, height in ((40, 2), (9, -3))]
    Ply().write(join([body, *moons]), tmp_path / "c.ply")
    floaters = ("--remove-floaters", "--overwrite")
    for words, line, count in (
        ((), "floaters: 49 of 349 Gaussians removed, 1 of 3 parts kept", 300),
        (("--keep-parts", 2), "floaters: 9 of 349 Gaussians removed, 2 of 3 parts kept", 340),
        (("--min-part", 0.05), "floaters: 9 of 349 Gaussians removed, 2 of 3 parts kept", 340),
        (("--min-part", 0.05, "--keep-parts", 1), "floaters: 49 of 349 Gaussians removed, 1 of 3 parts kept", 300),
    ):
        assert edit(tmp_path / "c.ply", tmp_path / "b.ply", *floaters, *words) == 0
        assert told(capsys)[0] == line
        assert torch.equal(read_splat(tmp_path / "b.ply").means, join([body, *moons]).means[:count])


def test_colours_that_pictures_cut_off_are_told(tmp_path, capsys, stone):
    assert edit(tmp_path / "a.ply", tmp_path / "b.ply", "--brightness", 5) == 0
    assert told(capsys)[0].startswith("recoloured: brightness 5; ")
    assert edit(tmp_path / "a.ply", tmp_path / "c.ply", "--saturation", 0, "--brightness", 0.5) == 0
    assert told(capsys)[0] == "recoloured: saturation 0, brightness 0.5"


def test_fewer_than_asked_for_stay_as_they_are(tmp_path, capsys, stone):
    assert edit(tmp_path / "a.ply", tmp_path / "b.ply", "--reduce", 1000) == 0
    assert told(capsys)[0] == "reduce: 0 of 300 Gaussians removed"
    assert torch.equal(read_splat(tmp_path / "b.ply").means, stone.means)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to change; say what with --merge, --crop-box, --crop-ball, --min-opacity, --remove-floaters"),
        ((), "--tint, --clean"),
        (("--crop-box", 0, 0, 0, 1, 0, 1), "crop_box = [0.0, 0.0, 0.0, 1.0, 0.0, 1.0] is empty"),
        (("--crop-box", 0, 0, 0, 1), "the flag '--crop-box' takes 6 values; see gsdistill edit --help"),
        (("--crop-ball", 5, 5, 5, 0.1), "crop to the ball: none of 300 Gaussians is left; their centres lie in"),
        (("--crop-ball", 0, 0, 0, 0), "its radius, the last number, must be greater than 0"),
        (("--rotate", 0, 0, 0, 90), "the axis 0 0 0 has no direction"),
        (("--keep-parts", 2), "keep_parts = 2 is for parts: add --remove-floaters"),
        (("--scale", 0), "scale = 0 is out of range"),
        (("--tint", 1, 1, -1), "tint[2] = -1 is out of range"),
        (("--turn", "nan"), "turn = 'nan' has the wrong type; expected a number"),
        (("--merge", "none.ply"), "none.ply: cannot be read"),
        (("--turn", 5, "--frame", "yup"), "Did you mean 'y-up'?"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, stone, words, message):
    assert edit(tmp_path / "a.ply", tmp_path / "b.ply", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_what_is_there_stays(tmp_path, capsys, stone):
    assert edit(tmp_path / "a.ply", tmp_path / "a.ply", "--turn", 5) == 2
    assert "a.ply exists; choose another name, or replace it with --overwrite" in capsys.readouterr().err
    assert edit(tmp_path / "a.ply", tmp_path / "a.ply", "--turn", 5, "--overwrite") == 0
    assert not torch.equal(read_splat(tmp_path / "a.ply").means, stone.means)
    assert edit(tmp_path / "a.ply", tmp_path / "a.obj", "--turn", 5) == 2
    assert "'a.obj' names no format" in capsys.readouterr().err
