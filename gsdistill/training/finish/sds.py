"""Steps of SDS at low noise and low guidance, which remove the mottled colours that mode-disengaging methods leave.

On a sharp prior, such as that of a small world, the guidance part of a score vanishes at low noise, while the
mode-seeking part does not. CDS, CSD and ASD use only the guidance part, so their colours saturate and empty space is
not cleared. Some steps of SDS at low noise correct both and keep the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gsdistill.core.ranges import bounded
from gsdistill.distillation.sds import SDS
from gsdistill.representation.regularizers import RegularizerSettings
from gsdistill.settings.config import to_dict
from gsdistill.settings.ramp import Ramp
from gsdistill.training.finish.base import Finish

__all__ = ["SDSFinish"]


@dataclass(frozen=True)
class SDSFinish(Finish):
    """SDS at low noise. A step costs two evaluations a view."""

    share: float = bounded(0.38, above=0, below=1)  # of the steps of the run
    views: int | None = bounded(4, low=1)  # in a step, if the method has not less; none: as many
    guidance_scale: Ramp = bounded(Ramp(3.0, 1.5), low=1)  # omega
    t_max: Ramp = bounded(Ramp(0.4, 0.2), low=0, high=1)  # highest timestep, a share of the schedule
    opacities: Ramp = bounded(Ramp(0.15, 0.05), low=0)  # learning rate of the logit: what is faint goes or stays
    entropy: Ramp = bounded(Ramp(200.0, 200.0), low=0)  # weight of the mean alpha (1 - alpha), with no other penalty

    def steps(self, iterations: int) -> int:
        """The ``share`` of them, but at least one step is left to the method."""
        return min(round(self.share * iterations), iterations - 1)

    def overrides(self, views: int) -> dict[str, Any]:
        """SDS with weight 1 as the method, a penalty for half-transparent pixels, and no more growing."""
        method = SDS(self.guidance_scale, t_max=self.t_max, weighting="uniform")
        return {
            "method": {"name": "sds", **to_dict(method)},
            "views": min(self.views or views, views),
            "optim": {"opacities": str(self.opacities)},
            "regularizers": to_dict(RegularizerSettings(entropy=self.entropy)),
            "densify": {"enabled": False},
        }
