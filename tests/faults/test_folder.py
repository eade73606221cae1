"""A folder that vanishes or changes while a run is at work, and checkpoints that are not what was written."""

from __future__ import annotations

import signal

from faults.common import at_step, before, content, one_line, steps


def test_a_folder_that_vanishes_between_two_files_is_made_anew(start, drills, whole, tmp_path):
    """What the run wrote before is lost, but not its end."""
    folder = tmp_path / "run"
    with start(folder, first=[before(3, "step-000001.safetensors", signal.SIGSTOP)]) as process:  # which goes
        assert process.until(lambda: process.held), process.text
        folder.rename(tmp_path / "gone")
        process.signal(signal.SIGCONT)
        assert process.wait() == 0, process.text
    assert drills.damaged(folder) == [] and drills.drafts(folder) == []
    lost = ["snapshots/step-000000.ply", "snapshots/step-000003.ply", "start.png"]
    assert drills.differences(folder, whole) == [f"{name} is in one of them" for name in lost]


def test_one_that_vanishes_under_a_file_is_one_line_and_a_way_on(start, drills, whole, tmp_path):
    folder = tmp_path / "run"
    with start(folder, first=[at_step(3, signal.SIGSTOP)]) as process:
        assert process.until(lambda: process.held), process.text
        folder.rename(tmp_path / "gone")
        process.signal(signal.SIGCONT)
        assert "No such file" in one_line(process) and "go on with" in process.text
    with start(folder, "--resume") as process:
        assert process.wait() == 0, process.text
    assert (folder / "gaussians.ply").read_bytes() == (whole / "gaussians.ply").read_bytes()


def test_a_folder_that_becomes_a_file(start, tmp_path):
    folder = tmp_path / "run"
    with start(folder, first=[at_step(3, signal.SIGSTOP)]) as process:
        assert process.until(lambda: process.held), process.text
        folder.rename(tmp_path / "gone")
        folder.write_text("mine")
        process.signal(signal.SIGCONT)
        assert str(folder) in one_line(process)
    assert folder.read_text() == "mine"


def test_of_a_damaged_checkpoint_the_one_before_is_taken(stopped, finish):
    damage(stopped, 3, "flipped")
    said = finish(stopped)
    assert "step-000003.safetensors" in said and "the checkpoint before it is taken" in said


def test_two_damaged_checkpoints_are_one_line_and_stay(stopped, start):
    damage(stopped, 2, "cut")
    damage(stopped, 3, "empty")
    before = content(stopped)
    with start(stopped, "--resume") as process:
        line = one_line(process)
    assert all(f"step-{step:06d}.safetensors" in line for step in (2, 3)) and steps(stopped) == [2, 3]
    assert content(stopped) == before


def damage(folder, step, harm):
    """Harm the checkpoint of a step."""
    path = folder / "checkpoints" / f"step-{step:06d}.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b""}[harm])
