"""Free play and the command: what is written, what is refused, worlds, and how samples are judged."""

from __future__ import annotations

import json

import pytest
import torch

from gsdistill.cli.main import execute
from gsdistill.laboratory.coverage import differences, mean_difference, nearest_objects
from gsdistill.laboratory.play import Play, fill
from gsdistill.laboratory.worlds.shapes_set import ShapesSet
from gsdistill.laboratory.worlds.trap import Trap
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.registry import load, names
from gsdistill.settings.yaml import load_yaml
from gsdistill.worlds.base import paint
from gsdistill.worlds.shapes.captions import parse
from gsdistill.worlds.shapes.raycast import trace
from gsdistill.worlds.shapes.world import build


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def play2d(words: str) -> int:
    return execute(["play2d", *words.split()])


def photograph(prompt: str, background: tuple[float, float, float], views: int = 1) -> torch.Tensor:
    placed = build(parse(prompt))
    seen = trace(placed.parts, orbit(views, 32), supersample=2)
    return paint(seen, torch.from_numpy(placed.colors), torch.tensor(background).expand(views, 3))[0]


# the command


def test_free_play_on_points_leaves_a_map_and_its_figures(here):
    assert play2d("--method ssd --world trap --samples 3 --descent.steps 5") == 0
    folder = here / "outputs/play2d/trap-ssd-seed0"
    report = json.loads((folder / "figures.json").read_text())
    assert report["settings"]["method"]["name"] == "ssd"
    assert len(report["figures"]["ends"]) == 3
    assert report["figures"]["network_evaluations"] == 2 * 3 * 5
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert load_yaml(folder / "settings.yaml")["samples"] == 3


@pytest.mark.slow
def test_free_play_on_pictures_of_an_exact_prior(here):
    words = "--method fsd --world shapes-set --world.views 3 --world.size 8 --world.other-views 1 --samples 2"
    assert play2d(f"{words} --descent.steps 5 --output out") == 0
    figures = json.loads((here / "out/figures.json").read_text())["figures"]
    assert len(figures["nearest_picture"]) == 2


def test_free_play_on_the_shapes_prior_starts_from_its_recipe(here):
    words = ["--prompt", "a red torus", "--samples", "2", "--descent.steps", "2", "--output", "out"]
    assert execute(["play2d", "--method", "sds", "--prior", "shapes", *words]) == 0
    report = json.loads((here / "out/figures.json").read_text())
    assert report["settings"]["method"]["guidance_scale"] == "7.5:2"
    assert report["figures"]["mean_pairwise_difference"] >= 0


def test_a_demonstration_has_flags_of_its_own(here):
    assert play2d("--demo trap --steps 3 --draws 2 --start 0.1 -1 --world.offset 0.6") == 0
    report = json.loads((here / "outputs/play2d/trap/figures.json").read_text())
    assert report["settings"]["start"] == [0.1, -1.0]
    assert report["settings"]["world"]["offset"] == 0.6


def test_nothing_is_overwritten_unasked(here, capsys):
    assert play2d("--demo trap --steps 2 --output out") == 0
    before = (here / "out/figures.json").read_bytes()
    capsys.readouterr()
    assert play2d("--demo trap --steps 3 --output out") == 2
    assert "figure.png exists; choose another --output, or replace it with --overwrite" in capsys.readouterr().err
    assert (here / "out/figures.json").read_bytes() == before
    assert play2d("--demo trap --steps 3 --output out --overwrite") == 0
    assert json.loads((here / "out/figures.json").read_text())["settings"]["steps"] == 3


