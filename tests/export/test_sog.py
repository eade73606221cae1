import io
import json
import re
import zipfile

import numpy as np
import pytest
import torch
from export.scenes import errors, fidelity, pebble, written
from PIL import Image
from scipy.spatial import KDTree

from gsdistill.export._codebook import codebook, palette
from gsdistill.export.sog import Sog
from gsdistill.scene.turn import from_frame


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_value_is_right_to_half_a_step(tmp_path, degree):
    found = errors("sog", pebble(400, degree), tmp_path)
    bounds = {"means": 2e-5, "opacities": 0.5 / 255, "angles": 4 * np.sqrt(3) * np.sqrt(2) / 255 / 2}
    bounds |= {"scales": 1.5 / 127 / 2, "sh0": 1.78 / 127 / 2} | {
        f"sh{k}": 0.85 / 127 / 2 for k in range(1, degree + 1)
    }
    assert found.keys() == bounds.keys()
    assert not {kind: error for kind, error in found.items() if error > 1.001 * bounds[kind]}


def test_the_bundle_holds_what_its_description_names(tmp_path):
    Sog().write(pebble(1000, 2), tmp_path / "a.sog")
    with zipfile.ZipFile(tmp_path / "a.sog") as bundle:
        meta = json.loads(bundle.read("meta.json"))
        sizes = {name: Image.open(io.BytesIO(bundle.read(name))).size for name in bundle.namelist()[1:]}
    parts = [meta[part] for part in ("means", "scales", "quats", "sh0", "shN")]
    assert (meta["version"], meta["count"]) == (2, 1000)
    assert (meta["shN"]["bands"], meta["shN"]["count"]) == (2, 1000)
    assert [name for part in parts for name in part["files"]] == list(sizes)
    assert sizes.pop("shN_centroids.webp") == (64 * 8, 16)
    assert set(sizes.values()) == {(32, 32)}
    assert all(len(part["codebook"]) == 256 for part in parts if "codebook" in part)


def test_few_values_are_their_own_codebook():
    g = np.random.default_rng(0)
    for distinct in (1, 2, 3, 50):
        values = g.choice(g.normal(size=distinct), size=(200, 3))
        book, places = codebook(values)
        assert np.abs(book[places] - values).max() < 1e-12


@pytest.mark.slow
def test_a_codebook_is_near_the_best_and_spares_no_outlier():
    values = np.append(np.random.default_rng(0).normal(size=100_000), 40.0)
    book, places = codebook(values)
    assert (np.diff(book) >= 0).all() and places.dtype == np.uint8
    assert (np.abs(values[:, None] - book).argmin(1) == places).mean() > 0.9999
    best = np.sqrt(3) * np.pi / 2 / 256**2  # Panter and Dite's limit for a normal distribution
    assert np.square(values - book[places]).mean() < 2 * best
    assert abs(book[places[-1]] - 40.0) < 1e-9


def test_a_palette_of_many_vectors_has_65536_that_stand_for_their_neighbours():
    g = np.random.default_rng(0)
    points = g.uniform(size=(150_000, 2)).astype(np.float32)
    entries, labels = palette(points)
    assert entries.shape == (65536, 2) and labels.shape == (150_000,)
    assert set(np.bincount(labels, minlength=65536)) == {2, 3}
    assert np.abs(entries[labels] - points).mean() < 2 / 256
    means = np.stack([np.bincount(labels, points[:, k]) / np.bincount(labels) for k in range(2)], 1)
    assert np.abs(entries - means).max() < 1e-6


def test_a_palette_of_few_vectors_is_they_themselves():
    vectors = np.random.default_rng(0).normal(size=(100, 9))
    entries, labels = palette(vectors)
    assert np.array_equal(entries[labels], vectors)


def test_floaters_leave_the_others_in_their_places_and_what_they_lose_themselves_is_told(tmp_path):
    scene = pebble(2000, 0)
    assert Sog().write(scene, tmp_path / "a.sog") == []
    scene.means[5], scene.means[9] = torch.tensor([2e7, 1e6, -3e6]), torch.tensor([-2e7, 1e3, 4e6])
    (told,) = Sog().write(scene, tmp_path / "a.sog")
    assert re.fullmatch(r"positions of [12] of 2,000 Gaussians are rounded by up to [\d.]+, more than half .*", told)
    found = from_frame(written("sog", scene, tmp_path), "rdf")
    near, _ = KDTree(found.means.numpy()).query(scene.means.numpy())
    assert np.delete(near, [5, 9]).max() < 1.3e-3 and fidelity(scene, found)[0] > 45
