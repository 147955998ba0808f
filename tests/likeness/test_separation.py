"""Every pair counts once, and the threshold is that of all pairs at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.errors import InvalidInput
from oblik.likeness.roc import threshold_at
from oblik.likeness.separation import separate

Draw = Callable[..., NDArray[np.float32]]


@pytest.mark.parametrize("rows", [1, 7, 64, 10_000])
@pytest.mark.parametrize("fmr", [0.001, 0.01, 0.3])
def test_blocks_give_what_all_pairs_give(draw: Draw, rows: int, fmr: float) -> None:
    faces = draw(4, 40, 5).reshape(200, -1)
    whose = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 5))
    pairs = list(combinations(range(200), 2))
    cosines = np.array([float(faces[a].astype(np.float64) @ faces[b]) for a, b in pairs])
    strangers = np.array([whose[a] != whose[b] for a, b in pairs])
    found = separate(faces, whose, fmr=fmr, rows=rows)
    assert (found.people, found.impostor_pairs, found.genuine_pairs) == (40, 19_500, 400)
    naive = threshold_at(cosines[strangers], fmr)
    assert found.threshold == pytest.approx(naive, abs=1e-6)
    assert np.mean(cosines[strangers] >= found.threshold + 1e-6) <= fmr
    assert found.tpr == pytest.approx(np.mean(cosines[~strangers] >= naive), abs=1e-9)
    most = pairs[int(np.argmax(np.where(strangers, cosines, -2)))]
    assert found.closest == most
    assert found.closest_score == pytest.approx(cosines[strangers].max(), abs=1e-6)


def test_equal_scores_at_the_edge_may_not_match() -> None:
    """Four faces of four people, all the same: no threshold at or below 1 keeps any pair out."""
    same = np.tile(np.array([1, 0], np.float32), (4, 1))
    found = separate(same, np.arange(4), fmr=0.5)
    assert found.threshold > 1
    assert found.tpr is None
    assert "pairs of one person" not in found.sentence


def test_nobody_to_tell_apart_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one person alone"):
        separate(np.eye(3, dtype=np.float32), np.zeros(3, np.int64))
    with pytest.raises(InvalidInput, match="FMR 1"):
        separate(np.eye(3, dtype=np.float32), np.arange(3), fmr=1)
