"""The noun `Acceptance`: whether a LoRA may be called good, as it is written beside its weights.

In: a `LikenessReport` on test pictures, each of a known condition, and impostor scores. Out: what
``acceptance.json`` holds. Knows nothing of how the pictures were made.

The claim is about the LoRA, so the hard images are pictures made with it, under conditions that hide or turn
a face. The person's own hard photos, measured beside them, say whether the *ruler* knows this face.
What is *not* guaranteed: pictures of one condition are alike, so the interval is somewhat too short.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from oblik.likeness.findings import Advice, LikenessReport, Verdict
from oblik.likeness.gate import ENOUGH_STRESS, MISS, acceptance
from oblik.likeness.guards import Bleed, Copy
from oblik.likeness.intervals import Rate
from oblik.likeness.pairs import References, Scores_N
from oblik.training.artifact import LoraArtifact

NAMED = 4
"""So many of the conditions that fail are named."""


class Condition(BaseModel):
    """One test prompt: likeness of its pictures (None: no face) and how many reach the threshold."""

    model_config = ConfigDict(extra="forbid")

    name: str
    prompt: str
    likeness: list[float | None]
    recognised: int


class Pairs(BaseModel):
    """Scores for a ROC, all to one centroid: pictures and own photos (misses apart), other people."""

    model_config = ConfigDict(extra="forbid")

    generated: list[float]
    generated_misses: int
    held_out: list[float]
    stress: list[float]
    stress_misses: int
    impostors: list[float]


class Acceptance(BaseModel):
    """Whether a LoRA may be called good. ``accepted`` is None while there are too few images to claim it.

    ``line`` says it in words; ``photos`` says the same of the person's own hard photos. ``profile`` is the
    preset that this LoRA calls for: ``reliable`` once it is known not to be accepted.
    """

    model_config = ConfigDict(extra="forbid")

    persona: str
    version: str
    pack: str
    created_at: datetime
    seconds: float
    images: int
    accepted: bool | None
    line: str
    tpr: Rate
    fmr: float
    threshold: float
    profile: str
    verdict: Verdict
    sentence: str
    photos: str
    bleed: Bleed | None
    copying: Copy | None
    advice: list[Advice]
    conditions: list[Condition]
    pairs: Pairs


def weigh(
    report: LikenessReport,
    conditions: list[Condition],
    impostor_S: Scores_N,
    references: References,
    artifact: LoraArtifact,
    now: datetime,
) -> Acceptance:
    """Judge the test pictures of an artifact."""
    calibration = report.calibration
    accepted, line = acceptance(report.recognised, calibration.fmr)
    return Acceptance(
        persona=report.persona,
        version=artifact.version,
        pack=artifact.pack,
        created_at=now,
        seconds=0.0,
        images=report.images,
        accepted=accepted,
        line=line,
        tpr=report.recognised,
        fmr=calibration.fmr,
        threshold=calibration.threshold,
        profile="reliable" if accepted is False else "fast",
        verdict=report.verdict,
        sentence=report.sentence,
        photos=report.acceptance,
        bleed=report.bleed,
        copying=report.copying,
        advice=[*report.advice, *_hard_conditions(conditions), *_more_images(report)],
        conditions=conditions,
        pairs=Pairs(
            generated=[score.centroid for score in report.scores if score.centroid is not None],
            generated_misses=report.misses,
            held_out=report.genuine_scores,
            stress=report.stress_scores,
            stress_misses=references.stress_misses,
            impostors=[round(float(score), 4) for score in impostor_S],
        ),
    )


def by_condition(
    report: LikenessReport, prompts: Mapping[str, str], condition_of: Mapping[str, str]
) -> list[Condition]:
    """The scores of a report, sorted: ``condition_of`` maps a picture's name to a key of ``prompts``."""
    rows = []
    for name, prompt in prompts.items():
        found = [score.centroid for score in report.scores if condition_of[score.name] == name]
        reached = sum(score is not None and score >= report.calibration.threshold for score in found)
        rows.append(Condition(name=name, prompt=prompt, likeness=found, recognised=reached))
    return rows


def _hard_conditions(conditions: list[Condition]) -> list[Advice]:
    """Which conditions the LoRA has not learned, the worst first."""
    failed = sorted((row for row in conditions if row.recognised * 2 < len(row.likeness)), key=_mean)
    if not failed:
        return []
    named = ", ".join(f"{row.name} {_mean(row):.2f}" for row in failed[:NAMED])
    text = (
        f"mostly below the threshold in {len(failed)} of {len(conditions)} conditions ({named}): photograph "
        "these and retrain, or use the reliable mode for them"
    )
    return [Advice(topic="conditions", text=text, number=len(failed))]


def _more_images(report: LikenessReport) -> list[Advice]:
    if report.images >= ENOUGH_STRESS:
        return []
    text = (
        f"{report.images} pictures were tested and {ENOUGH_STRESS} are needed to claim anything: "
        f"oblik likeness accept --images {ENOUGH_STRESS}"
    )
    return [Advice(topic="images", text=text, number=report.images)]


def _mean(row: Condition) -> float:
    return sum(MISS if score is None else score for score in row.likeness) / len(row.likeness)
