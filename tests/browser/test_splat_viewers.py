"""Viewers that know nothing of gsdistill show its files as it renders them itself.

The cameras here are set in words, not by our matrices: the viewer's y axis is up, its z axis comes out of the front of
the object and its x axis out of the object's left, once a file is turned as its frame's readers turn it. A wrong matrix
in our frames, a flip or a wrong order of rotations is thus seen.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from export.scenes import pebble, psnr
from PIL import Image

from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians
from gsdistill.export.formats import writer_for
from gsdistill.export.settings import ExportSettings, extensions
from gsdistill.mesh.settings import MeshSettings
from gsdistill.mesh.write import write_mesh
from gsdistill.renderer.base import render
from gsdistill.scene.read import read_splat
from gsdistill.scene.turn import to_frame
from gsdistill.scene.viewpoints import look_at_origin

HERE = Path(__file__).parent
MODULES = Path(os.environ.get("GSDISTILL_NODE_MODULES") or HERE / "node_modules")
INSTALL = "needs other people's viewers: npm install --prefix tests/browser --no-package-lock --ignore-scripts"

READS = {  # what each viewer opens
    "playcanvas": ("ply", "compressed-ply", "sog", "glb"),
    "spark": ("ply", "compressed-ply", "splat", "spz", "sog"),
    "three": ("ply", "splat", "spz", "glb"),
}
# decibels: PlayCanvas lets Gaussians fade to nothing at 2.8 standard deviations and sorts them into 1024 depths or so,
# three.js cuts them off at 2
CLOSE = {"playcanvas": 38.0, "spark": 42.0, "three": 32.0}
APART = 10.0  # decibels by which a flipped picture is worse

TURNS: dict[Frame, tuple[float, float, float]] = {  # about x, then y, then z, to have y up and the front towards z
    "rdf": (0.0, 0.0, 180.0),
    "y-up": (0.0, 0.0, 0.0),
    "z-up": (-90.0, 0.0, 0.0),
    "world": (-90.0, -90.0, 0.0),
}
SPZ_TURN = (0.0, 180.0, 0.0)  # the format itself is right, up, back
VIEWS = torch.tensor([[30.0, 20.0], [137.0, -15.0], [250.0, 55.0]])  # azimuth and elevation in degrees
DISTANCE, FOV, SIZE = 2.8, 40.0, 256
BACKGROUND = (0.2, 0.35, 0.5)

LOOK = """
const [view, done] = arguments;
opening.then((look) => look(view)).then(done, (error) => done(`failed: ${error.stack ?? error}`));
"""

Pictures: TypeAlias = torch.Tensor  # [B, H, W, 3] in 0..1
Look: TypeAlias = Callable[[Sequence[float], torch.Tensor], Pictures]
Show: TypeAlias = Callable[[str, str], Look]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where pages, viewers and splats lie."""
    missing = [name for name in ("playcanvas", "three", "@sparkjsdev/spark") if not (MODULES / name).is_dir()]
    if missing:
        pytest.skip(f"{INSTALL}; not found: {', '.join(missing)}")
    found = tmp_path_factory.mktemp("viewers")
    for page in (HERE / "splat_viewers").iterdir():
        (found / page.name).symlink_to(page)
    (found / "node_modules").symlink_to(MODULES)
    return found


@pytest.fixture
def show(browser, serve, folder, console_errors, wait_for) -> Show:
    """``show(viewer, file)(turn, eyes)``: what a viewer draws of a file that is turned, seen from ``eyes``."""

    def opened(viewer: str, file: str) -> Look:
        console_errors(browser)
        browser.get(f"{serve(folder)}/index.html?viewer={viewer}&size={SIZE}&file={file}")
        wait_for(lambda: browser.execute_script("return 'opening' in window"))
        return look

    def look(turn: Sequence[float], eyes: torch.Tensor) -> Pictures:
        rest = {"turn": turn, "fov": FOV, "background": BACKGROUND}
        seen = [browser.execute_async_script(LOOK, {"eye": eye.tolist(), **rest}) for eye in eyes]
        assert [answer for answer in seen if answer.startswith("failed")] == []
        assert console_errors(browser) == []
        return torch.stack([decoded(answer) for answer in seen])

    return opened


def decoded(address: str) -> Pictures:
    """The pixels of a PNG in a data URL."""
    png = base64.b64decode(address.partition(",")[2])
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)).convert("RGB"))) / 255.0


def eyes(views: torch.Tensor = VIEWS) -> torch.Tensor:
    """Where a person stands who goes round to the left of the object by the azimuth and up by the elevation."""
    azimuth, elevation = torch.deg2rad(views).unbind(1)
    left, up, front = azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()
    return DISTANCE * torch.stack([left, up, front], dim=1)


