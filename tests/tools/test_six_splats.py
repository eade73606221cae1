"""Each of the six splats has the fault of its name, and a figure that says so."""

from __future__ import annotations

import json
import math

import pytest
import tooling
import torch
from PIL import Image

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.evaluation.references import surface_points
from gsdistill.export.ply import Ply
from gsdistill.worlds.base import world_named


@pytest.fixture
def tool(monkeypatch):
    module = tooling.tool("readme/six_splats")
    monkeypatch.setattr(module, "SIDE", 16)
    return module


def torus() -> Gaussians:
    """Red Gaussians on the true surface, unlit."""
    points = surface_points(world_named("shapes"), ("torus",)).float()
    return Gaussians(
        means=points,
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(points), 1),
        scales=torch.full((len(points), 3), math.log(0.015)),
        opacities=torch.full((len(points),), 4.0),
        sh=((torch.tensor([0.6, 0.08, 0.08]) - 0.5) / SH_C0).expand(len(points), 1, 3).contiguous(),
    )


@pytest.mark.slow
def test_every_fault_is_told_by_a_figure(tool, tmp_path, capsys):
    Ply().write(torus(), tmp_path / "torus.ply")
    tool.main(tool.Settings(tmp_path / "out", splat=tmp_path / "torus.ply", json=tmp_path / "six.json"))
    found = json.loads((tmp_path / "six.json").read_text())["splats"]
    good = found["good"]
    assert list(found) == ["good", "mottled", "floater", "two-faced", "inside out", "half"]
    for name in ("mottled", "two-faced"):  # colours alone
        assert found[name]["surface_chamfer"] == good["surface_chamfer"] and found[name]["iou"] == good["iou"]
        assert found[name]["psnr"] < good["psnr"] - 1
    assert found["mottled"]["name"] == "nothing known"
    loss = {view: good[f"{view}psnr"] - found["two-faced"][f"{view}psnr"] for view in ("", "unseen_")}
    assert loss["unseen_"] > loss[""] > 1  # the underside is what is wrong
    assert found["floater"]["floaters"] > 0 == good["floaters"]
    assert found["half"]["truth_to_surface"] > 5 * good["truth_to_surface"]
    assert found["half"]["surface_to_truth"] < 2 * good["surface_to_truth"]  # nothing is where it should not be
    with Image.open(tmp_path / "out" / "six-splats.png") as sheet:
        assert sheet.size == (90 + 6 * 16, 24 + 7 * 16)
    assert len(capsys.readouterr().out.splitlines()) == 2 + 6


def test_inside_out_twice_is_the_splat_again(tool):
    splat = torus()
    assert torch.allclose(tool.inside_out(tool.inside_out(splat)).means, splat.means, atol=1e-5)
    assert not torch.allclose(tool.inside_out(splat).means, splat.means, atol=0.1)
