"""How sure a mean is: 95 % intervals for figures of prompts x seeds, and for shares.

Figures: the hierarchical percentile bootstrap. Of P prompts, P are drawn with replacement, and of each one's S seeds, S
likewise; the mean of a resample is the mean over its prompts of the mean over their seeds. The interval is from the
2.5 % to the 97.5 % quantile of the means of 10,000 resamples, drawn from a fixed seed. With few prompts it is a little
too narrow, by the factor sqrt(1 - 1 / P) if prompts differ more than seeds.

Shares: Wilson's score interval (1927) of k successes in n trials, which keeps its width where all of them succeed. It
takes the trials to be independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["Interval", "bootstrap", "wilson"]

RESAMPLES, LEVEL = 10_000, 0.95
SEED = 20240229  # any


@dataclass(frozen=True)
class Interval:
    """A mean or a share, and where its 95 % interval begins and ends."""

    mean: float
    low: float
    high: float


def bootstrap(values: Float[np.ndarray, "P S"], resamples: int = RESAMPLES) -> Interval | None:
    """The mean of a figure over prompts (rows) and seeds, see the module; NaN stands for a missing run.

    None if all are missing.
    """
    there = ~np.isnan(values)
    values, counts = values[there.any(1)], there.sum(1)[there.any(1)]
    if not len(values):
        return None
    ordered = np.sort(values, axis=1)  # NaN goes last
    rng = np.random.default_rng(SEED)
    prompts = rng.integers(len(values), size=(resamples, len(values)))
    room = counts[prompts][..., None]
    places = np.floor(rng.random((*prompts.shape, values.shape[1])) * room).astype(int)
    drawn = ordered[prompts[..., None], places]
    used = np.arange(values.shape[1]) < room  # a prompt with fewer seeds draws so many
    resampled = ((drawn * used).sum(2) / room[..., 0]).mean(1)
    tail = 0.5 * (1.0 - LEVEL)
    low, high = np.quantile(resampled, (tail, 1.0 - tail))
    return Interval(float(np.nanmean(ordered, axis=1).mean()), float(low), float(high))


def wilson(successes: int, trials: int) -> Interval | None:
    """The share of ``successes``, see the module; None if there was no trial."""
    if not trials:
        return None
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(LEVEL, "wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))
