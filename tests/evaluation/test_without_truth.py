"""All figures of a real splat, with the shapes prior: what is on the page has a meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsdistill.core.errors import PromptError
from gsdistill.evaluation import fronts, plain
from gsdistill.evaluation.without_truth import MEANINGS, figures_without_truth
from gsdistill.prior.loading import load_prior
from gsdistill.scene.read import read_splat

CHAIR = Path(__file__).parents[1] / "data" / "chair.ply"


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_shapes_prior_sees_a_chair_from_the_right_sides_once(whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(fronts, "TURNS", (0, 90, 180, 270))
        monkeypatch.setattr(fronts, "FRACTIONS", (0.5,))
    prior, chair = load_prior("shapes"), read_splat(CHAIR)
    found = figures_without_truth(chair, "a blue chair", prior)
    assert found.keys() == MEANINGS.keys() == plain.MEANINGS.keys() | fronts.MEANINGS.keys()
    assert found["fronts"] == 1
    assert found["view_agreement"] > 0.8
    assert found["view_margin"] > 0.2
    with pytest.raises(PromptError, match="zebra"):
        figures_without_truth(chair, "a red zebra", prior)


def test_without_a_prior_there_are_the_figures_of_the_splat_alone():
    assert figures_without_truth(read_splat(CHAIR), "anything").keys() == plain.MEANINGS.keys()