@pytest.mark.slow
def test_equal_settings_give_equal_pictures(here):
    for output in ("a", "b"):
        assert play2d(f"--demo trap --steps 3 --output {output}") == 0
    assert (here / "a/figure.png").read_bytes() == (here / "b/figure.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--demo tarp", "unknown demonstration 'tarp'. Did you mean 'trap'? Available: attractor, ddim"),
        ("--world trop", "unknown world 'trop'. Did you mean 'trap'? Available: gaussian, shapes-set, trap"),
        ("--method sdss", "unknown method 'sdss'. Did you mean"),
        ("--demo trap --stps 3", "unknown flag '--stps'. Did you mean '--steps'?"),
        ("--demo trap --steps 0", "steps = 0 is out of range; it must be at least 1"),
        ("--prior nowhere", "prior = 'nowhere' is neither a known prior nor a folder"),
        ("--world shapes-set --prompt dog", "unknown word 'dog' in the prompt 'dog'"),
        ("--method sds --descent.optimiser sgd --descent.rate 1e300", "a sample is not finite; lower the rate"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys):
    assert play2d(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_lists_name_demonstrations_and_worlds(capsys):
    assert execute(["list", "worlds"]) == 0
    assert "shapes-set" in capsys.readouterr().out
    assert execute(["list", "demos"]) == 0
    assert "attractor" in capsys.readouterr().out


def test_a_recipe_gives_way_to_a_flag():
    assert fill({"prior": "shapes", "method": "sds"})["method"]["guidance_scale"] == "7.5:2"
    assert fill({"method": "sds"}) == {"method": "sds"}


# worlds and pictures


@pytest.mark.parametrize("name", names("gsdistill.laboratory.worlds"))
def test_every_world_is_a_pair_of_distributions(name):
    densities = load("gsdistill.laboratory.worlds", name, "world")().densities("a red chair")
    for mixture in (densities.conditional, densities.unconditional):
        assert float(mixture.weights.sum()) == pytest.approx(1.0)
        assert mixture.means.shape[1] == torch.tensor(densities.latent_shape).prod()


def test_the_unconditional_trap_contains_the_conditional_one():
    densities, world = Trap().densities(""), Trap()
    share = densities.unconditional.weights[:2].sum() / densities.conditional.weights.sum()
    assert float(share) == pytest.approx(1 - world.singular_weight)
    torch.testing.assert_close(densities.unconditional.means[:2], densities.conditional.means)


def test_the_pictures_of_a_set_are_those_of_the_ray_caster():
    densities = ShapesSet(views=3, other_views=1).densities("a red cube on a blue sphere")
    true = photograph("a red cube on a blue sphere", (0.5, 0.5, 0.5), views=3)
    found = 0.5 * densities.conditional.means.view(3, 3, 32, 32).permute(0, 2, 3, 1) + 0.5
    torch.testing.assert_close(found.float(), true)
    assert len(densities.unconditional.means) == 3 + 14 * 11


def test_decoding_is_the_inverse_of_encoding():
    images = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    for prior in (load_prior("shapes"), ShapesSet(other_views=1).densities("a red cube").prior):
        torch.testing.assert_close(prior.decode(prior.encode(images)), images)


# judging samples


def test_mean_difference_by_brute_force_and_its_interval():
    images = torch.rand(7, 2, 2, 3, generator=torch.Generator().manual_seed(3))
    table = differences(images, images)
    pairs = [(images[i] - images[j]).square().mean().sqrt() for i in range(7) for j in range(7) if i != j]
    mean, low, high = mean_difference(table, seed=0)
    assert mean == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert low < mean < high
    assert mean_difference(table, seed=0) == (mean, low, high)


@pytest.mark.slow
def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Pairs of N(0, 1) numbers differ by 2 / sqrt(pi) on average; 24 samples, 100 repetitions."""
    hits = 0
    for repetition in range(100):
        x = torch.randn(24, 1, 1, 1, generator=torch.Generator().manual_seed(repetition), dtype=torch.float64)
        _, low, high = mean_difference(differences(x.expand(-1, 1, 1, 3), x.expand(-1, 1, 1, 3)), 0, resamples=200)
        hits += low <= 2 / torch.pi**0.5 <= high
    assert 0.85 <= hits / 100 <= 0.99


@pytest.mark.parametrize("prompt", ["a pink star", "a blue cube on a red table"])
def test_the_nearest_object_is_the_true_one_on_any_background(prompt):
    images = torch.cat([photograph(prompt, colour) for colour in ((0.5, 0.5, 0.5), (0.9, 0.2, 0.1))])
    found, missed = nearest_objects(images, orbit(1, 32))
    assert found == [prompt, prompt]
    assert float(missed.max()) < 1e-3


def test_a_faded_picture_misses_as_much_as_it_has_faded():
    whole = photograph("a green cylinder", (0.5, 0.5, 0.5))
    found, missed = nearest_objects(torch.cat([whole * (1 - fade) + 0.5 * fade for fade in (0.1, 0.9)]), orbit(1, 32))
    assert found[0] == "a green cylinder"
    assert float(missed[0]) == pytest.approx(0.1, abs=0.01)
    assert float(missed[1]) > 0.6


def test_play_needs_no_more_than_its_defaults():
    assert Play().method == load("gsdistill.distillation", "ssd")()
