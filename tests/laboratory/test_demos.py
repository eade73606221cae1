"""What the demonstrations claim, on small settings: the figures themselves are the assertions."""

from __future__ import annotations

import json

import pytest
import torch

from gsdistill.laboratory.demos.attractor import Attractor, at_rest
from gsdistill.laboratory.demos.base import Demonstration
from gsdistill.laboratory.demos.ddim import Ddim
from gsdistill.laboratory.demos.diversity import Diversity
from gsdistill.laboratory.demos.terms import Terms, optimum
from gsdistill.laboratory.demos.trap import Trap
from gsdistill.laboratory.plots import save_figure
from gsdistill.laboratory.worlds.gaussian import Gaussian
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import load, names


def test_the_folder_lists_the_demonstrations():
    assert names("gsdistill.laboratory.demos") == ["attractor", "ddim", "diversity", "terms", "trap"]
    assert all(issubclass(load("gsdistill.laboratory.demos", name), Demonstration) for name in ("trap", "ddim"))


@pytest.fixture(scope="module")
def trap():
    return Trap().run()


@pytest.mark.slow
def test_mode_seeking_alone_is_trapped_between_the_modes(trap):
    for place in ("from_start", "from_trap"):
        end = trap.figures[place]["mode_seeking"]
        assert end["distance_to_singular_mode"] < 0.1  # the modes are at 0.5
        assert end["log_density_below_the_modes"] > 8


@pytest.mark.slow
def test_mode_disengaging_alone_ends_where_the_density_is_low(trap):
    for place in ("from_start", "from_trap"):
        end = trap.figures[place]["mode_disengaging"]
        assert end["log_density_below_the_modes"] > 15
        assert end["distance_to_conditional_mode"] > 5 * 0.1


@pytest.mark.slow
def test_ssd_ends_on_a_conditional_mode_from_the_start_and_from_the_trap(trap):
    for place in ("from_start", "from_trap"):
        end = trap.figures[place]["ssd"]
        assert end["distance_to_conditional_mode"] < 0.05
        assert end["log_density_below_the_modes"] < 0.1


@pytest.mark.slow
def test_with_sds_weight_ssd_follows_the_disengaging_term():
    end = Trap(steps=250, weighting="sds").run().figures["from_start"]["ssd"]
    assert end["log_density_below_the_modes"] > 15


@pytest.fixture(scope="module")
def ddim():
    return Ddim(samples=1).run()


@pytest.mark.slow
def test_fsd_is_ddim_up_to_rounding_and_sds_is_not(ddim):
    for prior in ("exact", "shapes"):
        assert ddim.figures[f"{prior}_float64"]["fsd"]["max_abs"] <= 1e-5
        assert ddim.figures[f"{prior}_float32"]["fsd"]["max_relative"] <= 1e-3
        assert ddim.figures[f"{prior}_float64"]["sds"]["max_abs_at_the_end"] > 0.1
    assert ddim.figures["exact_float64"]["fsd"]["max_abs"] <= 1e-11  # nothing there is float32
    assert len(ddim.figures["exact_float64"]["fsd"]["max_abs_by_step"]) == 50


@pytest.fixture(scope="module")
def attractor():
    return Attractor(samples=3, steps=600, rate=Ramp(0.5, 0.05)).run()


@pytest.mark.slow
def test_cds_comes_to_rest_where_the_formula_says(attractor):
    figures = attractor.figures
    for schedule, distance in (("published", 0.7), ("shrinking", 0.1)):
        fixed = figures[f"{schedule}, fixed, omega 1"]
        assert fixed["distance_of_end_from_attractor"] < 0.06 * fixed["distance_of_attractor_from_mu"]
        assert fixed["distance_of_attractor_from_mu"] > distance
        assert figures[f"{schedule}, antithetic, omega 1"]["distance_of_end_from_mu"] < 0.05
        guided = figures[f"{schedule}, antithetic, omega 7.5"]
        assert guided["overshoot_of_mean_end"] == pytest.approx(guided["overshoot_of_attractor"], rel=0.15)
    assert figures["published, antithetic, omega 7.5"]["overshoot_of_attractor"] > 0.8
    assert figures["shrinking, antithetic, omega 7.5"]["overshoot_of_attractor"] < 0.2


def test_without_guidance_and_at_one_time_the_attractor_is_mu_minus_s_eps():
    world = Gaussian()
    prior = world.densities("").prior
    eps = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = at_rest(world, prior, 1.0, 300, torch.tensor([400]), eps)
    s_t = prior.schedule.sigmas[400] / prior.schedule.alphas[400]
    torch.testing.assert_close(found, torch.tensor(world.mean, dtype=torch.float64) - s_t * eps)


@pytest.fixture(scope="module")
def terms():
    return Terms(views=2, draws=8, levels=3).run()


@pytest.mark.slow
def test_the_terms_of_sds_against_t(terms):
    figures = terms.figures
    curves = figures["curves"]
    assert curves["correlation"] == sorted(curves["correlation"])
    assert max(curves["norm_h"]) < 0.2 * min(curves["norm_eps_c"])
    assert figures["widest_band_of_r"] < 0.05
    assert figures["largest_distance_of_mean_r_from_c_star"] < 0.03


def test_the_optimum_is_the_slope_of_a_line():
    """For eps_c = c eps + constant c* is c, whatever the constant."""
    eps = torch.randn(4 * 500, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    constants = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(2)).repeat_interleave(500, 0)
    found = optimum(0.7 * eps + 5.0 * constants, eps, 500)
    assert found.shape == (4,)
    assert float(found.mean()) == pytest.approx(0.7, abs=0.01)


@pytest.fixture(scope="module")
def diversity():
    return Diversity(seeds=8, steps=20).run()


@pytest.mark.slow
def test_fsd_is_more_diverse_than_sds_with_the_same_steps(diversity):
    for prior in ("exact", "shapes"):
        fsd, sds = diversity.figures[prior]["fsd"], diversity.figures[prior]["sds_same_steps"]
        assert fsd["mean_pairwise_difference"] > sds["mean_pairwise_difference"]
        assert fsd["interval_95"][0] < fsd["mean_pairwise_difference"] < fsd["interval_95"][1]
        assert fsd["modes_reached"] >= max(sds["modes_reached"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trap", "terms", "ddim", "attractor", "diversity"])
def test_figures_are_json_and_pictures_are_drawn(name, request, tmp_path):
    outcome = request.getfixturevalue(name)
    json.dumps(outcome.figures, allow_nan=False)
    save_figure(outcome.draw(), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_same_settings_give_the_same_figures():
    assert Trap(steps=20).run().figures == Trap(steps=20).run().figures
    assert Trap(steps=20).run().figures != Trap(steps=20, seed=1).run().figures
