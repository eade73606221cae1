"""gsdistill: text to 3D Gaussian splats by score distillation.

    import gsdistill as gs

    run = gs.distil("a red torus", "shapes", method="sds", iterations=300)
    for step in run:
        print(step.number, float(step.loss))
    gs.save(run.representation.splat(), "torus.ply")

Each name is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsdistill.core.structs import Gaussians as Splat
    from gsdistill.distillation.base import Distillation
    from gsdistill.front import distil, evaluate, load, load_prior, render, save
    from gsdistill.prior.base import Prior
    from gsdistill.representation.base import Representation
    from gsdistill.settings.ramp import Ramp
    from gsdistill.training.distiller import Distiller
    from gsdistill.training.listener import Listener

__version__ = "0.1.0"

__all__ = [
    "Distillation", "Distiller", "Listener", "Prior", "Ramp", "Representation", "Splat", "distil", "evaluate", "load",
    "load_prior", "render", "save",
]  # fmt: skip

_HOMES = {
    "Distillation": "gsdistill.distillation.base",
    "Distiller": "gsdistill.training.distiller",
    "Listener": "gsdistill.training.listener",
    "Prior": "gsdistill.prior.base",
    "Ramp": "gsdistill.settings.ramp",
    "Representation": "gsdistill.representation.base",
    "Splat": "gsdistill.core.structs",
}


if not TYPE_CHECKING:  # a checker of types would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'gsdistill' has no attribute '{name}'")
        home = importlib.import_module(_HOMES.get(name, "gsdistill.front"))
        found = globals()[name] = getattr(home, "Gaussians" if name == "Splat" else name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations", "importlib"})
