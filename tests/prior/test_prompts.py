"""What each view is told: directions by thresholds, mixtures, Perp-Neg weights against threestudio's rule."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Cameras, Embedding
from gsdistill.prior.prompts import (
    DIRECTIONS,
    EncodedPrompt,
    PromptSettings,
    branches_for,
    direction_of,
    encode_with_endings,
)
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.settings.config import from_dict

FRONT, SIDE, BACK, OVERHEAD = 1.0, 10.0, 100.0, 1000.0
VALUES = dict(zip(DIRECTIONS, (FRONT, SIDE, BACK, OVERHEAD), strict=True))


def cameras_at(azimuths: list[float], elevations: list[float] | float = 0.0) -> Cameras:
    ones = torch.ones(len(azimuths))
    heights = torch.tensor(elevations) if isinstance(elevations, list) else elevations * ones
    return look_at_origin(torch.tensor(azimuths, dtype=torch.float32), heights, 3 * ones, 40 * ones, 8)


def embedding(value: float) -> Embedding:
    return Embedding(torch.full((1, 2, 3), value), torch.full((1, 4), value))


def encoded(direction: str, **settings) -> EncodedPrompt:
    views = {} if direction == "none" else {name: embedding(value) for name, value in VALUES.items()}
    return EncodedPrompt(embedding(5.0), embedding(-1.0), views, PromptSettings(direction, **settings))


def told(direction: str, cameras: Cameras, branch: str = "positive", **settings) -> list[float]:
    """The one value that tokens and pooled of a branch have in each view."""
    found = branches_for(encoded(direction, **settings), cameras)[0][branch]
    for tokens, pooled in zip(found.tokens, found.pooled, strict=True):
        torch.testing.assert_close(tokens.flatten(), pooled[0].expand(6))
    return found.tokens[:, 0, 0].tolist()


def curve(r: float, a: float, b: float, c: float) -> float:
    return a * math.exp(-b * r) + c


def threestudio(azimuth: float) -> tuple[float, list[tuple[float, float]]]:
    """Positive value, and (negative value, weight) pairs, written from the rule case by case."""
    a = abs((azimuth + 180) % 360 - 180)
    if a < 90:
        r = 1 - a / 90
        pairs = [(FRONT, -curve(r, 4, 0.5, -2.426)), (SIDE, -curve(1 - r, 4, 0.5, -2.426))]
        return r * FRONT + (1 - r) * SIDE, pairs
    r = 2 - a / 90
    pairs = [(SIDE, -curve(r, 1, 0.5, -0.606)), (FRONT, -curve(r, 1, 0.5, 0.967))]
    return r * SIDE + (1 - r) * BACK, pairs


def test_no_direction_tells_every_view_the_prompt():
    branches, weights = branches_for(encoded("none"), cameras_at([0, 90, 180]))
    assert branches.keys() == {"positive", "negative", "plain", "empty"} and weights.shape == (3, 0)
    assert told("none", cameras_at([0, 90, 180])) == [5.0] * 3
    assert told("none", cameras_at([0, 90]), "negative") == [-1.0] * 2


def test_view_picks_by_thresholds():
    azimuths = [0, 44, -44, 45, 90, -135, 135, 136, 180, -180, 224, 316, 400]
    expected = [FRONT, FRONT, FRONT, SIDE, SIDE, SIDE, SIDE, BACK, BACK, BACK, BACK, FRONT, FRONT]
    assert told("view", cameras_at(azimuths)) == expected
    assert told("view", cameras_at([0, 0, 180], [59.0, 61.0, 90.0])) == [FRONT, OVERHEAD, OVERHEAD]


def test_thresholds_are_settings():
    cameras = cameras_at([20, 50, 150], [0.0, 0.0, 35.0])
    assert told("view", cameras, front=15, back=40, overhead=30) == [SIDE, BACK, OVERHEAD]


@pytest.mark.parametrize("direction", ["interpolate", "perp-neg"])
def test_mixtures_follow_the_azimuth(direction):
    azimuths = [0.0, 30.0, -60.0, 89.9, 90.0, 120.0, 180.0, 270.0, 359.0]
    found = told(direction, cameras_at(azimuths))
    assert found == pytest.approx([threestudio(a)[0] for a in azimuths], rel=1e-5)
    assert told(direction, cameras_at([0.0, 120.0], 75.0)) == [OVERHEAD] * 2


def test_perp_neg_weights_are_threestudios():
    azimuths = [0.0, 20.0, -45.0, 89.0, 90.0, 100.0, -150.0, 180.0]
    cameras = cameras_at(azimuths)
    _, weights = branches_for(encoded("perp-neg"), cameras)
    for column in (0, 1):
        expected = [threestudio(a)[1][column] for a in azimuths]
        assert told("perp-neg", cameras, f"perp{column}") == [value for value, _ in expected]
        assert weights[:, column].tolist() == pytest.approx([weight for _, weight in expected], abs=1e-5)
    assert branches_for(encoded("perp-neg"), cameras_at([10.0], 80.0))[1].tolist() == [[0.0, 0.0]]


def test_curves_are_settings():
    _, weights = branches_for(encoded("perp-neg", f_fs=(1.0, 0.0, 0.5)), cameras_at([30.0]))
    assert float(weights[0, 0]) == pytest.approx(-1.5)


# Of LucidDreamer's programs in these settings: perpneg true, and perpneg false.
LUCIDDREAMER = {
    "overhead": 90.0, "f_fs": (2.0, 2.0, 0.0), "f_sf": (2.0, 10.0, 0.0), "f_sb": (1.0, 10.0, 0.0),
    "f_fsb": (0.0, 0.0, 2.0), "f_cuts": (0.8, 0.8, 0.8, 1.0),
}  # fmt: skip


def luciddreamer(azimuth: float, w: float = -2.0) -> tuple[float, dict[float, float]]:
    """Positive value, and weight by negative value, from train.py, case by case in its signs of the azimuth."""
    if -90 <= azimuth < 90:
        r = 1 - azimuth / 90 if azimuth >= 0 else 1 + azimuth / 90
        front = 0.0 if r > 0.8 else w * math.exp(-2 * r)
        side = 0.0 if r < 0.2 else w * math.exp(-10 * (1 - r))
        return r * FRONT + (1 - r) * SIDE, {FRONT: front, SIDE: side}
    r = 1 - (azimuth - 90) / 90 if azimuth >= 0 else 1 + (azimuth + 90) / 90
    side = 0.0 if r > 0.8 else w / 2 * math.exp(-10 * r)
    return r * SIDE + (1 - r) * BACK, {FRONT: w, SIDE: side}


@pytest.mark.parametrize("elevation", [-15.0, 0.0, 85.0])
@pytest.mark.parametrize("direction", ["interpolate", "perp-neg"])
def test_texts_and_weights_are_luciddreamers_at_every_azimuth(direction, elevation):
    """A quarter of a degree apart and the quarters' ends; at the cut-offs themselves float32 decides nothing."""
    quarters = [-179.9 + 0.25 * step for step in range(1440)]
    azimuths = [-180.0, -90.0, 0.0, 90.0, *quarters]
    assert min(abs(abs(a) - cut) for a in azimuths for cut in (18, 72, 108, 162)) > 0.01
    cameras, expected = cameras_at(azimuths, elevation), [luciddreamer(a) for a in azimuths]
    assert told(direction, cameras, **LUCIDDREAMER) == pytest.approx([value for value, _ in expected], rel=1e-5)
    branches, weights = branches_for(encoded(direction, **LUCIDDREAMER), cameras)
    if direction == "interpolate":
        assert weights.shape == (len(azimuths), 0)
        return
    values = torch.stack([branches[f"perp{column}"].tokens[:, 0, 0] for column in (0, 1)], 1)
    for row, (texts, found) in enumerate(zip(values.tolist(), weights.tolist(), strict=True)):
        assert dict(zip(texts, found, strict=True)) == pytest.approx(expected[row][1], rel=2e-6, abs=0), azimuths[row]


