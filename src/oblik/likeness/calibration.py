"""The threshold of one persona on one face stack, with its uncertainty.

In: impostor embeddings, the persona's held-out references, a seeded generator. Out: `Calibration`.
Knows nothing of pictures.

The threshold is the smallest one at which the false match rate (ISO/IEC 19795-1: the share of impostor
scores at or above it) is at most FMR. It is the persona's own: every impostor image is scored against
this persona's references, because faces differ in how many others resemble them. Threshold and test
are disjoint: impostors are other people, and no score of the persona enters.
From few people the tail is guesswork: at 1 %, 300 independent scores leave the true FMR anywhere
between 0.2 and 2.4 %, 3000 between 0.7 and 1.4 %. Below the two minimums `can_claim` is false.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from oblik.errors import InvalidInput
from oblik.likeness.intervals import DRAWS, Interval, around
from oblik.likeness.pairs import Embeddings_ND, Impostors, Scores_N, impostor_scores
from oblik.likeness.roc import threshold_at, weighted_thresholds

ENOUGH_IDENTITIES = 300
ENOUGH_SCORES = 3000
BLOCK = 4_000_000
"""Weights held at once, 32 MB."""


class Calibration(BaseModel):
    """Thresholds at a false match rate. ``threshold`` belongs to the centroid score,
    ``nearest_threshold`` to the score against the nearest reference; low and high bound 95 %."""

    model_config = ConfigDict(extra="forbid")

    stack: str
    source: str
    fmr: float
    threshold: float
    threshold_low: float
    threshold_high: float
    nearest_threshold: float
    nearest_low: float
    nearest_high: float
    references: int
    impostor_identities: int
    impostor_scores: int
    pooled_targets: int = 0
    bootstrap_draws: int

    @property
    def can_claim(self) -> bool:
        """Whether there are people and scores enough to state the threshold as a finding."""
        return self.impostor_identities >= ENOUGH_IDENTITIES and self.impostor_scores >= ENOUGH_SCORES


def calibrate(
    impostors: Impostors,
    references_ND: Embeddings_ND,
    *,
    fmr: float = 0.01,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Calibration:
    """Find the smallest threshold whose false match rate on impostors is at most ``fmr``.

    Raises InvalidInput when there is no reference, dimensions differ, or no impostor.
    """
    _check(impostors, references_ND)
    scores = impostor_scores(impostors, references_ND, at_least=ENOUGH_SCORES)
    to_centroid = threshold_interval(scores.centroid_S, scores.probe_S, scores.target_S, fmr, rng, draws)
    to_nearest = threshold_interval(scores.nearest_S, scores.probe_S, scores.target_S, fmr, rng, draws)
    return Calibration(
        stack=impostors.stack,
        source=impostors.source,
        fmr=fmr,
        threshold=to_centroid.value,
        threshold_low=to_centroid.low,
        threshold_high=to_centroid.high,
        nearest_threshold=to_nearest.value,
        nearest_low=to_nearest.low,
        nearest_high=to_nearest.high,
        references=len(references_ND),
        impostor_identities=impostors.identities,
        impostor_scores=len(scores.centroid_S),
        pooled_targets=scores.pooled_targets,
        bootstrap_draws=draws,
    )


def threshold_interval(
    scores_S: Scores_N,
    probe_S: NDArray[np.int64],
    target_S: NDArray[np.int64],
    fmr: float,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """The threshold and its 95 % percentile interval from a bootstrap over identities (Efron 1979).

    Photos of one impostor resemble each other, so people are drawn, not scores: a draw weighs a score
    by how often its probe was drawn, times how often its target was (once for the persona, -1). The
    interval is conditional on the persona's references.
    """
    order = np.argsort(scores_S)[::-1]
    descending_S, probe_S, target_S = scores_S[order], probe_S[order], target_S[order]
    people = int(max(probe_S.max(), target_S.max())) + 1
    present = np.bincount(probe_S, minlength=people) > 0
    chance = present / present.sum()
    block = max(1, BLOCK // len(order))
    replicates: list[NDArray[np.float64]] = []
    for start in range(0, draws, block):
        times_BI = rng.multinomial(int(present.sum()), chance, size=min(block, draws - start))
        weights_BS = times_BI[:, probe_S].astype(np.float64)
        pooled_S = target_S >= 0
        weights_BS[:, pooled_S] *= times_BI[:, target_S[pooled_S]]
        replicates.append(weighted_thresholds(descending_S, weights_BS, fmr))
    return around(threshold_at(scores_S, fmr), np.concatenate(replicates))


def _check(impostors: Impostors, references_ND: Embeddings_ND) -> None:
    if not len(references_ND):
        raise InvalidInput("no held-out reference photo", hint="add photos, then: oblik dataset build")
    if not len(impostors.embeddings_MD):
        raise InvalidInput("no impostor faces to calibrate with", hint="oblik pack verify")
    if impostors.embeddings_MD.shape[1] != references_ND.shape[1]:
        raise InvalidInput(
            f"impostor embeddings have {impostors.embeddings_MD.shape[1]} dimensions, the persona's "
            f"{references_ND.shape[1]}: two different face stacks",
            hint="oblik dataset build",
        )
