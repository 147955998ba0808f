"""The noun `DayReport`: what is said of a day, as it is written down.

In and out: plain values, as in ``reports/2026-01-02.json``. Knows neither their source nor their drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from oblik.likeness.gate import MISS

What = Literal["failure", "refusal", "stop"]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RungDay(_Plain):
    """One rung of a climb, and the mean likeness before and after it (None: it was not measured)."""

    name: str
    reason: str
    before: float | None
    after: float | None
    guards: str | None


class Ascent(_Plain):
    """Why a batch climbed, and how far it came. ``usual`` is why its mode was reliable unasked, ``flag`` what
    is wrong where even the last rung was not enough; both empty otherwise."""

    batch: str
    at: datetime
    asked: str
    usual: str
    threshold: float | None
    rungs: list[RungDay]
    lacks: list[str]
    flag: str
    advice: list[str]

    @property
    def likeness(self) -> list[float]:
        """Of the first pictures, then after each rung that was measured."""
        measured = [rung for rung in self.rungs if rung.before is not None and rung.after is not None]
        return [value for rung in measured[:1] for value in (rung.before,) if value is not None] + [
            rung.after for rung in measured if rung.after is not None
        ]


class PersonaDay(_Plain):
    """One person's pictures. ``scores`` are in the order they were made, None where no face was found.

    ``profile`` is the mode that the LoRA's test calls for, ``advice`` what that test says to do.
    """

    persona: str
    batches: int
    pictures: int
    scores: list[float | None]
    mean_likeness: float | None
    recognised: int
    threshold: float | None
    reliable: int
    switches: int
    rungs: dict[str, int]
    degradations: dict[str, int]
    lacks: dict[str, int]
    flags: int
    climbs: list[Ascent]
    lora: str | None
    accepted: bool | None
    acceptance: str
    profile: str
    advice: list[str]


class Trouble(_Plain):
    """An operation that did not end well, or pictures that failed, and how often. A refusal is no failure:
    something asked for cannot be, or an extra is missing. A stop is somebody's wish."""

    kind: What
    what: str
    level: str
    code: str
    times: int


class TrendPoint(_Plain):
    """All persons together on one day."""

    day: date
    pictures: int
    mean_likeness: float | None


class DayReport(_Plain):
    """One day. ``hottest_c`` is of the orders of the day."""

    day: date
    personas: list[PersonaDay]
    troubles: list[Trouble]
    operations: dict[str, int]
    hottest_c: float | None
    trend: list[TrendPoint]

    @property
    def pictures(self) -> int:
        return sum(entry.pictures for entry in self.personas)

    @property
    def mean_likeness(self) -> float | None:
        return mean_of([score for entry in self.personas for score in entry.scores])

    @property
    def switches(self) -> int:
        return sum(entry.switches for entry in self.personas)

    @property
    def degradations(self) -> int:
        return sum(sum(entry.degradations.values()) for entry in self.personas)

    @property
    def flags(self) -> int:
        return sum(entry.flags for entry in self.personas)

    @property
    def failures(self) -> int:
        return self._times("failure")

    @property
    def refusals(self) -> int:
        return self._times("refusal")

    @property
    def stops(self) -> int:
        return self._times("stop")

    def _times(self, kind: What) -> int:
        return sum(trouble.times for trouble in self.troubles if trouble.kind == kind)


def mean_of(scores: Sequence[float | None]) -> float | None:
    """Mean of likeness scores, a picture without a face counting as a miss; None of nothing."""
    values = [MISS if score is None else score for score in scores]
    return sum(values) / len(values) if values else None
