"""Scenes that a wrong file cannot hide in, and the pictures by which a read scene is judged."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from export.decoders import READERS
from scipy.spatial import KDTree

from gsdistill.core.structs import SH_C0, Cameras, Gaussians
from gsdistill.export.formats import writer_for
from gsdistill.export.settings import ExportSettings
from gsdistill.renderer.base import render
from gsdistill.scene.turn import from_frame, to_frame, turned
from gsdistill.scene.viewpoints import look_at_origin

MIRROR = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))  # left for right


def pebble(count: int, degree: int, seed: int = 0) -> Gaussians:
    """A lopsided textured stone in our world's axes, made of thin flakes that lie askew.

    No rotation or reflection maps it to itself. Base colours vary by 0.25 and the coefficients of every higher band by
    0.25, all as waves in space, so that colours change strongly with the view and few are cut off at 0 or 1.
    """
    g = torch.Generator().manual_seed(seed)
    d = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    x, y, z = d.unbind(1)
    radius = 0.6 + 0.2 * x * y + 0.15 * z + 0.1 * y.pow(3) - 0.08 * x * z
    means = d * radius[:, None]
    scales = math.log(2.6 / math.sqrt(count)) + torch.empty(count, 3).uniform_(-1.2, 0.3, generator=g)
    coefficients = (degree + 1) ** 2
    waves, phases = torch.randn(3, coefficients, 3, generator=g), torch.rand(coefficients, 3, generator=g)
    waves *= torch.tensor([8.0, *[2.5] * (coefficients - 1)])[:, None]
    sh = 0.25 * torch.sin(torch.einsum("nd,dkc->nkc", means, waves) + 2 * math.pi * phases)
    sh[:, 0] /= SH_C0
    return Gaussians(
        means=means,
        quats=torch.randn(count, 4, generator=g),
        scales=scales,
        opacities=1.0 + 2.0 * torch.randn(count, generator=g),
        sh=sh,
    )


def extreme() -> Gaussians:
    """A pebble with values at the ends of what training can reach."""
    stone = pebble(300, 3)
    opacities, scales, sh = stone.opacities.clone(), stone.scales.clone(), stone.sh.clone()
    opacities[:4] = torch.tensor([-20.0, 20.0, -80.0, 80.0])
    scales[0], scales[2] = 100.0, -100.0  # of what cannot be seen
    scales[4:8] = torch.tensor([[-12.0, -12.0, -12.0], [-30.0, -3.0, -3.0], [-12.0, -2.0, -4.0], [1.0, -12.0, 0.0]])
    sh[8, 0], sh[9, 0], sh[10] = 9.0, -9.0, 5.0
    return replace(stone, opacities=opacities, scales=scales, sh=sh)


def held_out(size: int = 96) -> Cameras:
    """Six cameras all around, at odd angles."""
    angles = torch.tensor([[11.0, 17.0], [73.0, -23.0], [128.0, 52.0], [197.0, 5.0], [251.0, -48.0], [322.0, 31.0]])
    return look_at_origin(angles[:, 0], angles[:, 1], torch.full((6,), 2.6), torch.full((6,), 40.0), size)


def pictures(gaussians: Gaussians, size: int = 96) -> torch.Tensor:
    """What the held-out cameras see before grey, [6, size, size, 3] in 0..1."""
    cameras = held_out(size)
    with torch.no_grad():
        return render(gaussians, cameras, torch.full((len(cameras), 3), 0.5)).images.clamp(0.0, 1.0)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in 0..1, decibels; 160 at most."""
    return -10.0 * math.log10(max(float((one.double() - other.double()).square().mean()), 1e-16))


def mirrored(gaussians: Gaussians) -> Gaussians:
    """The mirror image: what a writer or reader with one flipped axis makes of a scene."""
    return turned(gaussians, MIRROR)


def fidelity(truth: Gaussians, found: Gaussians, size: int = 96) -> tuple[float, float]:
    """PSNR of the pictures of ``found`` to those of ``truth``, and to those of its mirror image."""
    seen = pictures(found, size)
    return psnr(seen, pictures(truth, size)), psnr(seen, pictures(mirrored(truth), size))


def written(name: str, scene: Gaussians, folder: Path) -> Gaussians:
    """What the reader of our own finds in the file of the format ``name``, in the file's axes: right, down, front."""
    path = folder / f"a.{name.replace('-', '.')}"
    writer_for(path, ExportSettings()).write(scene, path)
    return READERS[name](path)


def round_trip(name: str, scene: Gaussians, folder: Path) -> tuple[float, float]:
    """:func:`fidelity` to the scene of what is written and read."""
    return fidelity(scene, from_frame(written(name, scene, folder), "rdf"))


def errors(name: str, scene: Gaussians, folder: Path) -> dict[str, float]:
    """The largest difference of what is written and read to the scene, in the file's axes, kind by kind.

    Gaussians are paired by their means. Rotations differ by an angle in radians, opacities are compared as such and not
    as logits, and each band of the harmonics is on its own: ``sh0`` to ``sh3``.
    """
    truth, found = to_frame(scene, "rdf"), written(name, scene, folder)
    _, places = KDTree(found.means.numpy()).query(truth.means.numpy())
    assert len(set(places)) == len(found) == len(truth)
    found = found.each(lambda value: value[torch.from_numpy(places)])
    p, q = (torch.nn.functional.normalize(g.quats.double(), dim=1) for g in (truth, found))
    chord = torch.minimum((p - q).norm(dim=1), (p + q).norm(dim=1))
    apart = {
        "means": truth.means - found.means,
        "angles": 4 * torch.asin(chord / 2),
        "scales": truth.scales - found.scales,
        "opacities": truth.opacities.sigmoid() - found.opacities.sigmoid(),
    }
    for band in range(found.sh_degree + 1):
        here = slice(band * band, (band + 1) ** 2)
        apart[f"sh{band}"] = truth.sh[:, here] - found.sh[:, here]
    return {key: float(value.abs().max()) for key, value in apart.items()}
