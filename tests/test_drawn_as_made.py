"""A scene is drawn as it was made: options of the renderer go with it into pictures, figures, meshes and files."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from export.scenes import pebble
from PIL import Image
from rich.console import Console

from gsdistill.cli.commands.edit import Edit
from gsdistill.cli.commands.export import Export
from gsdistill.cli.commands.render import Render
from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile, Notice
from gsdistill.core.structs import Cameras, Gaussians, RenderOptions
from gsdistill.evaluation.truth import evaluate
from gsdistill.evaluation.views import photograph
from gsdistill.export.formats import writer_for
from gsdistill.export.pictures import shots
from gsdistill.export.ply import Ply
from gsdistill.export.settings import ExportSettings
from gsdistill.generate import run
from gsdistill.mesh.photographs import centred
from gsdistill.mesh.photographs import photograph as photographed
from gsdistill.renderer.base import blending_weights, render
from gsdistill.run.config import resolve
from gsdistill.run.measure import evaluate_run
from gsdistill.scene.edit import moved, scaled
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.read import read_splat
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.viewer.splat import Splat

MADE = RenderOptions(near=0.5, far=50.0, eps2d=1.0, antialiased=True)
QUIET = Console(quiet=True)
COMMENT = b'comment gsdistill renderer {"near": 0.5, "far": 50.0, "eps2d": 1.0, "antialiased": true}\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a run whose renderer is not the usual one, of Gaussians thinner than a pixel."""
    folder, ball = tmp_path_factory.mktemp("made"), Ball(count=400).create("", torch.Generator().manual_seed(0))
    Ply().write(replace(ball, scales=ball.scales - 3.0, opacities=ball.opacities + 4.0), folder / "start.ply")
    given = {
        "prompt": "a red torus", "method": "sds", "iterations": 4, "views": 2, "snapshots": 2, "preview_every": 4,
        "renderer": dict(vars(MADE)), "init": {"name": "ply", "path": str(folder / "start.ply")},
        "export": {"formats": ["sog", "spz", "glb", "compressed-ply", "splat"]},
        "output": str(folder / "run"),
    }  # fmt: skip
    return run(resolve(given), QUIET)


def front(size: int, distance: float = 3.2) -> Cameras:
    one = torch.ones(1)
    return look_at_origin(0.0 * one, 20.0 * one, distance * one, 40.0 * one, size)


def seen(scene: Gaussians, options: RenderOptions, size: int) -> np.ndarray:
    """What the first picture of a contact sheet must be, in bytes."""
    images = render(replace(scene, options=options), front(size), torch.ones(1, 3)).images
    return images[0].clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


def shown(sheet: Path, size: int) -> np.ndarray:
    return np.asarray(Image.open(sheet))[:size, :size]


@pytest.mark.slow
def test_pictures_of_a_run_are_of_what_was_trained(made):
    scene = read_splat(made)
    start, snapshots = read_splat(made / "snapshots" / "step-000000.ply"), sorted((made / "snapshots").iterdir())
    for name, splat in (("views.png", scene), ("start.png", start)):
        usual = seen(splat, RenderOptions(), 192)
        assert np.array_equal(shown(made / name, 192), seen(splat, MADE, 192))
        assert np.abs(usual.astype(int) - shown(made / name, 192)).max() > 50
    frames = imageio_ffmpeg.read_frames(made / "turntable.mp4")
    width, height = next(frames)["size"]
    film = np.frombuffer(next(frames), np.uint8).reshape(height, width, 3).astype(float)
    frames.close()
    errors = [np.abs(film - seen(scene, options, 256)).mean() for options in (MADE, RenderOptions())]
    assert errors[0] < 0.5 * errors[1]
    assert len(snapshots) == 3 and {read_splat(path).options for path in (made, *snapshots)} == {MADE}


@pytest.mark.slow
def test_pictures_of_render_are_of_what_was_trained(made, tmp_path):
    for number, source in enumerate((made, made / "gaussians.ply", made / "gaussians.sog", made / "gaussians.glb")):
        Render(source=source, output=tmp_path / str(number), size=96, video="png", frames=1).perform(QUIET)
        assert np.array_equal(shown(tmp_path / str(number) / "views.png", 96), seen(read_splat(source), MADE, 96))


