"""How sure a number is: binomial bounds and bootstrap intervals.

In: counts or values, a seeded generator. Out: `Rate`, `Interval`. Knows nothing of faces.

Sources: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial" (1934); Efron, "Bootstrap methods: another look at the jackknife" (1979); Hesterberg, "What
teachers should know about the bootstrap" (2015), section 4.5 for the small-sample expansion.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import special

from oblik.errors import InvalidInput

Values_N = NDArray[np.float64]

DRAWS = 2000
CONFIDENCE = 0.95


class Interval(BaseModel):
    """A value with a two-sided 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


class Rate(BaseModel):
    """``successes`` of ``trials``. ``low`` and ``high`` are each a one-sided 95 % Clopper-Pearson bound
    (together a 90 % interval). Exact for independent trials; photos of one session are not quite that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    successes: int
    trials: int
    value: float
    low: float
    high: float


def rate(successes: int, trials: int) -> Rate:
    """The share of successes with its bounds. Raises InvalidInput without a trial."""
    if not 0 <= successes <= trials or trials == 0:
        raise InvalidInput(f"{successes} of {trials} is not a rate", hint="measure at least one image")
    low, high = clopper_pearson(successes, trials)
    return Rate(successes=successes, trials=trials, value=successes / trials, low=low, high=high)


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """One-sided exact bounds of a binomial proportion, as quantiles of the beta distribution."""
    k, n = successes, trials
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, 1 - confidence))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, confidence))
    return low, high


def mean_interval(values_N: Values_N, rng: np.random.Generator, draws: int = DRAWS) -> Interval:
    """Bootstrap interval of the mean: expanded percentiles.

    The plain percentile interval of a mean is too short by about sqrt((n-1)/n) z/t for small n; the
    percentiles are moved outwards to make up for it (Hesterberg 2015). One value gives no width.
    """
    means_B = _resampled(values_N, rng, draws).mean(axis=1)
    return around(float(np.mean(values_N)), means_B, expanded_tail(len(values_N)))


def median_interval(values_N: Values_N, rng: np.random.Generator, draws: int = DRAWS) -> Interval:
    """Bootstrap interval of the median: plain percentiles, which for a median are close to the exact
    order-statistic interval already (Efron 1979, section 3)."""
    medians_B = np.median(_resampled(values_N, rng, draws), axis=1)
    return around(float(np.median(values_N)), medians_B)


def bootstrap_difference(
    left_N: Values_N, right_M: Values_N, rng: np.random.Generator, draws: int = DRAWS
) -> Interval:
    """Interval of mean(left) - mean(right), both resampled independently."""
    means_B = _resampled(left_N, rng, draws).mean(axis=1) - _resampled(right_M, rng, draws).mean(axis=1)
    value = float(np.mean(left_N) - np.mean(right_M))
    return around(value, means_B, expanded_tail(min(len(left_N), len(right_M))))


def around(value: float, replicates_B: Values_N, tail: float = (1 - CONFIDENCE) / 2) -> Interval:
    """The percentile interval of bootstrap replicates, cut at ``tail`` each side; it contains the value."""
    low, high = np.percentile(replicates_B, [100 * tail, 100 - 100 * tail])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def _resampled(values_N: Values_N, rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
    values = np.asarray(values_N, np.float64)
    return values[rng.integers(0, len(values), size=(draws, len(values)))]


def expanded_tail(count: int, confidence: float = CONFIDENCE) -> float:
    """Probability to cut off at each end: Phi(-sqrt(n/(n-1)) t) with t of n-1 degrees of freedom."""
    if count < 2:
        return (1 - confidence) / 2
    t = special.stdtrit(count - 1, (1 + confidence) / 2)
    return float(special.ndtr(-np.sqrt(count / (count - 1)) * t))


def largest_by_chance(trials: int, probability: float, confidence: float = CONFIDENCE) -> int:
    """The smallest k that a binomial count exceeds with probability at most 1 - confidence."""
    k = 0
    while k < trials and special.bdtr(k, trials, probability) < confidence:
        k += 1
    return k


def one_more(values_N: Values_N, confidence: float = CONFIDENCE) -> float:
    """Upper prediction bound for one further value of a normal sample: m + t s sqrt(1 + 1/n)."""
    n = len(values_N)
    t = float(special.stdtrit(n - 1, confidence))
    return float(np.mean(values_N) + t * np.std(values_N, ddof=1) * np.sqrt(1 + 1 / n))