def test_cut_offs_at_one_cut_nothing_and_each_cuts_its_own_curve():
    azimuths = [0.0, 30.0, -80.0, 90.0, 100.0, 170.0, 180.0]
    plain = branches_for(encoded("perp-neg"), cameras_at(azimuths))[1]
    assert torch.equal(branches_for(encoded("perp-neg", f_cuts=(1.0,) * 4), cameras_at(azimuths))[1], plain)
    assert bool((plain[:, 1] != 0).all())
    for curve, (before, column) in enumerate([(True, 0), (True, 1), (False, 0), (False, 1)]):
        cuts = tuple(0.0 if other == curve else 1.0 for other in range(4))
        weights = branches_for(encoded("perp-neg", f_cuts=cuts), cameras_at(azimuths))[1]
        for row, azimuth in enumerate(azimuths):
            a = abs(azimuth)
            at = 1 - a / 90 if a < 90 else 2 - a / 90
            gone = (a < 90) is before and (a / 90 if curve == 1 else at) > 0
            assert weights[row].tolist() == [
                0 if gone and other == column else float(plain[row, other]) for other in (0, 1)
            ]


@pytest.mark.parametrize("cuts", [(0.8, 0.8, 0.8), (0.8, 0.8, 0.8, 1.1), (0.8, -0.1, 0.8, 1.0)])
def test_cut_offs_are_four_numbers_from_0_to_1(cuts):
    with pytest.raises(ConfigError, match=r"prompts\.f_cuts"):
        from_dict(PromptSettings, {"f_cuts": cuts}, "prompts")


