"""The cache of point clouds never gives one for another, and the line about a start says what is there."""

import pytest
import torch

from gsdistill.core.structs import PointCloud
from gsdistill.scene.clouds import describe, make_once, turned
from gsdistill.scene.init.base import round_gaussians

KEY = {"initialiser": "test", "prompt": "a red mug", "seed": 3, "model": "abc", "scale": 1.5}


class Maker:
    """Makes another cloud at each call, and counts them."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls)
        return PointCloud(torch.randn(50, 3, generator=generator), torch.rand(50, 3, generator=generator))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gsdistill" / "clouds"


def same(first, second):
    return torch.equal(first.points, second.points) and torch.equal(first.colors, second.colors)


def test_the_second_time_it_is_read_bit_for_bit(folder):
    make = Maker()
    fresh, kept = make_once(KEY, make), make_once(dict(reversed(KEY.items())), make)  # the order of a key says nothing
    assert make.calls == 1 and same(fresh, kept)
    (file,) = folder.iterdir()
    assert file.name.startswith("a-red-mug-") and file.suffix == ".safetensors"


@pytest.mark.parametrize(
    "change", [{"prompt": "a red mug!"}, {"seed": 4}, {"model": "abd"}, {"scale": 1.25}, {"more": None}]
)
def test_another_key_is_another_cloud(folder, change):
    make = Maker()
    first, other, again = make_once(KEY, make), make_once({**KEY, **change}, make), make_once(KEY, make)
    assert make.calls == 2 and not same(first, other) and same(first, again)
    assert len(list(folder.iterdir())) == 2  # each is kept


def test_a_file_under_a_wrong_name_is_not_believed(folder):
    """As if two keys had one hash: the whole key in the file decides."""
    make = Maker()
    make_once(KEY, make)
    make_once({**KEY, "seed": 4}, make)
    first, second = sorted(folder.iterdir())
    first.write_bytes(second.read_bytes())
    one, other = make_once(KEY, make), make_once({**KEY, "seed": 4}, make)
    assert make.calls == 3 and not same(one, other)


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_broken_file_is_made_anew(folder, content):
    make = Maker()
    make_once(KEY, make)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    fresh, kept = make_once(KEY, make), make_once(KEY, make)
    assert make.calls == 2 and same(fresh, kept)


def test_values_are_float32_on_the_cpu_without_a_graph(folder):
    def make():
        points = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
        return PointCloud(points, torch.rand(3, 9, dtype=torch.float64).T)

    for cloud in (make_once(KEY, make), make_once(KEY, make)):
        assert cloud.points.dtype == cloud.colors.dtype == torch.float32
        assert cloud.colors.is_contiguous() and not cloud.points.requires_grad


def test_what_fails_is_not_kept(folder):
    def fails():
        raise RuntimeError("no cloud")

    with pytest.raises(RuntimeError, match="no cloud"):
        make_once(KEY, fails)
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "gsdistill").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make = Maker()
    assert len(make_once(KEY, make)) == len(make_once(KEY, make)) == 50 and make.calls == 2


def test_a_turn_is_counter_clockwise_from_above():
    points = torch.tensor([[1.0, 0.0, 0.5], [0.0, 2.0, 0.0]])
    assert torch.allclose(turned(points, 90), torch.tensor([[0.0, 1.0, 0.5], [-2.0, 0.0, 0.0]]), atol=1e-6)
    assert torch.equal(turned(points, 0), points)
    assert torch.allclose(turned(turned(points, 77), -77), points, atol=1e-6)


def test_a_start_is_told_in_one_line():
    means = torch.tensor([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, -0.8]])
    colors = torch.tensor([[1.0, 0.0, 0.25], [0.0, 0.0, 0.25], [1.0, 0.0, 0.25], [0.0, 0.0, 0.25]])
    line = describe(round_gaussians(means, torch.full((4,), 0.1), 0.2, colors, 1))
    assert line == (
        "4 Gaussians, box 1.00 0.20 0.80, farthest 0.80 from the origin; "
        "red green blue: mean 0.50 0.00 0.25, deviation 0.50 0.00 0.00"
    )
