"""What is no Gaussian is counted by kind, and refused, or left out or mended as the module says."""

from dataclasses import replace

import pytest
import torch
from export.scenes import pebble

from gsdistill.core.errors import BadFile, Notice
from gsdistill.core.structs import Gaussians
from gsdistill.scene.limits import logits
from gsdistill.scene.sound import ensure_sound

NAN, INF = float("nan"), float("inf")


def spoilt() -> Gaussians:
    """Twenty Gaussians, of which the first ten are wrong in a way of their own."""
    scene = pebble(20, 1)
    scene.means[0, 1] = scene.opacities[1] = scene.sh[2, 3, 0] = NAN
    scene.means[3, 2], scene.scales[4, 0], scene.quats[5, 3], scene.sh[6, 0, 1] = -INF, INF, INF, -INF
    scene.opacities[7], scene.opacities[8], scene.scales[9, 2], scene.quats[9] = INF, -INF, -INF, 0.0
    return scene


def test_what_is_sound_stays_the_very_same():
    scene = pebble(20, 1)
    assert ensure_sound(scene, "a") is ensure_sound(scene, "a", clean=True) is scene


def test_without_clean_every_kind_is_counted_in_one_line():
    with pytest.raises(BadFile) as caught:
        ensure_sound(spoilt(), "a.spz")
    assert str(caught.value) == (
        "a.spz: 10 of its 20 Gaussians are not sound: 3 with NaN in means opacities sh, 1 at an infinite position, "
        "1 of an infinite size, 1 of an infinite rotation, 1 of an infinite colour, 2 of an infinite opacity, "
        "1 of no size, 1 without a rotation; --clean (of a start: --init.clean) leaves them out or mends them"
    )


def test_what_tells_nothing_is_left_out_and_what_is_meant_is_mended():
    given = spoilt()
    with pytest.warns(Notice, match=r"^a: 7 of its 20 Gaussians are left out and 3 mended: 3 with NaN in means opac"):
        found = ensure_sound(given, "a", clean=True)
    assert len(found) == 13 and found.opacities[:2].tolist() == [20.0, -20.0]
    assert found.scales[2].tolist() == [*given.scales[9, :2].tolist(), -20.0]
    assert found.quats[2].tolist() == [1.0, 0.0, 0.0, 0.0]
    untouched = {name: value[10:] for name, value in given.tensors().items()}
    assert all(torch.equal(getattr(found, name)[3:], value) for name, value in untouched.items())
    assert ensure_sound(found, "a") is found


def test_a_row_that_is_wrong_in_many_ways_counts_once_among_the_lost_and_not_among_the_mended():
    scene = pebble(3, 0)
    scene.means[1], scene.opacities[1], scene.scales[1], scene.quats[1] = NAN, INF, INF, 0.0
    with pytest.raises(BadFile, match="1 of its 3 Gaussians are not sound: 1 with NaN in means; --clean"):
        ensure_sound(scene, "a")


def test_where_none_is_left_clean_refuses_too():
    scene = pebble(3, 0)
    with pytest.raises(BadFile, match=r"a: no Gaussian is left of its 3: 3 with NaN in means$"):
        ensure_sound(replace(scene, means=scene.means * NAN), "a", clean=True)


def test_logits_are_those_of_the_opacities_and_finite_at_both_ends():
    alphas = torch.tensor([0.0, 1e-12, 0.25, 0.5, 1 - 1e-12, 1.0], dtype=torch.float64)
    found = torch.from_numpy(logits(alphas.numpy()))
    assert torch.allclose(found[1:5].sigmoid(), alphas[1:5], rtol=1e-4, atol=0) and found[3] == 0
    assert found[0] == -20 and found[5] == 20 and logits(torch.tensor([1.5]).numpy()).item() != 0
