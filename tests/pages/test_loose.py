"""What floats loose is found wherever it is, and shown from a side where it can be seen."""

from __future__ import annotations

import pytest
import torch

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.pages.loose import find_loose
from gsdistill.renderer.base import render


def blob(centre: tuple[float, float, float], colour: tuple[float, float, float], count: int = 300, radius: float = 0.3):
    """Gaussians that fill a ball."""
    generator = torch.Generator().manual_seed(0)
    way = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    means = way * radius * torch.rand(count, 1, generator=generator) ** (1 / 3) + torch.tensor(centre)
    sh = ((torch.tensor(colour) - 0.5) / SH_C0).expand(count, 1, 3).contiguous()
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1)
    return Gaussians(means, quats, torch.full((count, 3), 0.06).log(), torch.full((count,), 2.0), sh)


def joined(*splats: Gaussians) -> Gaussians:
    return Gaussians(*(torch.cat(each) for each in zip(*(splat.tensors().values() for splat in splats), strict=True)))


def test_a_whole_object_has_nothing_loose():
    assert find_loose(blob((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))) is None


@pytest.mark.parametrize(
    "place", [(0.0, 0.0, -0.9), (0.0, 0.0, 0.9), (0.8, 0.3, 0.0), (6.0, -5.0, 4.0), (0.0, 40.0, 0.0)]
)
def test_what_floats_is_seen_wherever_it_is(place):
    red, green = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    size = 0.02 * max(1.0, sum(x * x for x in place) ** 0.5)  # as large in the picture, which goes back to hold it
    floater = blob(place, green, 20, size)
    splat = joined(blob((0.0, 0.0, 0.0), red), floater)
    found = find_loose(splat)
    assert found is not None
    opacity = torch.sigmoid(splat.opacities)
    assert found.share == pytest.approx(float(opacity[300:].sum() / opacity.sum()))
    with torch.no_grad():
        image = render(splat, found.camera(320), torch.ones(1, 3)).images[0]
    assert ((image[..., 1] - image[..., 0]) > 0.3).sum() > 4  # green pixels


def test_what_lies_hidden_inside_is_not_shown():
    """A loose speck in a hollow, dense shell lets no light out."""
    generator = torch.Generator().manual_seed(0)
    way = torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator), dim=1) * 0.8
    shell = blob((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), 4000)
    shell = Gaussians(way, shell.quats, shell.scales, torch.full((4000,), 8.0), shell.sh)
    assert find_loose(joined(shell, blob((0.0, 0.0, 0.0), (0.0, 1.0, 0.0), 20, 0.05))) is None
