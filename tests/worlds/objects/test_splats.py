"""Reference splats: what eight bits leave of a scene, and that pictures of parts add up to those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import tooling
import torch

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.base import paint
from gsdistill.worlds.objects.catalogue import models
from gsdistill.worlds.objects.meshes import folder, mesh_of
from gsdistill.worlds.objects.splats import LUMINANCE, Reference, colored, draw, merge, reference, split
from objects import needs_meshes


def scene(count: int = 300, seed: int = 0, paint_share: float = 0.5) -> Reference:
    """Random flat Gaussians in the ball."""
    torch.manual_seed(seed)
    gaussians = Gaussians(
        means=(torch.randn(count, 3) * 0.25).clamp(-0.99, 0.99),
        quats=torch.randn(count, 4),
        scales=torch.randn(count, 3) * 0.7 - 3.0,
        opacities=torch.randn(count) + 1.5,
        sh=((torch.rand(count, 1, 3) - 0.5) / SH_C0),
    )
    outline = gaussians.means.numpy()[:26].astype(float)
    return Reference(gaussians, torch.rand(count) < paint_share, 0.4, outline, np.array([0.0, 0.1, 0.5]))


def covariances(g: Gaussians) -> torch.Tensor:
    w, x, y, z = torch.nn.functional.normalize(g.quats, dim=1).unbind(1)
    turn = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        1,
    ).reshape(-1, 3, 3)  # fmt: skip
    return turn @ torch.diag_embed(g.scales.exp().square()) @ turn.transpose(1, 2)


def test_what_is_kept_is_the_same_scene_to_the_last_bits_kept():
    one = scene()
    back = merge(split(one))
    order = [int((back.gaussians.means - mean).norm(dim=1).argmin()) for mean in one.gaussians.means]
    assert sorted(order) == list(range(300))
    again = back.gaussians.each(lambda value: value[order])
    assert float((again.means - one.gaussians.means).abs().max()) <= 1 / 4095
    assert (
        float((torch.sigmoid(again.opacities) - torch.sigmoid(one.gaussians.opacities)).abs().max()) <= 0.5 / 255 + 1e-6
    )
    assert float((again.sh - one.gaussians.sh).abs().max()) * SH_C0 <= 0.5 / 255 + 1e-6
    ours, true = covariances(again), covariances(one.gaussians)
    error = (ours - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)
    assert float(error.max()) < 0.06 and float(error.mean()) < 0.03  # scales in steps of 3 %, angles of 0.5 degrees
    assert torch.equal(back.main[order], one.main) and back.level == pytest.approx(0.4)
    pictures = [render(g, orbit(3, 48), torch.ones(3, 3)).images for g in (one.gaussians, back.gaussians)]
    assert float(-10 * (pictures[0] - pictures[1]).square().mean().log10()) > 35


def test_parts_and_what_is_fixed_add_up_to_the_picture():
    one, cameras = scene(), orbit(3, 40)
    whole = render(one.gaussians, cameras, torch.zeros(3, 3))
    own, painted = (draw([one], [word], cameras) for word in (False, True))
    assert not own.shade.any()
    torch.testing.assert_close(own.fixed.movedim(1, -1), whole.images, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own.coverage[:, 0, ..., None], whole.alphas, atol=1e-5, rtol=1e-4)
    # a word of the colour that the main Gaussians have changes nothing where theirs is grey
    grey = Reference(
        Gaussians(*[*list(one.gaussians.tensors().values())[:4], torch.full((300, 1, 3), (0.3 - 0.5) / SH_C0)]),
        one.main, 0.3, one.outline, one.support,
    )  # fmt: skip
    seen, alpha = paint(draw([grey], [True], cameras), torch.full((1, 3), 0.3), torch.zeros(3, 3))
    torch.testing.assert_close(seen, 0.3 * alpha.expand_as(seen), atol=1e-5, rtol=1e-3)
    assert painted.shade.any() and float(LUMINANCE.sum()) == pytest.approx(1.0)


def test_in_colours_it_is_one_splat_of_the_same_picture():
    top, bottom, cameras = scene(seed=1), scene(seed=2), orbit(2, 40)
    given, colors = ([top, bottom], [False, True]), torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.5, 0.4]])
    seen, alpha = paint(draw(*given, cameras), colors, torch.zeros(2, 3))
    whole = render(colored(*given, colors), cameras, torch.zeros(2, 3))
    torch.testing.assert_close(whole.images, seen, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.alphas, alpha, atol=1e-5, rtol=1e-4)


def test_one_on_another_hides_it():
    top, bottom, cameras = scene(seed=1), scene(seed=2), orbit(2, 40)
    both = draw([top, bottom], [False, True], cameras)
    assert both.coverage.shape == (2, 2, 40, 40) and float(both.coverage.sum(1).max()) <= 1.0 + 1e-5
    assert not both.shade[:, 0].any() and both.shade[:, 1].any()
    rows = torch.arange(40.0)[:, None]
    middle = [(both.coverage[:, part] * rows).sum() / both.coverage[:, part].sum() for part in (0, 1)]
    assert middle[0] < middle[1] - 4  # the first is above


def test_without_the_file_the_world_says_what_helps(tmp_path):
    with pytest.raises(BadFile, match="GSDISTILL_OBJECTS names the meshes"):
        reference("chair_01", tmp_path / "none.npz")


@needs_meshes
@pytest.mark.slow
def test_a_model_is_fitted_and_read_back(tmp_path):
    tool = tooling.tool("objects/splats")
    names = ("burger_01", "chair_01")
    parts = []
    for name in names:
        mesh = mesh_of(models()[name], folder())
        parts.append(split(tool.fit(mesh, tool.Settings(work=tmp_path, gaussians=400, steps=60), 0)))
        figures = tool.judge(merge(parts[-1]), mesh)
        assert figures["psnr"] > 19 and figures["iou"] > 0.85
    tool.write(parts, names, tmp_path / "splats.npz")
    for name, part in zip(names, parts, strict=True):
        assert torch.equal(reference(name, tmp_path / "splats.npz").gaussians.means, merge(part).gaussians.means)
