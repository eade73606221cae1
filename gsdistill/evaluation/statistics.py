"""95 % intervals: of means over prompts x seeds, and of shares.

Means: the hierarchical percentile bootstrap. A resample draws P of the P prompts with replacement, and for each of them
S of its S seeds likewise; its mean is the mean over its prompts of the mean over their seeds. The interval goes from
the 2.5 % to the 97.5 % quantile of the means of 10,000 resamples, drawn from a fixed seed. With few prompts it is a
little too narrow, by the factor sqrt(1 - 1 / P) if prompts differ more than seeds.

Shares: Wilson's score interval (1927) of k successes in n trials, which has a width even if all trials succeed. It
assumes that trials are independent.
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
    """A mean or a share, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Float[np.ndarray, "P S"], resamples: int = RESAMPLES) -> Interval | None:
    """The mean of a figure over prompts (rows) and seeds, see the module; NaN marks a missing run, None if all are."""
    counts = (~np.isnan(values)).sum(1)
    values, counts = values[counts > 0], counts[counts > 0]
    if not len(values):
        return None
    ordered = np.sort(values, axis=1)  # NaN goes last
    rng = np.random.default_rng(SEED)
    prompts = rng.integers(len(values), size=(resamples, len(values)))
    seeds = counts[prompts][..., None]
    places = np.floor(rng.random((*prompts.shape, values.shape[1])) * seeds).astype(int)
    drawn = ordered[prompts[..., None], places]
    used = np.arange(values.shape[1]) < seeds  # a prompt draws as many seeds as it has
    resampled = ((drawn * used).sum(2) / seeds[..., 0]).mean(1)
    tail = 0.5 * (1.0 - LEVEL)
    low, high = np.quantile(resampled, (tail, 1.0 - tail))
    return Interval(float(np.nanmean(ordered, axis=1).mean()), float(low), float(high))


def wilson(successes: int, trials: int) -> Interval | None:
    """The share of ``successes`` in 0..1, see the module; None without a trial."""
    if not trials:
        return None
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(LEVEL, "wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))
