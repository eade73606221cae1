"""What who looks is sent: every object at its place, and what the panel asks for."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gsdistill.core.errors import BadFile, NotInstalled
from gsdistill.export.ply import Ply
from gsdistill.viewer.command import present, view
from gsdistill.viewer.server import serve
from gsdistill.viewer.sources import find
from gsdistill.viewer.splat import UNIT, Splat
from gsdistill.viewer.stage import SPACING, places, set_camera

pytest.importorskip("viser")


@pytest.fixture
def show(console, look):
    """``show(paths)``: a page of them, and one who looks at it once all of them are there."""
    running = []

    def start(*paths):
        server, url = serve("127.0.0.1", 0, console)
        running.append((server, present(server, [find(path) for path in paths], console)))
        looker = look(url)
        looker.until(lambda: len(looker.buffers) == len(paths))
        return looker

    start.running = running
    yield start
    for server, stage in running:
        stage.close()
        server.stop()


@pytest.fixture
def file(tmp_path, splat):
    """``file(count, degree, seed)``: a splat in a file."""

    def write(count=100, degree=0, seed=0):
        path = tmp_path / f"{count}-{degree}-{seed}.ply"
        Ply().write(splat(count, degree, seed), path)
        return path

    return write


def test_a_splat_arrives(show, file, splat):
    looker, gaussians = show(file()), splat(100)
    np.testing.assert_allclose(looker.centers()[:100] * UNIT, gaussians.means, atol=1e-6)
    expected = Splat.of(gaussians).arrays((3.0, 0.0, 1.0))
    upper = expected[1][:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    np.testing.assert_allclose(looker.covariances(), upper, rtol=1e-3, atol=1e-6)
    assert (looker.colours() == np.concatenate(expected[2:], axis=1)).all()
    assert looker.nodes["/splats/0"]["scale"] == UNIT
    assert looker.texts == []


def test_sliders_change_what_is_sent(show, file, splat):
    looker, opacities = show(file()), splat(100).opacities.sigmoid().numpy()
    before = looker.covariances()
    looker.turn("splat size", 0.5)
    looker.until(lambda: not np.array_equal(looker.covariances(), before))
    np.testing.assert_allclose(looker.covariances(), before / 4, rtol=2e-3, atol=1e-6)
    looker.turn("opacity from", 0.3)
    looker.until(lambda: not looker.colours()[:100, 3].all())
    assert (looker.colours()[:100, 3] > 0).tolist() == (opacities >= 0.3).tolist()


def test_of_many_moves_the_last_one_counts(show, file):
    looker = show(file())
    before = looker.covariances()
    for size in np.linspace(0.1, 1.95, 60).tolist():
        looker.turn("splat size", size)
    expected = before * 1.95**2
    looker.until(lambda: bool(np.allclose(looker.covariances(), expected, rtol=2e-3, atol=1e-5)))


def test_several_stand_side_by_side_under_their_names(show, file):
    files = [file(10, seed=seed) for seed in range(3)]
    looker = show(*files)
    assert [looker.nodes[f"/splats/{i}"].get("position", (0, 0, 0))[1] for i in range(3)] == [-SPACING, 0, SPACING]
    looker.until(lambda: len(looker.texts) == 3)
    assert looker.texts == [path.name for path in files]
    looker.turn(files[1].name, False)
    looker.until(lambda: looker.nodes["/splats/1"].get("visible") is False)


def test_places_never_touch():
    spots = np.array(places(7))
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=-1)[~np.eye(7, dtype=bool)]
    assert apart.min() == pytest.approx(SPACING)
    assert abs(spots.mean(axis=0)).max() < SPACING
    assert places(1) == [(0.0, 0.0, 0.0)]


def test_all_places_are_in_sight_beside_the_panel_of_a_small_window():
    for count in range(1, 13):
        server: Any = SimpleNamespace(initial_camera=SimpleNamespace())
        set_camera(server, count)
        camera, directions = server.initial_camera, np.random.default_rng(0).normal(size=(2000, 3))
        balls = np.array(places(count))[:, None] + directions / np.linalg.norm(directions, axis=1, keepdims=True)
        back = np.array(camera.position) / np.linalg.norm(camera.position)
        right = np.cross(camera.up, back) / np.linalg.norm(np.cross(camera.up, back))
        seen = balls - camera.position
        depth = -(seen @ back) * np.tan(camera.fov / 2)
        assert np.abs(seen @ right / depth).max() < 764 / 625
        assert np.abs(seen @ np.cross(back, right) / depth).max() < 1


def test_a_splat_beside_itself_has_a_name_at_either_place(show, file):
    path = file(10)
    looker = show(path, path)
    looker.until(lambda: len(looker.texts) == 2)
    assert looker.texts == [path.name] * 2


def test_lookers_come_and_go_without_the_pool_of_a_server_that_ends(show, file, look, capfd):
    looker = show(file())
    server, stage = show.running[0]
    server._thread_executor.shutdown()
    other = look(f"http://127.0.0.1:{server.get_port()}")
    other.until(lambda: bool(other.buffers))
    for each in (looker, other):
        each.socket.close()
    end = time.monotonic() + 5.0
    while stage.watched:
        assert time.monotonic() < end
    assert capfd.readouterr() == ("", "")


def test_a_page_that_leaves_during_its_screenshot_says_nothing(show, file, capfd):
    looker = show(file())
    looker.turn("screenshot", True)
    looker.until(lambda: "GetRenderRequestMessage" in looker.kinds)
    looker.socket.close()
    time.sleep(0.5)
    assert capfd.readouterr() == ("", "")


def test_a_step_is_loaded_when_it_is_asked_for(show, tmp_path, splat):
    run = tmp_path / "run"
    for step, count in ((0, 5), (100, 6)):
        Ply().write(splat(count, seed=step), run / "snapshots" / f"step-{step:06d}.ply")
    looker = show(run)
    assert looker.controls["step"][1] == 100
    np.testing.assert_allclose(looker.centers()[:6] * UNIT, splat(6, seed=100).means, atol=1e-6)
    looker.turn("step", 0)
    looker.until(lambda: not looker.centers()[5].any())
    np.testing.assert_allclose(looker.centers()[:5] * UNIT, splat(5, seed=0).means, atol=1e-6)


def test_a_step_that_cannot_be_read_is_said_and_the_page_goes_on(show, tmp_path, splat, console):
    run = tmp_path / "run"
    for step in (0, 100):
        Ply().write(splat(5, seed=step), run / "snapshots" / f"step-{step:06d}.ply")
    looker = show(run)
    before = looker.covariances()
    (run / "snapshots" / "step-000000.ply").write_text("no splat")
    looker.turn("step", 0)
    looker.until(lambda: "step-000000.ply" in console.file.getvalue())
    looker.turn("step", 100)
    looker.turn("splat size", 0.5)
    looker.until(lambda: not np.array_equal(looker.covariances(), before))


def test_colours_follow_a_camera_that_rests_and_each_looker_has_its_own(show, file, splat, look):
    looker, found = show(file(50, degree=2)), Splat.of(splat(50, degree=2))
    host, port = looker.socket.remote_address
    other = look(f"http://{host}:{port}", eye=(0.0, 3.0, 0.0))
    other.until(lambda: bool(other.buffers))
    assert (other.colours()[:50, :3] == found.colours((0.0, 3.0, 0.0))).all()
    before = looker.colours()
    assert (before[:50, :3] == found.colours((3.0, 0.0, 1.0))).all()
    looker.look_from((-2.0, 1.0, 0.5))
    looker.until(lambda: not np.array_equal(looker.colours(), before))
    assert (looker.colours()[:50, :3] == found.colours((-2.0, 1.0, 0.5))).all()
    other.receive(0.3)
    assert (other.colours()[:50, :3] == found.colours((0.0, 3.0, 0.0))).all()


def test_mistakes_are_said_before_anything_is_served(tmp_path, console, monkeypatch):
    def shown(*paths):
        view(paths, None, False, ("127.0.0.1", 0), False, console)

    broken = tmp_path / "broken.ply"
    broken.write_text("no splat")
    with pytest.raises(BadFile, match=r"broken\.ply"):
        shown(broken)
    assert console.file.getvalue() == ""
    tables = [tmp_path / f"{number}.json" for number in range(9)]
    for table in tables:
        table.write_text("{}")
    with pytest.raises(BadFile, match=r"broken\.ply"):
        shown(*tables, broken)
    named = ", ".join(map(str, tables[:8]))
    assert console.file.getvalue() == f"skipped 9 without a splat: {named}, ...\n"
    console.file.truncate(0)
    console.file.seek(0)
    monkeypatch.setattr("gsdistill.core.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match="pip install viser"):
        shown(broken)
    assert console.file.getvalue() == ""
