"""How well a face stack tells the people of a set apart: every pair of faces, without keeping the pairs.

In: unit embeddings and whose each is. Out: a `Separation`. Knows nothing of personas and pictures.

All cosines are worked out, a block of rows at a time, in float32 as everywhere. The threshold at FMR f is the
smallest one that at most f of all impostor pairs reach, as in `oblik.likeness.roc`: it lies just above the
(f P + 1)-th largest of P impostor scores, so only so many of the largest are kept. What falls below the
smallest of those can never be among them: the order statistic is exact, not read off a histogram. What
remains is the rounding of float32 cosines, below 1e-6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from oblik.errors import InvalidInput
from oblik.likeness.pairs import Embeddings_ND

ROWS = 256
"""Rows of cosines held at once: with 10,000 faces 10 MB."""


class Separation(BaseModel):
    """``threshold`` is that of any two faces at ``fmr``; ``tpr`` the share of pairs of one person that reach
    it, None where everybody has a single face. ``closest`` are the two different people that are most alike,
    as places in the list of embeddings, and ``closest_score`` their cosine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: int
    faces: int
    impostor_pairs: int
    genuine_pairs: int
    fmr: float
    threshold: float
    tpr: float | None
    closest: tuple[int, int]
    closest_score: float

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        said = (
            f"{self.impostor_pairs:,} pairs of different people: threshold {self.threshold:.3f} at FMR "
            f"{100 * self.fmr:g} %, the most alike {self.closest_score:.3f}"
        )
        if self.tpr is None:
            return said
        return f"{said}; {100 * self.tpr:.1f} % of {self.genuine_pairs:,} pairs of one person reach it"


def separate(
    embeddings_ND: Embeddings_ND, identity_N: NDArray[np.int64], *, fmr: float = 0.01, rows: int = ROWS
) -> Separation:
    """Weigh every pair of faces. Raises InvalidInput without two people, or for an FMR outside 0..1."""
    if not 0 < fmr < 1:
        raise InvalidInput(f"no threshold at FMR {fmr}", hint="use 0 < FMR < 1")
    faces = len(embeddings_ND)
    counts = np.unique(identity_N, return_counts=True)[1].astype(np.int64)
    genuine_pairs = int((counts * (counts - 1) // 2).sum())
    impostor_pairs = faces * (faces - 1) // 2 - genuine_pairs
    if not impostor_pairs:
        raise InvalidInput("one person alone cannot be told apart", hint="oblik likeness impostors FOLDER")
    largest = _Largest(int(fmr * impostor_pairs * (1 + 1e-12)) + 1)
    genuine: list[NDArray[np.float32]] = []
    closest, closest_score = (0, 0), -np.inf
    for start in range(0, faces, rows):
        cosines_BN = embeddings_ND[start : start + rows] @ embeddings_ND[start:].T
        strangers_BN = identity_N[start : start + rows, None] != identity_N[None, start:]
        later_BN = np.triu(np.ones(cosines_BN.shape, np.bool_), 1)
        genuine.append(cosines_BN[later_BN & ~strangers_BN])
        strangers_BN &= later_BN
        cosines_BN[~strangers_BN] = -np.inf
        best = int(np.argmax(cosines_BN))
        if cosines_BN.flat[best] > closest_score:
            closest_score = float(cosines_BN.flat[best])
            closest = (start + best // cosines_BN.shape[1], start + best % cosines_BN.shape[1])
        largest.add(cosines_BN)
    threshold = float(np.nextafter(np.float64(largest.smallest()), np.inf))
    same_G = np.concatenate(genuine)
    return Separation(
        people=len(counts), faces=faces, impostor_pairs=impostor_pairs, genuine_pairs=genuine_pairs, fmr=fmr,
        threshold=threshold, tpr=float((same_G >= threshold).mean()) if genuine_pairs else None,
        closest=closest, closest_score=closest_score,
    )  # fmt: skip


class _Largest:
    """The ``count`` largest of a stream of scores. Room for as many again keeps sorting rare."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept_K: NDArray[np.float32] = np.empty(0, np.float32)
        self._new: list[NDArray[np.float32]] = []
        self._waiting = 0
        self._floor = np.float32(-np.inf)

    def add(self, scores: NDArray[np.float32]) -> None:
        """Take those that may be among the largest."""
        able = scores[scores > self._floor]
        self._new.append(able)
        self._waiting += len(able)
        if self._waiting > self._count:
            self._settle()

    def smallest(self) -> float:
        """The smallest of them."""
        self._settle()
        return float(self._kept_K.min())

    def _settle(self) -> None:
        kept_K = np.concatenate([self._kept_K, *self._new])
        self._new, self._waiting = [], 0
        if len(kept_K) > self._count:
            kept_K = np.partition(kept_K, -self._count)[-self._count :]
        self._kept_K = kept_K
        if len(kept_K) == self._count:
            self._floor = kept_K.min()