def ours(gaussians: Gaussians, views: torch.Tensor = VIEWS) -> Pictures:
    """Our own renders."""
    same = torch.ones(len(views))
    cameras = look_at_origin(views[:, 0], views[:, 1], DISTANCE * same, FOV * same, SIZE)
    with torch.no_grad():
        return render(gaussians, cameras, torch.tensor(BACKGROUND).expand(len(views), 3)).images.clamp(0.0, 1.0)


def written(gaussians: Gaussians, folder: Path, kind: str, frame: Frame | None = None) -> tuple[str, Frame]:
    """The name of a new file of a format, and its axes."""
    file = f"splat{next(extension for extension, name in extensions().items() if name == kind)}"
    writer = writer_for(file, ExportSettings(frame=frame))
    writer.write(gaussians, folder / file)
    return file, writer.axes


def scene(name: str) -> Gaussians:
    """A trained chair of one colour from everywhere, or a stone whose colours change with the view."""
    return pebble(8000, 3) if name == "stone" else read_splat(HERE.parent / "data" / "chair.ply")


def worst(one: Pictures, other: Pictures) -> float:
    """The least PSNR of the pictures, decibels."""
    return min(psnr(a, b) for a, b in zip(one, other, strict=True))


def best(one: Pictures, other: Pictures) -> float:
    """The greatest PSNR of the pictures, decibels."""
    return max(psnr(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["chair", "stone"])
@pytest.mark.parametrize(("viewer", "kind"), [(viewer, kind) for viewer in READS for kind in READS[viewer]])
def test_a_viewer_shows_what_we_render(viewer, kind, name, show, folder):
    gaussians = scene(name)
    file, axes = written(gaussians, folder, kind)
    if kind == "splat":  # which holds one colour from everywhere
        gaussians = replace(gaussians, sh=gaussians.sh[:, :1])
    turn = SPZ_TURN if kind == "spz" else TURNS[axes]
    seen, truth = show(viewer, file)(turn, eyes()), ours(gaussians)
    least = worst(seen, truth)
    print(f"{viewer} {kind} {name}: {least:.1f} dB, mirrored {best(seen.flip(2), truth):.1f}")
    assert least >= CLOSE[viewer]
    assert best(seen.flip(2), truth) < least - APART
    assert best(seen.flip(1), truth) < least - APART


def test_every_format_is_shown_by_a_viewer():
    assert set(extensions().values()) == {kind for kinds in READS.values() for kind in kinds}


@pytest.mark.parametrize("viewer", READS)
def test_colours_change_with_the_view_as_they_should(viewer, show, folder):
    """Our pictures without that change, or with harmonics left in other axes, are far off."""
    stone = scene("stone")
    file, axes = written(stone, folder, "ply")
    seen = show(viewer, file)(TURNS[axes], eyes())
    for wrong in (stone.sh[:, :1], to_frame(stone, axes).sh):
        assert best(seen, ours(replace(stone, sh=wrong))) < CLOSE[viewer] - APART


@pytest.mark.parametrize("frame", TURNS)
def test_each_frame_stands_upright_only_when_turned_as_its_readers_do(frame, show, folder):
    stone = scene("stone")
    file, _ = written(stone, folder, "ply", frame)
    look, truth = show("spark", file), ours(stone, VIEWS[:1])
    closeness = {other: worst(look(TURNS[other], eyes()[:1]), truth) for other in TURNS}
    assert closeness.pop(frame) >= CLOSE["spark"]
    assert max(closeness.values()) < CLOSE["spark"] - APART


def test_unity_axes_are_the_mirror_image_in_a_right_handed_viewer(show, folder):
    stone = scene("stone")
    file, _ = written(stone, folder, "ply", "unity")
    seen = show("spark", file)(TURNS["y-up"], eyes() * torch.tensor([-1.0, 1.0, 1.0]))
    assert worst(seen.flip(2), ours(stone)) >= CLOSE["spark"]


def test_turned_about_x_as_in_spark_s_own_pages_it_stands_upright_with_its_back_to_us(show, folder):
    stone = scene("stone")
    file, _ = written(stone, folder, "ply", "rdf")
    seen = show("spark", file)((180.0, 0.0, 0.0), eyes(VIEWS + torch.tensor([180.0, 0.0])))
    assert worst(seen, ours(stone)) >= CLOSE["spark"]


@pytest.mark.parametrize("extension", [".glb", ".obj"])
def test_a_mesh_looks_like_its_splat(extension, show, folder):
    """As far as a hard edge can look like a soft one; the colours within are the same."""
    chair = scene("chair")
    write_mesh(chair, folder / f"chair{extension}", MeshSettings(resolution=48, texture=256))
    seen, truth = show("mesh", f"chair{extension}")((0.0, 0.0, 0.0), eyes()), ours(chair)
    least = worst(seen, truth)
    print(f"{extension}: {least:.1f} dB, mirrored {best(seen.flip(2), truth):.1f}")
    assert least >= 30.0
    assert best(seen.flip(2), truth) < least - 5.0
    assert best(seen.flip(1), truth) < least - 5.0
