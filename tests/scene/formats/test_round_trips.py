"""What each format gives back: what the tests' own decoders find, and as exact as its steps allow."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from export.decoders import READERS
from export.scenes import extreme, pebble
from hypothesis import given, settings
from hypothesis import strategies as st
from scene.written import written

from gsdistill.core.frames import FRAMES
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.export.settings import extensions
from gsdistill.scene.read import open_splat, read_splat
from gsdistill.scene.turn import to_frame

EXTENSION = {name: extension for extension, name in extensions().items()}
NAMES = list(EXTENSION)
every_format = pytest.mark.parametrize("name", NAMES)


def kept(name: str, scene: Gaussians) -> Gaussians:
    return replace(scene, sh=scene.sh[:, :1]) if name == "splat" else scene


def apart(one: Gaussians, other: Gaussians) -> dict[str, float]:
    """The largest differences: of opacities as such, of rotations as angles in radians."""
    p, q = (torch.nn.functional.normalize(scene.quats.double(), dim=1) for scene in (one, other))
    chord = torch.minimum((p - q).norm(dim=1), (p + q).norm(dim=1))
    found = {
        "means": one.means.double() - other.means.double(),
        "angles": 4 * torch.asin(chord / 2),
        "scales": one.scales - other.scales,
        "opacities": one.opacities.double().sigmoid() - other.opacities.double().sigmoid(),
        "sh0": one.sh[:, :1] - other.sh[:, :1],
        "higher": one.sh[:, 1:] - other.sh[:, 1:] if one.sh_degree else torch.zeros(1),
    }
    return {key: float(value.abs().max()) for key, value in found.items()}


@every_format
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_it_is_what_an_independent_decoder_finds(tmp_path, name, degree, count):
    path = written(tmp_path, EXTENSION[name], pebble(count, degree))
    ours, theirs = open_splat(path).gaussians, READERS[name](path)
    assert len(ours) == count and ours.sh.shape == theirs.sh.shape
    found = apart(ours, theirs)
    assert found["angles"] < 2e-3 and not {key for key, value in found.items() if value > 2e-6 and key != "angles"}
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in ours.tensors().values())


@every_format
def test_extremes_come_back_finite_and_where_they_were(tmp_path, name):
    scene = kept(name, extreme())
    found = read_splat(written(tmp_path, EXTENSION[name], scene))
    assert len(found) == len(scene) and all(value.isfinite().all() for value in found.tensors().values())
    assert torch.cdist(scene.means, found.means).amin(dim=1).max() < 2e-3


# --- properties


@st.composite
def scenes(draw) -> Gaussians:
    """Gaussians that every format has room for, 1 to 40, SH degree 0 to 3."""
    count, degree = draw(st.integers(1, 40)), draw(st.integers(0, 3))
    g = np.random.default_rng(draw(st.integers(0, 2**32)))
    reach = draw(st.sampled_from([1e-3, 1.0, 50.0, 2000.0]))
    sh = g.uniform(-1, 127 / 128, (count, (degree + 1) ** 2, 3))
    sh[:, 0] = g.uniform(-0.49, 0.49, (count, 3)) / SH_C0
    arrays = (
        g.uniform(-reach, reach, (count, 3)), g.normal(size=(count, 4)), g.uniform(-9.9, 5.9, (count, 3)),
        g.uniform(-9, 9, count), sh,
    )  # fmt: skip
    return Gaussians(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))


def read_back(name: str, scene: Gaussians, frame) -> tuple[Gaussians, Gaussians, dict]:
    """The scene in the axes of its file, what is read of that in the same order, and a description in JSON."""
    with TemporaryDirectory() as folder:
        path = written(Path(folder), EXTENSION[name], scene, frame)
        content = open_splat(path)
        meta = json.loads(zipfile.ZipFile(path).read("meta.json")) if name == "sog" else None
    axes = content.named or frame or content.usual
    truth, found = to_frame(scene, axes), content.gaussians
    order = torch.cdist(truth.means.double(), found.means.double()).argmin(dim=1)
    assert len(order.unique()) == len(found) == len(scene)
    return truth, found.each(lambda value: value[order]), meta


frames = st.sampled_from([None, *FRAMES])
quick = settings(max_examples=25, deadline=None, derandomize=True)


@given(scene=scenes(), frame=frames)
@quick
def test_a_ply_gives_back_what_it_was_given(scene, frame):
    truth, found, _ = read_back("ply", scene, frame)
    assert torch.equal(found.means, truth.means) and torch.equal(found.sh, truth.sh)
    assert torch.equal(found.scales, truth.scales) and torch.equal(found.opacities, truth.opacities)
    assert apart(found, truth)["angles"] < 1e-6


@given(scene=scenes(), frame=frames)
@quick
def test_a_glb_does_up_to_the_rounding_of_an_exponential(scene, frame):
    truth, found, _ = read_back("glb", scene, frame)
    assert torch.equal(found.means, truth.means) and torch.equal(found.sh, truth.sh)
    found = apart(found, truth)
    assert found["angles"] < 1e-6 and found["scales"] < 2e-6 and found["opacities"] < 2e-7


@given(scene=scenes(), frame=frames)
@quick
def test_a_splat_is_right_to_half_a_byte(scene, frame):
    truth, found, _ = read_back("splat", scene, frame)
    assert torch.equal(found.means, truth.means) and found.sh_degree == 0
    truth = replace(truth, sh=truth.sh[:, :1])
    bounds = {"scales": 2e-6, "opacities": 0.5 / 255, "sh0": 0.5 / 255 / SH_C0, "angles": 1 / 64}
    found = apart(found, truth)
    assert not {key for key, bound in bounds.items() if found[key] > 1.0001 * bound}


@given(scene=scenes(), frame=frames)
@quick
def test_an_spz_is_right_to_half_a_step(scene, frame):
    spread = replace(scene, means=scene.means + torch.arange(len(scene))[:, None] * 2.0**-10)  # told apart by place
    spread = replace(spread, means=spread.means.clamp(-2047, 2047))
    truth, found, _ = read_back("spz", spread, frame)
    within = truth.sh[:, 1:].abs() <= 127 / 128  # beyond they are cut off; turning may bring them there
    assert ((found.sh - truth.sh)[:, 1:].abs() <= 1.0001 / 256)[within].all()
    bounds = {"means": 2**-13, "scales": 1 / 32, "opacities": 0.5 / 255, "sh0": 0.5 / 255 / 0.15, "angles": 4e-3}
    found = apart(found, truth)
    assert not {key for key, bound in bounds.items() if found[key] > 1.0001 * bound}


@given(scene=scenes(), frame=frames)
@quick
def test_a_sog_is_the_nearest_entry_of_its_codebooks_and_right_to_half_a_step_of_its_logarithm(scene, frame):
    truth, found, meta = read_back("sog", scene, frame)
    logs = torch.sign(truth.means.double()) * torch.log1p(truth.means.double().abs())
    steps = (logs.amax(dim=0) - logs.amin(dim=0)) / 65535
    off = torch.sign(found.means.double()) * torch.log1p(found.means.double().abs()) - logs
    assert (off.abs() <= 0.5001 * steps + 1e-7).all()
    for values, exact, part in (
        (found.scales, truth.scales, "scales"),
        (found.sh[:, :1], truth.sh[:, :1], "sh0"),
        (found.sh[:, 1:], truth.sh[:, 1:], "shN"),
    ):
        if values.numel():
            book = torch.tensor(meta[part]["codebook"], dtype=torch.float64)
            best = (exact.double()[..., None] - book).abs().amin(dim=-1)
            assert ((values.double() - exact).abs() <= best + 1e-6).all()
    found = apart(found, truth)
    assert found["opacities"] <= 0.5001 / 255 and found["angles"] < 4 * np.sqrt(3) * np.sqrt(2) / 255 / 2


@given(scene=scenes(), frame=frames)
@quick
def test_a_compressed_ply_is_right_to_half_a_step_between_the_bounds_of_all(scene, frame):
    truth, found, _ = read_back("compressed-ply", scene, frame)
    for key, bits in (("means", (2047, 1023, 2047)), ("scales", (2047, 1023, 2047))):
        exact, read = getattr(truth, key).double(), getattr(found, key).double()
        steps = (exact.amax(dim=0) - exact.amin(dim=0)) / torch.tensor(bits)
        assert ((read - exact).abs() <= 0.5001 * steps + 1e-5 * exact.abs().max()).all()
    found = apart(found, truth)
    width = float(truth.sh[:, 0].max() - truth.sh[:, 0].min())
    assert found["sh0"] <= 0.501 * width / 255 + 1e-5 and found["opacities"] <= 0.501 / 255
    assert found["higher"] <= 1.0001 * 4 / 256 + 1e-6 and found["angles"] < 4e-3
