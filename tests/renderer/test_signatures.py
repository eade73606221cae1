"""What is asked of gsplat, held against its signatures: those installed, and those of its main branch.

The latter are of commit 90d7b4b3 (August 2026, called 1.6.0, in no package index yet). Its kernels draw no Gaussian
more opaque than 0.99, where 1.5's, and our renderers, go to 0.999: pictures will differ, so that more than signatures
is to be looked at before the range of versions in pyproject.toml is widened.
"""

from __future__ import annotations

import inspect

import gsplat.rendering
import pytest
import torch
from gsplat.strategy import ops
from renderer.scenes import ball, cast, views

from gsdistill.renderer import cuda

NEEDED = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "width", "height")
MAIN = {
    "near_plane": 0.01, "far_plane": 1e10, "radius_clip": 0.0, "eps2d": 0.3, "sh_degree": None, "packed": True,
    "tile_size": None, "backgrounds": None, "render_mode": "RGB", "sparse_grad": False, "absgrad": False,
    "rasterize_mode": "classic", "channel_chunk": 32, "distributed": False, "camera_model": "pinhole",
    "segmented": False, "covars": None, "with_ut": False, "with_eval3d": False, "return_normals": False,
    "global_z_order": True, "rays": None, "radial_coeffs": None, "tangential_coeffs": None, "thin_prism_coeffs": None,
    "ftheta_coeffs": None, "lidar_coeffs": None, "external_distortion_coeffs": None, "rolling_shutter": "GLOBAL",
    "viewmats_rs": None, "ut_params": None, "extra_signals": None, "extra_signals_sh_degree": None,
    "renderer_config": None,
}  # fmt: skip
MAIN_OPS = {
    "duplicate": ("params", "optimizers", "state", "mask", "scene"),
    "split": ("params", "optimizers", "state", "mask", "revised_opacity", "scene"),
    "remove": ("params", "optimizers", "state", "mask", "scene"),
    "reset_opa": ("params", "optimizers", "state", "value"),
}


class Asked(Exception):
    """Ends the render once its arguments are known."""


@pytest.mark.parametrize("degree", [0, 2])
def test_the_renderer_asks_for_nothing_that_a_version_does_not_know(degree):
    asked = {}

    def remember(**given):
        asked.update(given)
        raise Asked

    with pytest.raises(Asked):
        cuda.render_with(remember, ball(3, degree), cast(views(2), torch.float32), torch.zeros(2, 3))
    installed = inspect.signature(gsplat.rendering.rasterization).parameters
    assert set(NEEDED) <= set(asked) <= {*NEEDED, *MAIN} & set(installed)
    # what is left to gsplat means the same in both; main takes tiles of 16 where none is named, as 1.5 does
    left = {name: installed[name].default for name in installed.keys() & MAIN.keys() - asked.keys()}
    del left["tile_size"], left["rolling_shutter"]
    assert left == {name: MAIN[name] for name in left}


@pytest.mark.parametrize("name", MAIN_OPS)
def test_the_densifier_calls_what_both_have(name):
    installed = tuple(inspect.signature(getattr(ops, name)).parameters)
    assert MAIN_OPS[name][: len(installed)] == installed
