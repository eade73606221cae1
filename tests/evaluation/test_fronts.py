"""Fronts that a prior sees, with priors that know one picture by heart for each thing they are told, on textured drums
whose number of fronts is known.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gsdistill.core.errors import PromptError
from gsdistill.core.structs import SH_C0, Cameras, Embedding, Gaussians
from gsdistill.evaluation.fronts import FRACTIONS, MEANINGS, Fits, arcs, measure_fits, prior_figures
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.prior.base import CameraRange
from gsdistill.prior.prompts import DIRECTIONS, EncodedPrompt, PromptSettings
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import look_at_origin

PIXELS = 32
RED, GREEN, BLUE = (0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9)
ONE = {0: RED, 180: BLUE}  # a front and a back; all that is neither is green
TWO = {0: RED, 180: RED}
FOUR = {0: RED, 90: RED, 180: RED, 270: RED}
RIGHT = "FFFsssssssBBBBBsssssssFF"


def drum(stripes: dict[int, tuple[float, float, float]], half: float = 40.0) -> Gaussians:
    """A green upright cylinder with stripes up to ``half`` degrees around the azimuths that they are given at."""
    around, up = torch.arange(120) * 3.0, torch.linspace(-0.6, 0.6, 24)
    azimuths, heights = (grid.flatten() for grid in torch.meshgrid(around, up, indexing="ij"))
    colours = torch.tensor(GREEN).repeat(len(azimuths), 1)
    for at, colour in stripes.items():
        away = (torch.remainder(azimuths - at + 180.0, 360.0) - 180.0).abs()
        colours[away < half] = torch.tensor(colour)
    angles = torch.deg2rad(azimuths)
    return Gaussians(
        means=torch.stack([0.6 * angles.cos(), 0.6 * angles.sin(), heights], 1),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(azimuths), 1),
        scales=torch.full((len(azimuths), 3), math.log(0.025)),
        opacities=torch.full((len(azimuths),), 4.0),
        sh=((colours - 0.5) / SH_C0)[:, None],
    )


def planes(gaussians: Gaussians, azimuth: float) -> torch.Tensor:
    """What an AnalyticPrior makes of a view, [1, D]."""
    one = torch.ones(1)
    camera = look_at_origin(azimuth * one, 15.0 * one, 3.2 * one, 40.0 * one, PIXELS)
    with torch.no_grad():
        images = render(gaussians, camera, torch.full((1, 3), 0.5)).images
    return (2.0 * images.permute(0, 3, 1, 2) - 1.0).flatten(1)


class ByHeart(AnalyticPrior):
    """Knows one picture for each text: it answers the noise that leaves this picture, whatever is in the latents."""

    def __init__(self, pictures: torch.Tensor) -> None:
        everything = Mixture(torch.ones(1), torch.zeros(1, pictures.shape[1]), torch.ones(1))
        super().__init__(everything, everything, (3, PIXELS, PIXELS))
        self.pictures, self.texts, self.asked, self.batches = pictures, [], 0, []

    def number(self, text: str) -> int:
        """The place of a text's picture; -1 is any picture, which the empty prompt has."""
        self.texts.append(text)
        return next((place for place, name in enumerate(DIRECTIONS) if text.endswith(f", {name} view")), -1)

    def encode_text(
        self, prompt: str, negative_prompt: str, settings: PromptSettings = PromptSettings()
    ) -> EncodedPrompt:
        if "zebra" in prompt:
            raise PromptError("unknown word 'zebra'")
        texts = {"positive": prompt, "negative": negative_prompt, **settings.texts(prompt)}
        coded = {name: Embedding(torch.full((1, 1, 1), float(self.number(text)))) for name, text in texts.items()}
        return EncodedPrompt(coded.pop("positive"), coded.pop("negative"), coded, settings)

    def place(self, text: Embedding, cameras: torch.Tensor | None) -> torch.Tensor:
        return text.tokens[:, 0, 0].long()

    def network(self, latents, timesteps, text, cameras):
        self.batches.append(len(latents))
        place = self.place(text, cameras)
        alpha, sigma = self.schedule.at(timesteps, latents)
        known = (latents - alpha * self.pictures[place].view_as(latents)) / sigma
        return torch.where((place < 0)[:, None, None, None], sigma * latents, known)


