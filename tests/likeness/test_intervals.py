"""Bounds agree with published numbers; intervals cover the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from oblik.errors import InvalidInput
from oblik.likeness.intervals import (
    bootstrap_difference,
    clopper_pearson,
    expanded_tail,
    largest_by_chance,
    mean_interval,
    median_interval,
    one_more,
    rate,
)

still = settings(derandomize=True, database=None, deadline=None, max_examples=60)


@pytest.mark.parametrize(("successes", "trials"), [(59, 61), (96, 100), (188, 200), (279, 300)])
def test_the_fewest_successes_that_prove_ninety_percent(successes: int, trials: int) -> None:
    assert rate(successes, trials).low >= 0.9
    assert rate(successes - 1, trials).low < 0.9


def test_rule_of_three() -> None:
    """No error in N trials: at most about 3/N, with 95 % confidence (ISO/IEC 19795-1)."""
    assert clopper_pearson(0, 300)[1] == pytest.approx(3 / 300, rel=0.01)
    assert clopper_pearson(0, 300)[0] == 0
    assert clopper_pearson(300, 300)[1] == 1


@still
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bounds_are_where_the_binomial_tail_is_five_percent(counts: tuple[int, int]) -> None:
    k, n = counts
    low, high = clopper_pearson(k, n)
    assert low <= k / n <= high
    if k > 0:
        assert stats.binom.sf(k - 1, n, low) == pytest.approx(0.05, abs=1e-9)
    if k < n:
        assert stats.binom.cdf(k, n, high) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 4)])
def test_no_rate_from_nothing(successes: int, trials: int) -> None:
    with pytest.raises(InvalidInput):
        rate(successes, trials)


def coverage(statistic: str, size: int, runs: int = 800) -> float:
    rng = np.random.default_rng(11)
    interval = {"mean": mean_interval, "median": median_interval}[statistic]
    found = [interval(rng.normal(0.6, 0.1, size), rng, draws=400) for _ in range(runs)]
    return float(np.mean([i.low <= 0.6 <= i.high for i in found]))


@pytest.mark.parametrize("size", [8, 30])
def test_the_mean_of_few_pictures_is_covered(size: int) -> None:
    """The plain percentile bootstrap covers only 89 % at n = 8."""
    assert 0.925 <= coverage("mean", size) <= 0.985


@pytest.mark.parametrize("size", [8, 30])
def test_the_median_of_few_pictures_is_covered(size: int) -> None:
    assert 0.90 <= coverage("median", size) <= 0.985


def test_one_value_has_no_width_and_an_interval_holds_its_value() -> None:
    rng = np.random.default_rng(0)
    assert str(mean_interval(np.array([0.5]), rng)) == "0.50 [0.50, 0.50]"
    skewed = rng.exponential(size=9)
    for interval in (mean_interval(skewed, rng), median_interval(skewed, rng)):
        assert interval.low <= interval.value <= interval.high


def test_seeds_decide() -> None:
    values = np.linspace(0, 1, 12)
    first, again, other = (mean_interval(values, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again != other


def test_difference_of_means() -> None:
    rng = np.random.default_rng(4)
    shifted = bootstrap_difference(rng.normal(0.3, 0.05, 40), rng.normal(0.0, 0.05, 40), rng)
    assert shifted.low < 0.3 < shifted.high
    assert shifted.low > 0.2


def test_expansion_fades() -> None:
    assert expanded_tail(8) < 0.01
    assert expanded_tail(10_000) == pytest.approx(0.025, abs=1e-4)


def test_chance_and_one_more() -> None:
    assert [largest_by_chance(n, 0.05) for n in (1, 8, 100)] == [
        int(stats.binom.ppf(0.95, n, 0.05)) for n in (1, 8, 100)
    ]
    rng = np.random.default_rng(5)
    samples = rng.normal(size=(4000, 6))
    below = [rng.normal() <= one_more(sample) for sample in samples]
    assert np.mean(below) == pytest.approx(0.95, abs=0.015)
