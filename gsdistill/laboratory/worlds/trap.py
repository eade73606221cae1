"""Two conditional modes and, between them, a broad singular mode of p(x) alone (SSD, arXiv 2312.09305, Fig. 3).

    p(x | y) = 1/2 N((-a, 0), tau^2) + 1/2 N((a, 0), tau^2),   p(x) = (1 - v) p(x | y) + v N(0, tau_s^2)

The constants are ours, chosen so that the paper's three claims hold under SSD's own settings (t uniform in
[0.02 T, 0.98 T], M = 0.2 T) with weight 1. For most t, a is below s_t = sigma_t / alpha_t, so that the blurred
p_t(x | y) has a single maximum, at the trap (0, 0). And tau_s is three times tau, so that p(y | x) is greatest far
outside of both modes.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.ranges import bounded
from gsdistill.laboratory.worlds.base import POINT, AnalyticWorld, Densities, points

__all__ = ["Trap"]


@dataclass(frozen=True)
class Trap(AnalyticWorld):
    """Settings of the world."""

    offset: float = bounded(0.5, above=0)  # a, of each conditional mode from the trap
    deviation: float = bounded(0.1, above=0)  # tau of the conditional modes
    singular_deviation: float = bounded(0.3, above=0)  # tau_s
    singular_weight: float = bounded(0.8, above=0, below=1)  # v, share of the singular mode in p(x)

    def densities(self, prompt: str) -> Densities:
        """The densities, which do not depend on the prompt."""
        a, tau, v = self.offset, self.deviation, self.singular_weight
        modes = [(-a, 0.0), (a, 0.0)]
        unconditional = points([(1 - v) / 2, (1 - v) / 2, v], [*modes, (0.0, 0.0)], [tau, tau, self.singular_deviation])
        return Densities(points([0.5, 0.5], modes, [tau, tau]), unconditional, POINT)