@pytest.mark.slow
def test_figures_are_of_what_was_trained(made):
    scene = read_splat(made)
    right, usual = (replace(scene, options=options) for options in (MADE, RenderOptions()))
    figures = evaluate_run(made)
    assert figures == evaluate(right, "a red torus") != evaluate(usual, "a red torus")
    assert json.loads((made / "evaluation.json").read_text())["psnr"] == figures["psnr"]
    assert torch.equal(photograph(scene).body, photograph(right).body)
    assert not torch.equal(blending_weights(scene, front(32)), blending_weights(usual, front(32)))


def test_photographs_for_a_mesh_are_of_what_was_trained(made):
    """Near and far planes were where the run's cameras stood, and are as usual for a scene that is moved."""
    ball = centred(read_splat(made))[0]
    assert ball.options == RenderOptions(eps2d=1.0, antialiased=True)
    pictures, usual = (photographed(one, 48).pictures for one in (ball, replace(ball, options=RenderOptions())))
    assert (pictures - usual).abs().max() > 0.1


def test_files_tell_how_they_are_drawn(made, tmp_path):
    with zipfile.ZipFile(made / "gaussians.sog") as bundle:
        assert json.loads(bundle.read("meta.json"))["antialias"] is True
    assert gzip.decompress((made / "gaussians.spz").read_bytes())[14] == 1
    assert all(COMMENT in (made / f"gaussians.{name}").read_bytes() for name in ("ply", "compressed.ply"))
    kept = {name: read_splat(made / f"gaussians.{name}").options for name in ("spz", "splat")}
    assert kept == {"spz": RenderOptions(antialiased=True), "splat": RenderOptions()}
    for name in ("ply", "sog", "glb", "compressed.ply"):
        assert read_splat(made / f"gaussians.{name}").options == MADE
        Export(source=made, target=tmp_path / f"a.{name}").perform(QUIET)
        assert read_splat(tmp_path / f"a.{name}").options == MADE


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("a.ply", {}, None),
        ("a.splat", {}, None),
        ("a.sog", {"antialiased": True}, None),
        ("a.spz", {"antialiased": True}, None),
        ("a.spz", {"antialiased": True, "eps2d": 0.1}, "the format cannot store that it is drawn with eps2d 0.1"),
        ("a.sog", {"eps2d": 0.1}, "only gsdistill reads that it is drawn with eps2d 0.1"),
        ("a.ply", {"antialiased": True}, "only gsdistill reads that it is drawn with antialiased true"),
        ("a.splat", {"antialiased": True}, "the format cannot store that it is drawn with antialiased true"),
    ],
)
def test_what_other_programs_will_not_know_is_told(tmp_path, name, options, told):
    scene = replace(pebble(40, 0), options=RenderOptions(**options))
    notes = writer_for(tmp_path / name, ExportSettings()).write(scene, tmp_path / name)
    lines = [note for note in notes if "drawn" in note]
    assert lines == ([] if told is None else [f"{told}; other programs draw it differently"])


def test_a_run_of_an_earlier_version_is_drawn_as_its_config_says(made, tmp_path):
    old = shutil.copytree(made, tmp_path / "old")
    (old / "gaussians.ply").write_bytes((made / "gaussians.ply").read_bytes().replace(COMMENT, b""))
    assert read_splat(old).options == read_splat(old / "gaussians.ply").options == MADE
    shutil.copy(old / "gaussians.ply", old / "other.ply")
    assert read_splat(old / "other.ply").options == RenderOptions()
    (old / "config.yaml").write_text("renderer: {eps2d: -1}\n")
    with pytest.warns(Notice, match=r"drawn with the usual options: .*config.yaml: .*renderer.eps2d = -1"):
        assert read_splat(old).options == RenderOptions()
    (old / "config.yaml").unlink()
    assert read_splat(old).options == RenderOptions()