class ByCamera(ByHeart):
    """Knows a picture for each azimuth that is a multiple of 15, and is told cameras, in groups if so wanted."""

    def __init__(self, pictures: torch.Tensor, group: int = 1) -> None:
        super().__init__(pictures)
        self.view_group, self.camera_range = group, CameraRange((0.0, 30.0), 3.2, 40.0)

    def camera_features(self, cameras: Cameras) -> torch.Tensor:
        if self.view_group > 1:
            steps = torch.remainder(cameras.azimuths.view(-1, self.view_group).diff(dim=1), 360.0)
            torch.testing.assert_close(steps, torch.full_like(steps, 360.0 / self.view_group))
        return torch.remainder(cameras.azimuths, 360.0)[:, None]

    def place(self, text: Embedding, cameras: torch.Tensor | None) -> torch.Tensor:
        assert cameras is not None
        return torch.where(text.tokens[:, 0, 0] < -1.5, -1, (cameras[:, 0] / 15.0).round().long() % 24)

    def number(self, text: str) -> int:
        self.texts.append(text)
        return -2 if text == "" else -1


@pytest.fixture(scope="module")
def by_words() -> ByHeart:
    """The pictures of front, side and back are those of a drum with one front."""
    drums = drum(ONE)
    return ByHeart(torch.cat([planes(drums, azimuth) for azimuth in (0.0, 90.0, 180.0)]))


@pytest.fixture(scope="module")
def by_azimuth() -> torch.Tensor:
    drums = drum(ONE)
    return torch.cat([planes(drums, 15.0 * step) for step in range(24)])


def test_one_front_is_one(by_words):
    figures = prior_figures(drum(ONE), "a drum", by_words)
    assert figures["fronts"] == 1
    assert figures["views_seen"] == RIGHT
    assert figures["view_agreement"] == 1.0
    assert figures["view_margin"] > 0.2


@pytest.mark.parametrize(("stripes", "half", "count"), [(TWO, 40.0, 2), (FOUR, 21.0, 4), ({}, 0.0, 0)])
def test_fronts_on_several_sides_are_counted(by_words, stripes, half, count):
    figures = prior_figures(drum(stripes, half), "a drum", by_words)
    assert figures["fronts"] == count
    assert figures["view_agreement"] < 0.8
    assert "B" not in figures["views_seen"]


def test_a_front_all_around_is_one(by_words):
    figures = prior_figures(drum({0: RED}, 181.0), "a drum", by_words)
    assert figures["views_seen"] == "F" * 24
    assert figures["fronts"] == 1
    assert figures["view_agreement"] == pytest.approx(5 / 24)


def test_a_prior_that_knows_one_picture_of_all_directions_has_no_margin(by_words):
    assert prior_figures(drum(ONE), "a drum", knowing(by_words, [1, 1, 1]))["view_margin"] == 0.0


def knowing(prior: ByHeart, places: list[int]) -> ByHeart:
    return ByHeart(prior.pictures[places])


def test_the_object_turned_is_seen_turned(by_words):
    figures = prior_figures(drum({90: RED, 270: BLUE}), "a drum", by_words)
    assert figures["fronts"] == 1
    assert figures["views_seen"] == RIGHT[-6:] + RIGHT[:-6]
    assert figures["view_agreement"] == pytest.approx(4 / 24)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("stripes", "count"), [(ONE, 1), (TWO, 2)])
def test_a_prior_that_is_told_cameras_counts_them_too(by_azimuth, stripes, count, group):
    prior = ByCamera(by_azimuth, group)
    figures = prior_figures(drum(stripes), "a drum", prior)
    assert figures["fronts"] == count
    assert (figures["view_agreement"] > 0.9) == (count == 1)
    assert not any("view" in text for text in prior.texts)