def by_threestudio(front: float, back: float, overhead: float):
    """Side unless a later of the three conditions holds, on the azimuth shifted to [-180, 180)."""

    def direction(azimuth, elevation):
        shifted = (azimuth + 180) % 360 - 180
        found = "front" if -front < shifted < front else "side"
        found = "back" if shifted > 180 - back or shifted < -180 + back else found
        return "overhead" if elevation > overhead else found

    return direction


def by_dreamgaussian(azimuth, elevation):
    h = (azimuth + 180) % 360 - 180  # it draws from -180 to 180
    return "front" if abs(h) < 60 else "side" if abs(h) < 120 else "back"


def by_prolificdreamer(azimuth, elevation):
    """Regions of phi and theta in degrees; there is also a bottom, below every camera of ours."""
    phi, theta, front = azimuth % 360, 90 - elevation, 60
    found = "front" if phi < front / 2 or phi >= 360 - front / 2 else "side"
    found = "back" if 180 - front / 2 <= phi < 180 + front / 2 else found
    return "overhead" if theta <= 30 else found


def by_sjc(azimuth, elevation):
    """Overhead where its number v of 0..180 degrees is below 30; the cosine of the polar angle is 1 - 2 v / 180."""
    v = 90 * (1 - math.sin(math.radians(elevation)))
    return "overhead" if v < 30 else ("front", "side", "back", "side")[int((azimuth + 45) % 360 // 90)]


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (by_threestudio(45, 45, 60), {}),  # and of GSGEN and GaussianDreamer
        (by_threestudio(30, 30, 60), {"front": 30.0, "back": 150.0}),  # of its ProlificDreamer, of ScaleDreamer and CFD
        (by_dreamgaussian, {"front": 60.0, "back": 120.0, "overhead": 90.0}),
        (by_prolificdreamer, {"front": 30.0, "back": 150.0}),
        (by_sjc, {"overhead": 41.81}),
    ],
)
def test_thresholds_are_those_of_released_programs(rule, settings):
    """On a grid that no threshold lies on, as there a program takes < or <=."""
    grid = [(azimuth + 0.5, elevation + 0.25) for azimuth in range(-360, 360, 5) for elevation in range(-30, 90, 3)]
    cameras = cameras_at([azimuth for azimuth, _ in grid], [elevation for _, elevation in grid])
    found = direction_of(cameras, PromptSettings("view", **settings)).tolist()
    assert [DIRECTIONS[place] for place in found] == [rule(*angles) for angles in grid]