@pytest.mark.parametrize("said", ["{", "[1]", '{"eps2d": -1}', '{"eps2": 1}', '{"far": null}', '{"antialiased": 1}'])
def test_options_that_are_none_are_refused(tmp_path, said):
    Ply().write(pebble(3, 0), tmp_path / "a.ply")
    header = b"comment gsdistill frame world\n"
    data = (tmp_path / "a.ply").read_bytes().replace(b"comment gsdistill frame rdf\n", header)
    (tmp_path / "a.ply").write_bytes(data.replace(header, header + f"comment gsdistill renderer {said}\n".encode()))
    with pytest.raises(BadFile, match=r"a\.ply: "):
        read_splat(tmp_path / "a.ply")


def test_an_edited_run_stays_as_it_was_made(made, tmp_path):
    """Not its near and far planes, where it is moved or scaled: the cameras stood elsewhere."""
    turned, larger = tmp_path / "turned.sog", tmp_path / "larger.ply"
    Edit(source=made, target=turned, turn=90.0, min_opacity=0.01, hue=30.0).perform(QUIET)
    Edit(source=made, target=larger, scale=100.0, reduce=100).perform(QUIET)
    assert read_splat(turned).options == MADE
    assert read_splat(larger).options == replace(MADE, near=0.1, far=100.0)
    for change in (scaled(read_splat(made), 2.0), moved(read_splat(made), (0.0, 0.0, 1.0))):
        assert change.options == RenderOptions(eps2d=1.0, antialiased=True)


def test_what_is_merged_is_drawn_as_the_first(made, tmp_path):
    Ply().write(pebble(9, 0), tmp_path / "a.ply")
    with pytest.warns(Notice, match="with the usual options is drawn like the first, with near 0.5, far 50.0, eps2d"):
        Edit(source=made, target=tmp_path / "b.ply", merge=(tmp_path / "a.ply",)).perform(QUIET)
    assert read_splat(tmp_path / "b.ply").options == MADE


def test_a_start_is_drawn_as_the_run_draws(made, tmp_path):
    given = {"prompt": "a red torus", "method": "sds", "iterations": 1, "views": 2, "output": str(tmp_path / "run")}
    with pytest.warns(Notice, match="start was made with near 0.5, far 50.0, eps2d 1.0, antialiased true"):
        folder = run(resolve({**given, "init": {"name": "ply", "path": str(made)}}), QUIET, extras=False)
    assert np.array_equal(shown(folder / "start.png", 192), seen(read_splat(made), RenderOptions(), 192))


def test_a_page_tells_that_it_draws_otherwise(made):
    with pytest.warns(Notice, match="made with eps2d 1.0, antialiased true, as gsdistill render draws it"):
        Splat.of(read_splat(made))


@pytest.mark.filterwarnings("error::gsdistill.core.errors.Notice")
def test_a_page_tells_nothing_of_planes(made):
    Splat.of(replace(read_splat(made), options=RenderOptions(far=9.0)))


def test_a_far_plane_of_a_run_is_kept_and_the_usual_one_hides_nothing():
    scene = pebble(200, 0)
    hidden, whole, far = (
        next(shots(replace(scene, options=RenderOptions(far=plane)), front(32, distance), (1.0, 1.0, 1.0)))
        for plane, distance in ((2.0, 3.2), (100.0, 3.2), (100.0, 320.0))
    )
    assert (hidden == 255).all() and not (whole == 255).all() and not (far == 255).all()


@pytest.mark.slow
def test_the_command_line_draws_a_run_as_it_was_made(tmp_path):
    words = ["--method", "sds", "--iterations", "1", "--views", "2", "--renderer.antialiased"]
    assert execute(["generate", "--prompt", "a red torus", *words, "--output", str(tmp_path / "run")]) == 0
    assert read_splat(tmp_path / "run").options == RenderOptions(antialiased=True)


def test_a_splat_written_back_into_its_run_is_drawn_as_it_says(tmp_path):
    """Not as the run was: it says that it is drawn as usual."""
    (tmp_path / "config.yaml").write_text("renderer: {near: 3.1}\n")
    usual = Ball(count=3).create("", torch.Generator().manual_seed(0))
    Ply().write(usual, tmp_path / "gaussians.ply")
    assert read_splat(tmp_path / "gaussians.ply").options == RenderOptions()