def test_the_errors_are_those_of_the_pictures(by_words):
    """With a picture p known by heart, eps is (x_t - alpha p) / sigma and its error alpha^2 / sigma^2 |x0 - p|^2."""
    found = measure_fits(drum(TWO), "a drum", by_words)
    schedule = by_words.schedule
    ratio = sum(float(schedule.alphas[t] / schedule.sigmas[t]) ** 2 for t in map(schedule.index, FRACTIONS)) / 3
    view = planes(drum(TWO), 30.0)
    expected = ratio * (view - by_words.pictures).square().mean(1)
    torch.testing.assert_close(found.errors[:, 2], expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.prompt[2], expected[0], rtol=1e-3, atol=1e-6)


def test_the_prompt_fits_where_its_picture_is_there(by_words):
    assert prior_figures(drum(ONE), "a drum", by_words)["prompt_fit"] < 0.0
    other = drum({})
    other = replace(other, sh=-other.sh, means=0.5 * other.means)
    assert prior_figures(other, "a drum", by_words)["prompt_fit"] > 0.0


def test_the_words_and_the_thresholds_are_those_of_the_settings(by_words):
    by_words.texts.clear()
    settings = PromptSettings("perp-neg", front=100.0, back=170.0, front_prompt="the face, front view")
    found = measure_fits(drum(ONE), "a drum", by_words, settings)
    expected = {"a drum", "", "the face, front view", *(f"a drum, {name} view" for name in DIRECTIONS[1:])}
    assert set(by_words.texts) == expected
    assert ["FsB"[place] for place in found.expected] == ["F"] * 7 + ["s"] * 5 + ["B"] + ["s"] * 5 + ["F"] * 6


@pytest.mark.parametrize(("cameras", "samples"), [(False, 24 * 3 * 4), (True, 24 * 3 * 13)])
def test_it_costs_what_it_says(by_words, by_azimuth, cameras, samples):
    prior = ByCamera(by_azimuth) if cameras else knowing(by_words, [0, 1, 2])
    measure_fits(drum({}), "a drum", prior)
    assert prior.evaluations == sum(prior.batches) == samples
    assert max(prior.batches) == 24


def test_a_prompt_that_the_prior_cannot_serve_is_refused(by_words):
    with pytest.raises(PromptError, match="zebra"):
        prior_figures(drum({}), "a zebra", by_words)


@pytest.mark.parametrize(
    ("around", "count"),
    [
        ("........................", 0),
        ("FFFFFFFFFFFFFFFFFFFFFFFF", 1),
        ("FFF...................FF", 1),
        ("...FFF..................", 1),
        ("FFF.......FFFFF.......FF", 2),
        ("FF....FF....FF....FF....", 4),
        ("F.....F.....F.....F.....", 0),  # single views
        ("FF.FFF................FF", 1),  # a gap of one view
        ("FF..FF..................", 2),
    ],
)
def test_arcs_are_counted_around_the_circle(around, count):
    fronts = torch.tensor([view == "F" for view in around])
    for turn in range(24):
        assert arcs(fronts.roll(turn)) == count


def test_a_single_view_does_not_turn_what_its_neighbours_say():
    errors = torch.tensor([[1.0] * 6, [2.0] * 6, [3.0] * 6])
    errors[0, 2] = 2.2
    found = Fits(errors, torch.zeros(6, dtype=torch.long), errors[0], errors[0])
    assert found.seen.tolist() == [0] * 6
    assert found.margin[2] == pytest.approx(2.0 / 1.6 - 1.0)


def test_a_direction_that_a_view_was_not_told_is_taken_from_its_neighbours():
    """As where the thresholds leave less to the front than the cameras are apart."""
    front = [1.0, torch.inf] * 3
    found = Fits(torch.tensor([front, [2.0] * 6, [torch.inf] * 6]), torch.zeros(6).long(), torch.ones(6), torch.ones(6))
    torch.testing.assert_close(found.smooth[0], torch.ones(6))
    assert found.seen.tolist() == [0] * 6
    torch.testing.assert_close(found.margin, torch.ones(6))
    alone = replace(found, errors=torch.tensor([[1.0] * 6, [torch.inf] * 6, [torch.inf] * 6]))
    assert alone.margin.tolist() == [0.0] * 6


def test_every_figure_says_what_it_means(by_words):
    assert prior_figures(drum({}), "a drum", by_words).keys() == MEANINGS.keys()
    assert all(text.endswith(".") for text in MEANINGS.values())
