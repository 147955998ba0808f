"""Which checkpoint is best, and by what.

In: the pictures that a checkpoint made. Out: a `Judgement` of it. Knows nothing of training and of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel


class Judgement(BaseModel):
    """How alike the probes of one step are: mean likeness with its interval, and the two guards."""

    step: int
    likeness: float
    low: float
    high: float
    without: float
    copied: float
    allowed_copy: float
    misses: int
    passes: bool


class Judge(Protocol):
    """Judges the probes of one step: a folder with ``with/`` and ``without/``."""

    def __call__(self, step: int, probes: Path) -> Judgement: ...


def best(judgements: Sequence[Judgement]) -> Judgement | None:
    """Of those that pass, the one whose interval ends highest below; None when none passes."""
    return max((each for each in judgements if each.passes), key=lambda each: each.low, default=None)
