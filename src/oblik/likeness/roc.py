"""Receiver operating characteristic: what each threshold costs and brings.

In: impostor and genuine scores. Out: `Roc`, thresholds, rates. Knows nothing of where scores come from.

Terms of ISO/IEC 19795-1: FMR, the share of impostor scores at or above the threshold; FNMR, the share
of genuine scores below it; TPR = 1 - FNMR. A miss (no face found) is a genuine score below any threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from oblik.errors import InvalidInput

Scores_S = NDArray[np.float64]
Weights_BS = NDArray[np.float64]


class Roc(BaseModel):
    """A curve from high thresholds (0, 0) to low ones (1, 1 - misses). ``auc`` is the probability that a
    genuine score exceeds an impostor's; ``eer`` the error rate where FMR and FNMR meet."""

    model_config = ConfigDict(extra="forbid")

    thresholds: list[float]
    fmr: list[float]
    tpr: list[float]
    auc: float
    eer: float
    genuine: int
    misses: int
    impostors: int


def share_at(scores_S: Scores_S, thresholds_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of scores at or above each threshold."""
    ascending = np.sort(scores_S)
    return (len(ascending) - np.searchsorted(ascending, thresholds_T, side="left")) / max(len(ascending), 1)


def threshold_at(impostor_S: Scores_S, fmr: float) -> float:
    """The smallest threshold with FMR at most ``fmr``: just above the first score that may not match."""
    descending = np.sort(impostor_S)[::-1]
    return float(weighted_thresholds(descending, np.ones((1, len(descending))), fmr)[0])


def weighted_thresholds(descending_S: Scores_S, weights_BS: Weights_BS, fmr: float) -> NDArray[np.float64]:
    """`threshold_at` for B weightings of the same scores, which are sorted from high to low."""
    if not 0 < fmr < 1 or not len(descending_S):
        raise InvalidInput(
            f"no threshold at FMR {fmr} from {len(descending_S)} scores", hint="use 0 < FMR < 1"
        )
    matched_BS = np.cumsum(weights_BS, axis=1)
    allowed_B1 = fmr * matched_BS[:, -1:] * (1 + 1e-12)
    first_refused_B = (matched_BS <= allowed_B1).sum(axis=1).clip(max=len(descending_S) - 1)
    return np.asarray(np.nextafter(descending_S[first_refused_B], np.inf), np.float64)


def roc(impostor_S: Scores_S, genuine_G: Scores_S, *, misses: int = 0, points: int = 300) -> Roc:
    """The curve at every genuine score and at ``points`` impostor scores, dense where FMR is low."""
    if not len(impostor_S) or not len(genuine_G) + misses:
        raise InvalidInput(
            "a ROC needs impostor and genuine scores", hint="add photos, then: oblik dataset build"
        )
    scored = np.concatenate([genuine_G, np.full(misses, -np.inf)])
    descending = np.sort(impostor_S)[::-1]
    ranks = np.unique(np.geomspace(1, len(descending), points).astype(int)) - 1
    thresholds = np.unique(np.concatenate([genuine_G, descending[ranks]]))[::-1]
    thresholds = np.concatenate([[np.nextafter(thresholds[0], np.inf)], thresholds])
    fmr, tpr = share_at(impostor_S, thresholds), share_at(scored, thresholds)
    return Roc(
        thresholds=[float(t) for t in thresholds],
        fmr=[float(x) for x in fmr],
        tpr=[float(y) for y in tpr],
        auc=_auc(impostor_S, scored),
        eer=_eer(impostor_S, scored),
        genuine=len(scored),
        misses=misses,
        impostors=len(impostor_S),
    )


def _auc(impostor_S: Scores_S, genuine_G: Scores_S) -> float:
    """Mann-Whitney: P(genuine > impostor) + P(equal) / 2."""
    ascending = np.sort(impostor_S)
    below = np.searchsorted(ascending, genuine_G, side="left")
    up_to = np.searchsorted(ascending, genuine_G, side="right")
    return float((below + up_to).mean() / 2 / len(ascending))


def _eer(impostor_S: Scores_S, genuine_G: Scores_S) -> float:
    thresholds = np.unique(np.concatenate([impostor_S, genuine_G[np.isfinite(genuine_G)]]))
    fmr, fnmr = share_at(impostor_S, thresholds), 1 - share_at(genuine_G, thresholds)
    closest = int(np.argmin(np.abs(fmr - fnmr)))
    return float((fmr[closest] + fnmr[closest]) / 2)
