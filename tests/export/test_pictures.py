import math
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from export.scenes import pebble
from PIL import Image, ImageSequence

from gsdistill.core.errors import ConfigError, OutputError
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.export import pictures
from gsdistill.export.pictures import (
    shots,
    with_alpha,
    write_contact_sheet,
    write_film,
    write_preview,
    write_stills,
    write_turntable,
)
from gsdistill.renderer.base import render
from gsdistill.scene.edit import scaled
from gsdistill.scene.viewpoints import orbit


def ball(position, color, std: float = 0.1) -> Gaussians:
    """One nearly opaque Gaussian."""
    return Gaussians(
        means=torch.tensor([position]),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), std).log(),
        opacities=torch.tensor([6.0]),
        sh=((torch.tensor([[color]]) - 0.5) / SH_C0),
    )


def centre_of(pixels: np.ndarray, background: float = 255.0) -> tuple[float, float]:
    """Column and row of the centre of what differs from the background."""
    weight = np.abs(pixels.astype(float) - background).sum(axis=-1)
    rows, columns = np.indices(weight.shape)
    return (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()


def test_the_sheet_shows_every_side_in_two_rows(tmp_path):
    write_contact_sheet(ball((0.0, 0.6, 0.0), (1.0, 0.0, 0.0)), tmp_path / "views.png", size=32, views=4, elevation=0.0)
    with Image.open(tmp_path / "views.png") as image:
        assert image.format == "PNG" and image.mode == "RGB" and image.size == (4 * 32, 2 * 32)
        pixels = np.asarray(image)
    tiles = [pixels[:32, 32 * i : 32 * (i + 1)] for i in range(4)]
    columns = [centre_of(tile)[0] for tile in tiles]
    assert columns[0] > 20 and columns[2] < 11  # +y is on the right from the front, on the left from behind
    assert abs(columns[1] - 15.5) < 0.5 and abs(columns[3] - 15.5) < 0.5  # and in the middle from the sides
    sizes = [(tile.min(axis=-1) < 128).sum() for tile in tiles]
    assert sizes[1] > sizes[3]  # nearer to the camera at azimuth 90
    assert tiles[1][16, 16, 0] > 240 and tiles[1][16, 16, 1] < 30  # red
    above = pixels[32:, 32:64]
    assert centre_of(above)[1] > 20  # seen from above, the near side is low in the picture


def test_the_last_picture_of_the_sheet_is_of_the_underside(tmp_path):
    write_contact_sheet(ball((0.0, -0.6, 0.0), (1.0, 0.0, 0.0)), tmp_path / "views.png", size=32, views=4)
    with Image.open(tmp_path / "views.png") as image:
        last, above_it = np.asarray(image)[32:, 96:], np.asarray(image)[:32, 96:]
    assert centre_of(last)[1] < 11  # seen from below, the near side is high in the picture
    assert centre_of(above_it)[1] > 15.5


def test_the_background_is_the_one_asked_for(tmp_path):
    write_contact_sheet(
        ball((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)), tmp_path / "a.png", size=16, views=1, background=(0.0, 0.2, 1.0)
    )
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, 0].tolist() == [0, 51, 255]


def test_chunks_do_not_change_the_picture(tmp_path, monkeypatch):
    scene = ball((0.2, 0.3, 0.1), (0.1, 0.6, 0.3), std=0.2)
    write_contact_sheet(scene, tmp_path / "a.png", size=16, views=5)
    monkeypatch.setattr(pictures, "PIXELS_AT_ONCE", 2 * 16 * 16)
    write_contact_sheet(scene, tmp_path / "b.png", size=16, views=5)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_turntable_is_a_video_that_browsers_play(tmp_path):
    path = tmp_path / "turn.mp4"
    write_turntable(ball((0.0, 0.6, 0.0), (0.0, 0.0, 1.0)), path, size=64, frames=12, fps=6, elevation=0.0)
    video, meta = decoded(path), next(imageio_ffmpeg.read_frames(path))
    assert np.shape(video) == (12, 64, 64, 4)
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 6
    columns = [centre_of(frame)[0] for frame in video]
    truth = 31.5 + 32 / np.tan(np.radians(20)) * 0.6 * np.cos(np.arange(12) * np.pi / 6) / (
        3.2 - 0.6 * np.sin(np.arange(12) * np.pi / 6)
    )
    assert np.abs(columns - truth).max() < 1.0
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first, so that it plays while it loads
    assert [file.name for file in tmp_path.iterdir()] == ["turn.mp4"]


