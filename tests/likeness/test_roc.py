"""Thresholds keep their promise on any scores; curves have the known area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from oblik.errors import InvalidInput
from oblik.likeness.roc import roc, share_at, threshold_at, weighted_thresholds

still = settings(derandomize=True, database=None, deadline=None, max_examples=80)
scores = st.lists(st.sampled_from(np.linspace(-1, 1, 41).tolist()), min_size=1, max_size=80)


@still
@given(scores, st.floats(0.005, 0.6))
def test_fmr_is_never_above_and_no_smaller_threshold_would_do(values: list[float], fmr: float) -> None:
    """Ties included: scores come from a coarse grid."""
    impostors = np.array(values)
    threshold = threshold_at(impostors, fmr)
    assert (impostors >= threshold).mean() <= fmr + 1e-12
    assert (impostors >= np.nextafter(threshold, -np.inf)).mean() > fmr


@still
@given(scores, st.integers(0, 10_000), st.floats(0.01, 0.5))
def test_weights_are_repetitions(values: list[float], seed: int, fmr: float) -> None:
    descending = np.sort(values)[::-1]
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(values)))
    weights[:, 0] += 1
    found = weighted_thresholds(descending, weights.astype(float), fmr)
    for row, threshold in zip(weights, found, strict=True):
        assert threshold == threshold_at(np.repeat(descending, row), fmr)


def test_a_known_distribution_has_its_known_quantile() -> None:
    normal = np.random.default_rng(0).normal(0.1, 0.2, 200_000)
    assert threshold_at(normal, 0.01) == pytest.approx(0.1 + 0.2 * 2.3263, abs=0.005)


@pytest.mark.parametrize("fmr", [0.0, 1.0, -0.1])
def test_impossible_rates_are_refused(fmr: float) -> None:
    with pytest.raises(InvalidInput):
        threshold_at(np.zeros(4), fmr)


def test_share_counts_equal_scores() -> None:
    np.testing.assert_allclose(
        share_at(np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.5, 0.51, 2.0])), [0.75, 0.25, 0]
    )


def test_curve_of_two_normals() -> None:
    """AUC = Phi(d / sqrt 2), EER = Phi(-d / 2) for unit variances at distance d."""
    rng = np.random.default_rng(1)
    curve = roc(rng.normal(0, 1, 40_000), rng.normal(2, 1, 40_000))
    assert curve.auc == pytest.approx(special.ndtr(2 / np.sqrt(2)), abs=0.005)
    assert curve.eer == pytest.approx(special.ndtr(-1), abs=0.005)


@still
@given(scores, scores, st.integers(0, 5))
def test_curves_rise_from_nothing_to_everything(
    impostors: list[float], genuine: list[float], misses: int
) -> None:
    curve = roc(np.array(impostors), np.array(genuine), misses=misses)
    assert (curve.fmr[0], curve.tpr[0]) == (0, 0)
    assert curve.tpr[-1] == pytest.approx(len(genuine) / (len(genuine) + misses))
    assert (np.diff(curve.fmr) >= 0).all()
    assert (np.diff(curve.tpr) >= 0).all()
    assert (np.diff(curve.thresholds) < 0).all()
    assert 0 <= curve.auc <= 1


def test_misses_cost_area() -> None:
    impostors, genuine = np.zeros(50), np.ones(8)
    assert roc(impostors, genuine).auc == 1
    assert roc(impostors, genuine, misses=2).auc == pytest.approx(0.8)
    assert roc(impostors, np.empty(0), misses=2).auc == 0


def test_nothing_to_draw() -> None:
    with pytest.raises(InvalidInput):
        roc(np.zeros(3), np.empty(0))
