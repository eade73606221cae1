"""``gsdistill export`` as a user calls it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from export.decoders import READERS
from export.scenes import pebble
from plyfile import PlyData

from gsdistill.cli.main import execute
from gsdistill.core.extras import EXTRAS
from gsdistill.export.ply import Ply
from gsdistill.export.settings import extensions
from gsdistill.scene.read import read_splat
from gsdistill.scene.turn import from_frame

CHAIR = Path(__file__).parents[2] / "data" / "chair.ply"
GRID = ("--meshing.resolution", "24", "--meshing.texture", "64")


def export(*words: object) -> int:
    return execute(["export", *map(str, words)])


def render(*words: object) -> int:
    return execute(["render", *map(str, words), "--size", "32", "--views", "2", "--frames", "2"])


def error(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("extension", "name"), extensions().items())
def test_every_format_by_its_extension_in_the_axes_of_its_viewers(tmp_path, capsys, extension, name):
    target = tmp_path / f"chair{extension.upper()}"
    assert export(CHAIR, target) == 0
    frame = "y-up" if name == "glb" else "rdf"
    assert f"670 Gaussians, frame {frame}, {target.stat().st_size:,} bytes" in " ".join(capsys.readouterr().out.split())
    again = from_frame(READERS[name](target), frame)
    apart = torch.cdist(again.means, read_splat(CHAIR).means)
    assert len(again) == 670 and apart.amin(dim=0).max() < 5e-3 and apart.amin(dim=1).max() < 5e-3


def test_a_run_is_named_by_its_folder_and_other_axes_by_flags(tmp_path):
    shutil.copy(CHAIR, tmp_path / "gaussians.ply")
    assert export(tmp_path, tmp_path / "b.ply", "--frame", "z-up", "--sh-pad", 3) == 0
    assert read_splat(tmp_path / "b.ply").sh_degree == 3
    assert torch.equal(read_splat(tmp_path / "b.ply").means, read_splat(CHAIR).means)
    assert export(CHAIR, tmp_path / "c.ply", "--from-frame", "rdf", "--frame", "rdf") == 0
    assert torch.equal(read_splat(tmp_path / "c.ply").means, read_splat(CHAIR, "rdf").means)


@pytest.mark.parametrize("extension", [".glb", ".obj"])
def test_a_mesh_says_whether_it_is_closed(tmp_path, capsys, extension):
    assert export(CHAIR, tmp_path / f"a{extension}", "--mesh", *GRID) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "triangles, watertight, 1 part, area 3." in told
    assert len(list(tmp_path.iterdir())) == {".glb": 1, ".obj": 3}[extension]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.plyy",), "'a.plyy' names no format. Did you mean '.ply'? Allowed: .compressed.ply, .glb, .ply, .sog"),
        (("a",), "'a' names no format"),
        (("a.obj",), "'a.obj' can only be a mesh: add --mesh"),
        (("a.ply", "--mesh"), "'a.ply' names no format of a mesh. Allowed: .glb, .obj"),
        (("a.ply", "--frame", "yup"), "frame = 'yup' is not a choice. Did you mean 'y-up'?"),
        (("a.ply", "--sh-pad", 4), "sh_pad = 4 is out of range"),
        (("a.ply", "--meshing.level", 0.5), "meshing.level is for meshes: add --mesh"),
        (("a.glb", "--mesh", "--sh-pad", 3), "sh_pad = 3: a mesh has no view-dependent colour"),
        (("folder.ply", "--overwrite"), "folder.ply is a folder; choose another name"),
        (("folder.obj", "--mesh", *GRID, "--overwrite"), "folder.png is a folder; choose another name"),
        (("old.spz",), "old.spz exists; choose another name, or replace it with --overwrite"),
        (("old.obj", "--mesh", *GRID), "old.mtl exists"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for name in ("old.spz", "old.mtl"):
        Path(name).write_text("mine")
    for name in ("folder.ply", "folder.png"):
        Path(name).mkdir()
    assert export(CHAIR, *words) == 2
    assert message in error(capsys)
    left = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"old.spz": "mine", "old.mtl": "mine"} and len(list(tmp_path.iterdir())) == 4


def test_axes_that_are_taken_for_granted_are_told(tmp_path, capsys):
    assert export(CHAIR, tmp_path / "a.ply") == 0
    assert "does not name its axes: taken to be in gsdistill's" in " ".join(capsys.readouterr().out.split())
    for words in ((CHAIR, tmp_path / "b.ply", "--from-frame", "rdf"), (tmp_path / "a.ply", tmp_path / "c.ply")):
        assert export(*words) == 0
        assert "does not name" not in capsys.readouterr().out


@pytest.mark.parametrize(("extension", "name"), extensions().items())
def test_what_was_exported_is_exported_again_and_drawn(tmp_path, capsys, extension, name):
    source = tmp_path / f"a{extension}"
    assert export(CHAIR, source) == 0
    assert export(source, tmp_path / "b.ply") == 0
    told = " ".join(capsys.readouterr().out.split())
    usual = "taken to be in right, down, front (rdf), as is usual with its format; --from-frame is for others"
    assert (usual in told) == (extension in (".spz", ".splat"))
    apart = torch.cdist(read_splat(tmp_path / "b.ply").means, read_splat(CHAIR).means)
    assert apart.amin(dim=0).max() < 5e-3 and apart.amin(dim=1).max() < 5e-3
    assert render(source) == 0
    folder = tmp_path / f"{source.stem}-render"
    assert {path.name for path in folder.iterdir()} == {"views.png", "turntable.mp4"}


def test_the_pictures_of_a_run_lie_in_its_folder(tmp_path):
    shutil.copy(CHAIR, tmp_path / "gaussians.ply")
    assert render(tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "gaussians-render").iterdir()) == ["turntable.mp4", "views.png"]


def test_what_is_not_sound_is_counted_and_cleaned_when_asked(tmp_path, capsys):
    whole = read_splat(CHAIR)
    whole.means.numpy()[:2], whole.opacities.numpy()[2:5] = 3.0, 0.0
    Ply(frame="world").write(whole, tmp_path / "a.ply")
    vertices = PlyData.read(str(tmp_path / "a.ply"), mmap=False)
    vertices["vertex"]["x"][:2], vertices["vertex"]["opacity"][2:5] = np.nan, np.inf
    vertices.write(str(tmp_path / "a.ply"))
    assert export(tmp_path / "a.ply", tmp_path / "b.spz") == 2
    assert "5 of its 670 Gaussians are not sound: 2 with NaN in means, 3 of an infinite opacity; --clean" in error(
        capsys
    )
    assert export(tmp_path / "a.ply", tmp_path / "b.spz", "--clean") == 0
    told = capsys.readouterr()
    assert "2 of its 670 Gaussians are left out and 3 mended" in " ".join((told.out + told.err).split())
    assert "668 Gaussians, frame rdf" in told.out
    assert render(tmp_path / "a.ply") == 2 and render(tmp_path / "a.ply", "--clean") == 0


def test_what_the_format_does_not_hold_is_told_on_a_line_of_its_own(tmp_path, capsys):
    Ply().write(pebble(50, 1), tmp_path / "a.ply")
    assert export(tmp_path / "a.ply", tmp_path / "b.splat") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'b.splat'}: 50 Gaussians, frame rdf, ")
    assert lines[1] == f"{tmp_path / 'b.splat'}: view-dependent colour is left out: .splat cannot hold it"


def test_what_is_no_splat_is_named(tmp_path, capsys):
    (tmp_path / "a.ply").write_text("hello")
    assert export(tmp_path / "a.ply", tmp_path / "b.ply") == 2
    assert "a.ply: not a splat that is read: it does not begin like a .ply" in error(capsys)
    assert export(tmp_path, tmp_path / "b.ply") == 2
    assert "is a folder without gaussians.ply" in error(capsys)


@pytest.mark.parametrize(("target", "extra", "package"), [("a.spz", "formats", "gsply"), ("a.glb", "mesh", "xatlas")])
def test_a_missing_extra_is_told_before_anything_is_read(tmp_path, capsys, monkeypatch, target, extra, package):
    monkeypatch.setitem(EXTRAS, extra, {"no_such_module": package})
    assert export(tmp_path / "none.ply", tmp_path / target, *(["--mesh"] if extra == "mesh" else [])) == 2
    assert f"needs {package} (the" in (told := error(capsys)) and told.endswith(f"pip install {package}")