@pytest.mark.parametrize("folder", ["run-12:30", "-y", "pipe:1", "concat:a|b", "%d", "a b/'c'"])
def test_a_path_is_no_word_of_the_encoder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_turntable(ball((0.0, 0.6, 0.0), (0.0, 0.0, 1.0)), Path(folder) / "turn.mp4", size=16, frames=3)
    assert np.shape(decoded(tmp_path / folder / "turn.mp4")) == (3, 16, 16, 4)
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["turn.mp4"]


def test_an_odd_video_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"size 63 .* such as 64"):
        write_turntable(ball((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), tmp_path / "a.mp4", size=63, frames=2)


def test_a_missing_ffmpeg_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    with pytest.raises(OutputError, match="no ffmpeg"):
        write_turntable(ball((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), tmp_path / "a.mp4", size=64, frames=2)
    assert not list(tmp_path.iterdir())


def test_a_render_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pictures, "render", fail)
    for write, name in [(write_contact_sheet, "a.png"), (write_turntable, "a.mp4")]:
        with pytest.raises(RuntimeError, match="out of memory"):
            write(ball((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), tmp_path / name, size=64)
    assert not list(tmp_path.iterdir())


def test_the_preview_is_a_strip_of_the_images(tmp_path):
    images = torch.rand(3, 8, 6, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    write_preview(images.requires_grad_(), tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert pixels.shape == (8, 18, 3)
    truth = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    assert all(np.array_equal(pixels[:, 6 * i : 6 * (i + 1)], truth[i]) for i in range(3))


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "a").write_text("a file, not a folder")
    with pytest.raises(OutputError, match=r"a\.png"):
        write_preview(torch.zeros(1, 4, 4, 3), tmp_path / "a" / "a.png")


def soft(count: int = 1500) -> Gaussians:
    """A sphere of all hues, shaded softly: what 256 colours serve worst."""
    index = torch.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, index * math.pi * (3 - math.sqrt(5))
    normals = torch.stack([(1 - z * z).sqrt() * turn.cos(), (1 - z * z).sqrt() * turn.sin(), z], dim=1)
    shade = 0.35 + 0.65 * (normals @ torch.tensor([0.5, 0.3, 0.8])).clamp_min(0)
    angle = torch.atan2(normals[:, 1], normals[:, 0])
    hue = torch.stack([0.5 + 0.5 * torch.cos(angle - k * 2 * math.pi / 3) for k in range(3)], dim=1)
    return Gaussians(
        means=0.8 * normals,
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        scales=torch.full((count, 3), math.log(0.05)),
        opacities=torch.full((count,), 3.0),
        sh=((hue * shade[:, None] - 0.5) / SH_C0)[:, None],
    )


def composed(pixels: np.ndarray, background: tuple[float, float, float]) -> np.ndarray:
    """What a viewer shows of bytes [..., 4] over a background, as numbers 0..255."""
    alpha = pixels[..., 3:] / 255.0
    return pixels[..., :3] * alpha + (1.0 - alpha) * 255.0 * np.array(background)


def decoded(path: Path) -> list[np.ndarray]:
    """The frames of a film as bytes [H, W, 4]."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
    words = ["-c:v", "libvpx-vp9"] if path.suffix == ".webm" else []  # the decoder that knows of alpha
    frames = imageio_ffmpeg.read_frames(path, pix_fmt="rgba", bits_per_pixel=32, input_params=words)
    width, height = next(frames)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 4) for frame in frames]


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * math.log10(255.0**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.2, 0.6, 0.4)])
def test_alpha_over_a_background_is_the_picture_rendered_before_it(background):
    stone, cameras = replace(pebble(200, 2), sh=0.3 * pebble(200, 2).sh), orbit(3, 48)
    with torch.no_grad():
        black = render(stone, cameras, torch.zeros(3, 3))
        truth = render(stone, cameras, torch.tensor(background).expand(3, 3)).images
    exact = with_alpha(black)
    alpha = exact[..., 3:]
    assert 0.1 < alpha.mean() < 0.9 and ((alpha > 0.2) & (alpha < 0.8)).any()
    assert (exact[..., :3] * alpha + (1 - alpha) * torch.tensor(background) - truth).abs().max() < 1e-5
    shown = composed(np.stack(list(shots(stone, cameras, None))), background)
    assert np.abs(shown - 255 * truth.numpy()).max() <= 1.001  # half a step of the colour, and half a step of alpha


def test_the_colour_is_not_multiplied_by_alpha():
    pixels = next(shots(ball((0.0, 0.0, 0.0), (1.0, 0.5, 0.25)), orbit(1, 33), None))
    seen = pixels[..., 3] > 10
    assert seen.sum() > 20 and pixels[seen][:, 3].min() < 60
    assert np.abs(pixels[seen][:, :3].astype(int) - (255, 128, 64)).max() <= 1


@pytest.mark.parametrize(("extension", "likeness"), [(".mp4", 31), (".gif", 35), (".webm", 32)])
def test_a_film_has_its_frames_size_and_duration(tmp_path, extension, likeness):
    scene, cameras, path = soft(), replace(orbit(12, 64), width=80), tmp_path / f"a{extension}"
    write_film(scene, cameras, path, fps=10.0)
    frames, truth = decoded(path), np.stack(list(shots(scene, cameras, (1.0, 1.0, 1.0))))
    assert len(frames) == 12 and frames[0].shape == (64, 80, 4)
    assert decibels(np.stack(frames)[..., :3], truth) > likeness  # of a GIF with one palette for all frames 32.2
    if extension == ".gif":
        with Image.open(path) as image:
            durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
            assert sum(durations) == 1200 and image.info["loop"] == 0
    else:
        assert next(imageio_ffmpeg.read_frames(path))["duration"] == pytest.approx(1.2, abs=0.01)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("extension", [".gif", ".webm"])
def test_a_film_without_background_is_clear_where_nothing_is(tmp_path, extension):
    scene, cameras = ball((0.0, 0.6, 0.0), (0.0, 0.3, 1.0), std=0.2), orbit(6, 64, elevation=0.0)
    path = tmp_path / f"a{extension}"
    write_film(scene, cameras, path, background=None)
    frames, truth = np.stack(decoded(path)), np.stack(list(shots(scene, cameras, None)))
    assert (frames[truth[..., 3] == 0][:, 3] <= 3).all()
    if extension == ".gif":
        assert np.array_equal(frames[..., 3] > 0, truth[..., 3] >= 128)
    else:
        assert decibels(composed(frames, (1.0, 1.0, 0.0)), composed(truth, (1.0, 1.0, 0.0))) > 36


def test_thirty_frames_of_a_gif_last_a_second(tmp_path):
    write_film(ball((0.0, 0.6, 0.0), (0.0, 0.3, 1.0)), orbit(30, 16), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(image)) == 1000


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        ("a.avi", 16, {}, r"'a.avi' names no format of a film. Allowed: .mp4, .gif, .webm"),
        ("a.mp4", 16, {"background": None}, r".mp4 holds no transparent background; .webm and .gif do"),
        ("a.webm", 17, {}, r"size 17 cannot be encoded as .webm; the size must be even, such as 18"),
        ("a.gif", 17, {"fps": 60.0}, r"60 frames a second are too many for a .gif; 50 is the most"),
    ],
)
def test_what_a_format_does_not_hold_is_told(tmp_path, monkeypatch, name, size, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        write_film(ball((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), orbit(2, size), name, **options)
    assert not list(tmp_path.iterdir())


def test_stills_are_one_picture_for_each_camera(tmp_path):
    scene, cameras = pebble(100, 0), orbit(3, 32)
    write_stills(scene, cameras, [tmp_path / f"{i}.png" for i in range(3)], None)
    truth = list(shots(scene, cameras, None))
    for i in range(3):
        with Image.open(tmp_path / f"{i}.png") as image:
            assert image.mode == "RGBA" and np.array_equal(np.asarray(image), truth[i])


def test_a_sheet_may_have_no_background(tmp_path):
    write_contact_sheet(ball((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)), tmp_path / "a.png", size=16, views=2, background=None)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA" and image.size == (32, 32)
        assert image.getextrema()[3][0] == 0 and image.getextrema()[3][1] > 150


def test_a_large_splat_is_seen_from_as_far(tmp_path):
    stone, near, far = pebble(200, 1), orbit(2, 32), orbit(2, 32, distance=3200.0)
    one, other = (
        np.stack(list(shots(g, c, None))).astype(int) for g, c in ((stone, near), (scaled(stone, 1000.0), far))
    )
    assert one[..., 3].max() > 200 and np.abs(one - other).max() <= 1