def test_words_of_the_view_stand_before_the_prompt_if_asked():
    settings = PromptSettings("view", phrases="prefix", side_prompt="a cat's flank")
    assert settings.texts("a {prompt} cat") == {
        "front": "front view of a {prompt} cat", "side": "a cat's flank", "back": "backside view of a {prompt} cat",
        "overhead": "overhead view of a {prompt} cat",
    }  # fmt: skip
    assert settings.ended("a cat", ", sharp").texts("")["back"] == "backside view of a cat, sharp"
    with pytest.raises(ConfigError, match=r"prompts\.phrases = 'prefixed' is not a choice. Did you mean 'prefix'\?"):
        from_dict(PromptSettings, {"phrases": "prefixed"}, "prompts")


def test_texts_and_overrides():
    assert PromptSettings("none").texts("a cat") == {}
    settings = PromptSettings("view", back_prompt="the tail of a cat")
    assert settings.texts("a cat") == {
        "front": "a cat, front view", "side": "a cat, side view", "back": "the tail of a cat",
        "overhead": "a cat, overhead view",
    }  # fmt: skip


def test_auto_leaves_a_prior_that_knows_cameras_alone():
    assert PromptSettings().resolved(knows_cameras=True).direction == "none"
    assert PromptSettings().resolved(knows_cameras=False).direction == "view"
    assert PromptSettings("auto-perp-neg").resolved(knows_cameras=True).direction == "none"
    assert PromptSettings("auto-perp-neg").resolved(knows_cameras=False).direction == "perp-neg"
    assert PromptSettings("perp-neg").resolved(knows_cameras=True).direction == "perp-neg"


def test_thresholds_must_be_in_order():
    with pytest.raises(ConfigError, match=r"prompts.front = 140.0 exceeds prompts.back = 135.0"):
        PromptSettings(front=140.0)


def test_a_masked_token_is_text_where_either_text_has_it():
    one = Embedding(torch.zeros(2, 3, 1), None, torch.tensor([[True, False, False]] * 2))
    two = Embedding(torch.ones(2, 3, 1), None, torch.tensor([[True, True, False]] * 2))
    mixed = one.mix(two, torch.tensor([0.25, 1.0]))
    assert mixed.mask.tolist() == [[True, True, False]] * 2 and mixed.pooled is None
    torch.testing.assert_close(mixed.tokens[:, 0, 0], torch.tensor([0.25, 1.0]))
    joined = Embedding.join([one, two])
    assert joined.mask.shape == (4, 3)
    assert joined.pick(torch.tensor([3, 0])).tokens[:, 0, 0].tolist() == [1.0, 0.0]


def test_what_only_methods_ask_is_no_part_of_guidance():
    text = encoded("view")
    given = replace(
        text,
        empty=embedding(7.0),
        endings={"source": replace(text, views={n: embedding(2 * v) for n, v in VALUES.items()})},
    )
    branches, _ = branches_for(given, cameras_at([0, 90, 180]))
    values = {name: branch.tokens[:, 0, 0].tolist() for name, branch in branches.items()}
    assert values["plain"] == [5.0] * 3 and values["empty"] == [7.0] * 3
    assert values["positive"] == [FRONT, SIDE, BACK] and values["source"] == [2 * FRONT, 2 * SIDE, 2 * BACK]
    assert branches_for(text, cameras_at([0]))[0]["empty"].tokens[0, 0, 0] == -1.0  # the negative prompt is empty then


def test_an_ending_stands_behind_the_text_of_each_view():
    asked = []

    def encode(prompt, negative, settings):
        asked.append((prompt, negative, settings.resolved(False).texts(prompt)))
        return encoded("none")

    settings = PromptSettings("view", back_prompt="a back")
    text = encode_with_endings(encode, "a cat", "blur", settings, {"target": ", sharp", "source": ", foggy"})
    assert text.endings.keys() == {"target", "source"} and [prompt for prompt, *_ in asked] == [
        "a cat",
        "a cat, sharp",
        "a cat, foggy",
    ]
    assert asked[1][2] == {
        "front": "a cat, front view, sharp", "side": "a cat, side view, sharp", "back": "a back, sharp",
        "overhead": "a cat, overhead view, sharp",
    }  # fmt: skip
    assert (
        encode_with_endings(encode, "a cat", "", PromptSettings("none"), {"source": ", foggy"}).endings
        and asked[-1][2] == {}
    )
