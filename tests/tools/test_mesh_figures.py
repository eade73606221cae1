"""Meshes are measured against the truth, and folders that are named are read and never written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tooling

from gsdistill.core.errors import BadFile
from gsdistill.mesh.settings import MeshSettings

ROOT = Path(__file__).parents[2]
SMALL = MeshSettings(resolution=32, texture=256)


@pytest.fixture
def tool(monkeypatch):
    module = tooling.tool("readme/mesh_figures")
    monkeypatch.setattr(module, "SIDE", 32)
    return module


def settings(tool, folder: Path):
    return tool.Settings(
        folder / "out", json=folder / "a.json", prompts=("a green chair",), runs=(folder / "run",), mesh=SMALL
    )


@pytest.mark.slow
def test_a_run_is_measured_and_left_as_it_is(tool, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    shutil.copy(ROOT / "tests" / "data" / "chair.ply", tmp_path / "run" / "gaussians.ply")
    tool.main(settings(tool, tmp_path))
    kept = json.loads((tmp_path / "a.json").read_text())
    assert kept.keys() == {"processor", "settings", "meshes"} and kept["settings"]["resolution"] == 32
    figures = kept["meshes"]["a green chair"]
    assert figures["watertight"] and figures["parts"] == 1 and figures["gaussians"] == 670
    assert figures["chamfer"] == pytest.approx(0.5 * (figures["mesh_to_truth"] + figures["truth_to_mesh"]))
    assert figures["chamfer"] < 0.04
    assert f"| {figures['chamfer']:.4f} |" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["gaussians.ply"]


def test_a_folder_that_is_no_run_is_an_error_and_no_place_for_one(tool, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(BadFile, match=r"is a folder without gaussians\.ply"):
        tool.main(settings(tool, tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
