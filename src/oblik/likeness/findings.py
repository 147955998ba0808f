"""The noun `LikenessReport`: what was measured about a set of pictures, as it is written down.

In and out: plain values, ``likeness.json``. Knows neither how scores are made nor how they are judged.
"""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict

from oblik.likeness.calibration import Calibration
from oblik.likeness.guards import Bleed, Copy
from oblik.likeness.intervals import Interval, Rate


class Verdict(str, Enum):
    """``recognised``: the whole interval of the median is at or above the threshold; ``borderline``:
    the median is, its interval is not; ``not_recognised``: the median is below."""

    recognised = "recognised"
    borderline = "borderline"
    not_recognised = "not recognised"


class ImageScore(BaseModel):
    """One picture as it is written down; both cosines are None for a miss."""

    model_config = ConfigDict(extra="forbid")

    name: str
    centroid: float | None
    nearest: float | None
    faces: int


class Advice(BaseModel):
    """What to do next, and the number it rests on (``text`` states it too)."""

    model_config = ConfigDict(extra="forbid")

    topic: str
    text: str
    number: float


class LikenessReport(BaseModel):
    """Everything measured about one set of pictures. ``sentence`` says it in one line.

    ``recognised`` is the share of pictures at or above the threshold, ``genuine`` of held-out photos
    (each against the others), ``stress`` of hard photos. ``accepted`` is None while there are too few
    stress photos to claim anything; ``acceptance`` says so in words.
    """

    model_config = ConfigDict(extra="forbid")

    persona: str
    stack: str
    verdict: Verdict
    sentence: str
    images: int
    misses: int
    mean: Interval
    median: Interval
    recognised: Rate
    calibration: Calibration
    genuine: Rate | None
    genuine_scores: list[float]
    stress: Rate | None
    stress_scores: list[float]
    accepted: bool | None
    acceptance: str
    bleed: Bleed | None
    copying: Copy | None
    advice: list[Advice]
    scores: list[ImageScore]
    without_token: list[ImageScore]
