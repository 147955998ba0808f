"""The threshold is the promised quantile, and its interval covers the true one although photos cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special

from oblik.errors import InvalidInput
from oblik.likeness.calibration import calibrate, threshold_interval
from oblik.likeness.pairs import Impostors, References, centroid_scores, nearest_scores

Draw = Callable[..., NDArray[np.float32]]
DIMS = 64


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_impostors_are_scored_as_pictures_are(impostors: Impostors, references: References) -> None:
    found = calibrate(impostors, references.heldout_ND, rng=seeded())
    scored = centroid_scores(impostors.embeddings_MD, references.heldout_ND)
    assert (scored >= found.threshold).mean() <= 0.01 < (scored >= found.threshold - 1e-9).mean()
    near = nearest_scores(impostors.embeddings_MD, references.heldout_ND)
    assert (near >= found.nearest_threshold).mean() <= 0.01
    assert found.threshold_low < found.threshold < found.threshold_high
    assert (found.stack, found.source, found.references) == ("clouds", "310 clouds", 6)
    assert (found.impostor_identities, found.impostor_scores, found.can_claim) == (310, 3100, True)


def test_the_same_seed_the_same_calibration(impostors: Impostors, references: References) -> None:
    first, again = (calibrate(impostors, references.heldout_ND, rng=seeded(3), draws=300) for _ in range(2))
    assert first == again


def test_a_stricter_rate_gives_a_higher_threshold(impostors: Impostors, references: References) -> None:
    strict, lax = (
        calibrate(impostors, references.heldout_ND, fmr=fmr, rng=seeded(), draws=50) for fmr in (0.001, 0.05)
    )
    assert strict.threshold > lax.threshold


@pytest.mark.parametrize(("people", "photos"), [(299, 12), (310, 3)])
def test_too_few_people_or_scores_cannot_claim(
    draw: Draw, references: References, people: int, photos: int
) -> None:
    few = Impostors(draw(9, people, photos).reshape(-1, DIMS), np.repeat(np.arange(people), photos))
    assert not calibrate(few, references.heldout_ND, rng=seeded(), draws=50).can_claim


def test_pooling_reaches_enough_scores(draw: Draw, references: References) -> None:
    pool = Impostors(draw(9, 320, 6).reshape(-1, DIMS), np.repeat(np.arange(320), 6))
    found = calibrate(pool, references.heldout_ND, rng=seeded(), draws=50)
    assert (found.pooled_targets, found.can_claim) == (1, True)


def coverage(by: str, runs: int = 100, people: int = 300, photos: int = 10) -> float:
    """How often the interval holds the true 99 % point of normal scores with an ICC of 0.6."""
    rng = seeded(17)
    truth = special.ndtri(0.99) * np.sqrt(0.6 + 0.4)
    hits = 0
    target = np.full(people * photos, -1)
    probe = np.repeat(np.arange(people), photos) if by == "identity" else np.arange(people * photos)
    for _ in range(runs):
        scores = np.sqrt(0.6) * rng.normal(size=(people, 1)) + np.sqrt(0.4) * rng.normal(
            size=(people, photos)
        )
        interval = threshold_interval(scores.ravel(), probe, target, 0.01, rng, draws=150)
        hits += interval.low <= truth <= interval.high
    return hits / runs


def test_resampling_people_covers_the_true_threshold() -> None:
    assert coverage("identity") >= 0.88


def test_resampling_scores_would_not() -> None:
    """Why people are drawn and not scores: photos of one person resemble each other."""
    assert coverage("score") < 0.85


@settings(derandomize=True, database=None, deadline=None, max_examples=25)
@given(st.integers(2, 30), st.integers(1, 6), st.sampled_from([0.01, 0.1, 0.5]), st.integers(0, 99))
def test_the_interval_holds_the_threshold(people: int, photos: int, fmr: float, seed: int) -> None:
    rng = seeded(seed)
    probe = np.repeat(np.arange(people), photos)
    scores = rng.normal(size=people * photos).round(1)
    found = threshold_interval(scores, probe, np.full(len(probe), -1), fmr, rng, draws=40)
    assert found.low <= found.value <= found.high
    assert (scores >= found.value).mean() <= fmr


def test_unusable_inputs_are_refused(impostors: Impostors, references: References) -> None:
    nobody = Impostors(np.empty((0, DIMS), np.float32), np.empty(0, np.int64))
    with pytest.raises(InvalidInput, match="no held-out"):
        calibrate(impostors, references.heldout_ND[:0], rng=seeded())
    with pytest.raises(InvalidInput, match="no impostor"):
        calibrate(nobody, references.heldout_ND, rng=seeded())
    with pytest.raises(InvalidInput, match="two different face stacks"):
        calibrate(impostors, references.heldout_ND[:, :32], rng=seeded())
