from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from gsdistill.errors import ConfigError, OutputError
from gsdistill.export import pictures
from gsdistill.export.pictures import contact_sheet, preview, turntable
from gsdistill.structs import SH_C0, Gaussians


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
    contact_sheet(ball((0.0, 0.6, 0.0), (1.0, 0.0, 0.0)), tmp_path / "views.png", size=32, views=4, elevation=0.0)
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
    contact_sheet(ball((0.0, -0.6, 0.0), (1.0, 0.0, 0.0)), tmp_path / "views.png", size=32, views=4)
    with Image.open(tmp_path / "views.png") as image:
        last, above_it = np.asarray(image)[32:, 96:], np.asarray(image)[:32, 96:]
    assert centre_of(last)[1] < 11  # seen from below, the near side is high in the picture
    assert centre_of(above_it)[1] > 15.5


def test_the_background_is_the_one_asked_for(tmp_path):
    contact_sheet(
        ball((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)), tmp_path / "a.png", size=16, views=1, background=(0.0, 0.2, 1.0)
    )
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, 0].tolist() == [0, 51, 255]


def test_chunks_do_not_change_the_picture(tmp_path, monkeypatch):
    scene = ball((0.2, 0.3, 0.1), (0.1, 0.6, 0.3), std=0.2)
    contact_sheet(scene, tmp_path / "a.png", size=16, views=5)
    monkeypatch.setattr(pictures, "PIXELS_AT_ONCE", 2 * 16 * 16)
    contact_sheet(scene, tmp_path / "b.png", size=16, views=5)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_turntable_is_a_video_that_browsers_play(tmp_path):
    path = tmp_path / "turn.mp4"
    turntable(ball((0.0, 0.6, 0.0), (0.0, 0.0, 1.0)), path, size=64, frames=12, fps=6, elevation=0.0)
    video = iio.imread(path, plugin="FFMPEG")
    meta = iio.immeta(path, plugin="FFMPEG")
    assert video.shape == (12, 64, 64, 3)
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
    turntable(ball((0.0, 0.6, 0.0), (0.0, 0.0, 1.0)), Path(folder) / "turn.mp4", size=16, frames=3)
    assert iio.imread(tmp_path / folder / "turn.mp4", plugin="FFMPEG").shape == (3, 16, 16, 3)
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["turn.mp4"]


def test_an_odd_video_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"size 63 .* such as 64"):
        turntable(ball((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), tmp_path / "a.mp4", size=63, frames=2)


def test_a_missing_ffmpeg_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    with pytest.raises(OutputError, match="no ffmpeg"):
        turntable(ball((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), tmp_path / "a.mp4", size=64, frames=2)
    assert not list(tmp_path.iterdir())


def test_a_render_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pictures, "render", fail)
    for write, name in [(contact_sheet, "a.png"), (turntable, "a.mp4")]:
        with pytest.raises(RuntimeError, match="out of memory"):
            write(ball((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), tmp_path / name, size=64)
    assert not list(tmp_path.iterdir())


def test_the_preview_is_a_strip_of_the_images(tmp_path):
    images = torch.rand(3, 8, 6, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    preview(images.requires_grad_(), tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert pixels.shape == (8, 18, 3)
    truth = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    assert all(np.array_equal(pixels[:, 6 * i : 6 * (i + 1)], truth[i]) for i in range(3))


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "a").write_text("a file, not a folder")
    with pytest.raises(OutputError, match=r"a\.png"):
        preview(torch.zeros(1, 4, 4, 3), tmp_path / "a" / "a.png")
