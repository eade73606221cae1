"""Figures are told in words, as far as they are there, and those of earlier versions are read."""

import torch

from gsdistill.evaluation.figures import GROUPS, headline, renewed
from gsdistill.evaluation.references import truth_of_prompt
from gsdistill.evaluation.surface import centres, surface
from gsdistill.evaluation.views import compared, photograph, unseen
from gsdistill.scene.init.ball import Ball


def test_the_main_figures_are_one_line():
    figures = {"name": "a red torus", "name_right": True, "iou": 0.96351, "unseen_iou": 0.9, "psnr": 24.36}
    assert headline(figures) == "looks like a red torus, IoU 0.964, unseen views 0.900, PSNR 24.4 dB"
    wrong = headline({"name": "a red cone", "name_right": False, "surface_chamfer": 0.04479})
    assert wrong == "looks like a red cone, not what was asked for, surface Chamfer 0.045"
    assert headline({"name": "nothing known", "name_right": False}) == "looks like nothing known"
    assert headline({}) == headline({"saturation": 0.5}) == ""
    alone = {"loose": 0.0125, "silhouette_agreement": 0.75}
    assert headline(alone) == "loose 0.013, neighbouring silhouettes agree 0.750"
    assert headline({"iou": 0.5, **alone}) == "IoU 0.500, loose 0.013"
    assert headline({"iou": 0.5, "loose": 0.004}) == "IoU 0.500"


def test_an_earlier_name_is_that_of_today():
    assert renewed({"iou": 0.5, "chamfer": 0.1}) == {"iou": 0.5, "centre_chamfer": 0.1}


def test_every_figure_has_a_meaning():
    splat = Ball(count=50).create("a red torus", torch.Generator().manual_seed(0), "cpu")
    truth = truth_of_prompt("a red torus")
    ours, below = photograph(splat), photograph(splat, unseen())
    made = compared(ours, truth.seen) | surface(ours, below, truth.surface) | centres(splat, truth.surface)
    names = {name for group in GROUPS.values() for name in group}
    assert made.keys() <= names and {f"unseen_{name}" for name in compared(below, truth.unseen)} <= names
