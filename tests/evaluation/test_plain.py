"""Figures of a splat alone, on pictures with a closed form and on splats whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from renderer.scenes import ball

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.evaluation.plain import MEANINGS, high_frequency, loose, plain_figures
from gsdistill.evaluation.views import Pictures


def pictures(light: torch.Tensor, inside: torch.Tensor | None = None) -> Pictures:
    """Grey pictures of the given luminance, 0..1, [B, H, W]; seen everywhere unless ``inside`` says where."""
    alpha = torch.ones_like(light) if inside is None else inside.float()
    return Pictures((light * alpha)[..., None].expand(-1, -1, -1, 3), alpha[..., None])


def wave(periods: float, along: int, size: int = 34) -> torch.Tensor:
    """A wave of so many periods a pixel along one axis; 32 whole pixels are left without the border."""
    line = 0.5 + 0.3 * torch.cos(2 * math.pi * periods * torch.arange(size) + 0.3)
    return (line[:, None] if along == 0 else line[None, :]).expand(1, size, size)


def shell(
    count: int = 3000, deviation: float = 0.03, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Gaussians:
    """An opaque white ellipsoid of small round Gaussians, half axes 0.7 times ``stretch``."""
    random = torch.Generator().manual_seed(0)
    places = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=1)
    return Gaussians(
        means=0.7 * places * torch.tensor(stretch),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4),
        scales=torch.full((count, 3), math.log(deviation)),
        opacities=torch.full((count,), 3.0),
        sh=torch.full((count, 1, 3), 0.3 / SH_C0),
    )


def inner(light: torch.Tensor) -> float:
    """The energy of all but the outermost pixels, about 1/2, over that of the whole picture, about its mean."""
    squares = (light.double() - light.double().mean((1, 2), keepdim=True)).square().clamp_min(255.0**-2)
    return float((light.double()[:, 1:-1, 1:-1] - 0.5).square().sum() / squares.sum())


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("periods", [1 / 16, 1 / 4, 3 / 8, 1 / 2])
def test_a_wave_leaves_what_does_not_come_through_the_smoothing(periods, along):
    light = wave(periods, along)
    expected = math.sin(math.pi * periods) ** 4 * inner(light)
    assert high_frequency(pictures(light)) == pytest.approx(expected, rel=1e-5)


def test_a_checkerboard_is_all_fine_and_noise_is_41_of_64():
    places = torch.arange(64)
    board = 0.5 + 0.1 * (-1.0) ** (places[:, None] + places[None, :])[None]
    assert high_frequency(pictures(board)) == pytest.approx((62 / 64) ** 2, rel=1e-5)
    noise = 0.5 + 0.05 * torch.randn(8, 128, 128, generator=torch.Generator().manual_seed(0))
    assert high_frequency(pictures(noise)) == pytest.approx(41 / 64 * (126 / 128) ** 2, rel=0.02)


def test_only_what_is_whole_inside_of_the_silhouette_counts():
    """A wave inside, a checkerboard beyond the silhouette; its outermost pixels have neighbours beyond."""
    inside = torch.zeros(1, 34, 34, dtype=torch.bool)
    inside[:, 1:-1, :18] = True
    places = torch.arange(34)
    board = ((places[:, None] + places[None, :]) % 2).float()[None]
    light = torch.where(inside, wave(1 / 8, 1), board)
    expected = math.sin(math.pi / 8) ** 4 * inner(light[:, 1:-1, :18])
    assert high_frequency(pictures(light, inside)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [3, 4, 5, 8])
def test_the_share_is_never_above_one_however_few_pixels_are_inside(size):
    inside = torch.zeros(1, 32, 32, dtype=torch.bool)
    inside[:, 9 : 9 + size, 9 : 9 + size] = True
    rim = torch.ones(1, 32, 32)
    rim[:, 10 : 8 + size, 10 : 8 + size] = 0.0
    places = torch.arange(32)
    board = ((places[:, None] + places[None, :]) % 2).float()[None]
    dot = (places[:, None] == 10) & (places[None, :] == 10)
    for light in (rim, board, dot.float()[None]):
        assert 0.01 < high_frequency(pictures(light, inside)) <= 1.0


def test_differences_below_a_grey_level_are_none():
    places = torch.arange(64)
    board = 0.5 + 1e-4 * (-1.0) ** (places[:, None] + places[None, :])[None]
    assert high_frequency(pictures(board)) == pytest.approx((62 / 64 * 1e-4 * 255) ** 2, rel=1e-2)
    assert high_frequency(pictures(torch.zeros(1, 16, 16), torch.zeros(1, 16, 16, dtype=torch.bool))) == 0.0


@pytest.mark.slow
def test_mottle_raises_the_high_frequencies_and_a_colour_the_saturation():
    clean = shell(12_000, 0.015)
    noise = 0.4 * torch.randn(len(clean), 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 3) / SH_C0
    before, after = plain_figures(clean), plain_figures(replace(clean, sh=clean.sh + noise))
    assert before["high_frequency"] < 0.1
    assert after["high_frequency"] > 0.1 + before["high_frequency"]
    assert before["saturation"] == pytest.approx(0.0, abs=1e-5)
    red = clean.sh * torch.tensor([1.0, -1.0, -1.0])  # 0.8 0.2 0.2
    assert plain_figures(replace(clean, sh=red))["saturation"] == pytest.approx(0.75, abs=1e-4)


def test_loose_is_the_opacity_apart_from_the_largest_part():
    body, crumbs = shell(1000), ball(50, size=0.01, seed=2)
    away = replace(crumbs, means=crumbs.means + 10.0)
    both = Gaussians(*(torch.cat([value, away.tensors()[name][:, :1] if name == "sh" else away.tensors()[name]])
                       for name, value in body.tensors().items()))  # fmt: skip
    shares = [float(torch.sigmoid(one.opacities).sum()) for one in (body, away)]
    assert loose(body) == 0.0
    assert loose(both) == pytest.approx(shares[1] / sum(shares), rel=1e-5)


def test_the_outline_of_a_ball_stays_and_that_of_a_billboard_does_not():
    round_, flat = plain_figures(shell()), plain_figures(shell(stretch=(0.02, 1.0, 1.0)))
    assert min(round_[name] for name in ("silhouette_agreement", "silhouette_worst", "silhouette_thinnest")) > 0.97
    assert flat["silhouette_thinnest"] < 0.2
    assert flat["silhouette_worst"] < 0.5
    assert flat["silhouette_worst"] < flat["silhouette_agreement"] < 0.85


@pytest.mark.slow
def test_a_splat_beyond_the_unit_ball_is_seen_whole_and_nothing_is_seen_of_nothing():
    one = shell(stretch=(1.0, 0.6, 0.3))
    extent = plain_figures(one)["extent"]
    assert extent == pytest.approx(0.7, abs=0.05)
    large = replace(one, means=one.means * 50.0, scales=one.scales + math.log(50.0))
    fitting = replace(one, means=one.means / extent, scales=one.scales - math.log(extent))
    for name, value in plain_figures(fitting).items():
        assert plain_figures(large)[name] == pytest.approx(
            value * (50.0 * extent if name == "extent" else 1.0), rel=1e-3, abs=1e-6
        )
    faint = plain_figures(replace(one, opacities=torch.full((len(one),), -9.0)))
    assert [faint[name] for name in MEANINGS][:2] == [0.0, 0.0]
    assert faint["silhouette_agreement"] == faint["silhouette_worst"] == faint["silhouette_thinnest"] == 0.0


def test_every_figure_says_what_it_means():
    assert plain_figures(shell(100)).keys() == MEANINGS.keys()
    assert all(text.endswith(".") for text in MEANINGS.values())
