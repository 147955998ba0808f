"""Which checkpoint is the person: what a trainer is told about one, and the choice among them.

In: a step and the pictures made at it, by whoever can see faces. Out: `Judgement`, and the best of several.
The choice is pure. Knows nothing of faces, thresholds and files; a trainer needs no more than this.

Training loss does not say when to stop: it falls while a LoRA learns single photos by heart and leaks into
strangers. So the choice goes by likeness, by the *lower end* of its interval (few probes, and a lucky one
should not win), among checkpoints that pass two guards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

WITH, WITHOUT = "with", "without"
"""Folders of probes: the same prompts and seeds with the trigger token and without it."""


class Judgement(BaseModel):
    """What was seen in the probes of one step; likeness figures are cosines.

    ``low`` and ``high`` bound ``likeness`` (95 %). ``without`` is the mean of the probes without the token;
    it bleeds from ``threshold`` on, the score that other people reach at the calibrated rate. ``copied`` is
    the share of faces that are closer to one training photo than a new photo of the person would be, and
    ``allowed_copy`` the share up to which that is chance; both are 0 with too few held-out photos to know.
    ``misses`` counts probes with the token in which no face was found: each is a likeness of 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    likeness: float
    low: float
    high: float
    without: float
    copied: float
    allowed_copy: float
    misses: int
    passes: bool
    threshold: float = 1.0

    @property
    def bleeds(self) -> bool:
        """Whether strangers have become the person."""
        return self.without >= self.threshold

    @property
    def copies(self) -> bool:
        """Whether more pictures than chance explains repeat a training photo."""
        return self.copied > self.allowed_copy


class Judge(Protocol):
    """Looks at the probes of one step."""

    def __call__(self, step: int, probes: Path) -> Judgement:
        """Judge the pictures in ``probes/with`` and ``probes/without``.

        Raises:
            NotFound: one of the two holds no picture.
        """
        ...


def best(judgements: Sequence[Judgement]) -> Judgement | None:
    """The checkpoint to keep: the highest lower end among those that pass, the earlier of two equal ones.

    None when none passes: then no step can be recommended, and whoever trains should say so.
    """
    passing = [judgement for judgement in judgements if judgement.passes]
    return max(passing, key=lambda judgement: (judgement.low, -judgement.step), default=None)
