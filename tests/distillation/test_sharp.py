"""Why some methods are finished by another one: on a prior that knows one picture, only SDS is pulled to it.

With all data at mu the conditional noise is (x_t - alpha mu) / sigma, so that each method's gradient at guidance 1 is a
multiple of x0 - mu: 1 / s_t for SDS less its noise, nothing for CDS, whose two levels lie on one path to mu, and for
ASD the difference of 1 / s at two close levels. CSD has the direction of the guidance alone.
"""

from __future__ import annotations

import pytest
from distillation.common import World, flat, normal, step

from gsdistill.distillation.asd import ASD
from gsdistill.distillation.base import Distillation
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.sds import SDS

MU = 0.4
ONE = {"t_min": flat(0.3), "t_max": flat(0.3), "weighting": "uniform"}
MANY = {"t_min": flat(0.02), "t_max": flat(0.5), "weighting": "uniform"}


def pull(method: Distillation, cameras) -> float:
    """How far the gradient follows x0 - mu: the coefficient of it, of a least squares fit."""
    world = World(means=(MU,) * 4, deviations=(0.0,) * 4)
    latents = normal(len(cameras), 3, 2, 2)
    gradient, away = step(method, world, latents, cameras).gradient, latents - MU
    return float((gradient * away).sum() / away.square().sum())


def test_sds_is_pulled_to_the_one_picture_by_the_signal_to_noise_ratio(cameras):
    alpha, sigma = World().levels(World().schedule.index(0.3))
    assert pull(SDS(flat(1.0), **ONE), cameras) == pytest.approx(float(alpha / sigma), rel=1e-6)


def test_cds_is_not_pulled_at_all_and_asd_a_tenth_as_much(cameras):
    sds = pull(SDS(flat(1.0), **MANY), cameras)
    assert abs(pull(CDS(flat(1.0), clip=flat(0.0)), cameras)) < 1e-9 * sds
    assert 0 < pull(ASD(flat(1.0), eta=0.1, random_shift=False, **MANY), cameras) < 0.1 * sds
    assert pull(CSD(flat(7.5), **MANY), cameras) == 0.0  # the prompt and its absence see the same
