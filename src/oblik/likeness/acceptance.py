"""The noun `Acceptance`: whether a LoRA may be called good, as it is written beside its weights.

In: a `LikenessReport` on test pictures, each of a known condition, and impostor scores. Out: what
``acceptance.json`` holds. Knows nothing of how the pictures were made.

The claim is about the LoRA, so the hard images are pictures made with it, under conditions that hide or turn
a face. The person's own hard photos, measured beside them, say whether the *ruler* knows this face.
To be accepted takes 200 pictures; that a LoRA falls short can be proven by fewer: when even the upper end of
the interval stays below 90 %. Neither is known while the threshold rests on too few other people.
What is *not* guaranteed: pictures of one condition are alike, so the interval is somewhat too short.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from oblik.errors import NotFound
from oblik.likeness.advice import raise_scale, retrain
from oblik.likeness.findings import Advice, LikenessReport, Verdict
from oblik.likeness.gate import ENOUGH_STRESS, MISS, WANTED_TPR, acceptance
from oblik.likeness.guards import Bleed, Copy
from oblik.likeness.intervals import Rate
from oblik.likeness.pairs import Scores_N
from oblik.training.artifact import LoraArtifact

NAMED = 4
"""So many of the conditions that fail are named."""
FAST, RELIABLE = "fast", "reliable"
SUMMARY = "acceptance.json"


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

    ``line`` says it in words; ``photos`` says the same of the person's own hard photos. ``mode`` is that
    of the pictures: a test in ``reliable`` says whether that passes, and leaves the usual mode as it is.
    ``profile`` is the preset that pictures of this LoRA are made with unless another is named: ``reliable``
    once it is known to fall short.
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
    mode: str = FAST
    profile: str
    verdict: Verdict
    sentence: str
    photos: str
    bleed: Bleed | None
    copying: Copy | None
    advice: list[Advice]
    conditions: list[Condition]
    pairs: Pairs

    @property
    def shortfall(self) -> str:
        """Why the reliable mode is usual, as "TPR 50.0 % over 12 pictures: even the upper end, 75.5 %,
        is below 90 %"; empty where it is not."""
        tpr, wanted = self.tpr, f"{100 * WANTED_TPR:.0f} %"
        short = self.accepted is False or tpr.high < WANTED_TPR
        if not short or self.mode != FAST or self.profile != RELIABLE:
            return ""
        found = f"TPR {100 * tpr.value:.1f} % over {tpr.trials} pictures"
        if tpr.high < WANTED_TPR:
            return f"{found}: even the upper end, {100 * tpr.high:.1f} %, is below {wanted}"
        return f"{found}: {wanted} is not proven, the lower end is {100 * tpr.low:.1f} %"

    @property
    def failing(self) -> str:
        """Which conditions fall short, in words; empty where none does."""
        return _failing(self.conditions, self.threshold)


def read_acceptance(folder: Path, mode: str = FAST) -> Acceptance:
    """Read an artifact's ``acceptance.json``. Raises NotFound with the command that makes one."""
    path = folder / of_mode(SUMMARY, mode)
    if not path.is_file():
        hint = "oblik likeness accept" if mode == FAST else f"oblik likeness accept --mode {mode}"
        raise NotFound(f"LoRA {folder.name} was not tested yet", hint=hint)
    return Acceptance.model_validate_json(path.read_text(encoding="utf-8"))


def last_test(folder: Path) -> Acceptance | None:
    """The newest test of an artifact, in whichever mode; None where it was not tested."""
    modes = (mode for mode in (FAST, RELIABLE) if (folder / of_mode(SUMMARY, mode)).is_file())
    found = (read_acceptance(folder, mode) for mode in modes)
    return max(found, key=lambda test: test.created_at, default=None)


def of_mode(name: str, mode: str) -> str:
    """``acceptance.json`` -> ``acceptance-reliable.json``: the fast test has the plain name."""
    stem, dot, end = name.partition(".")
    return name if mode == FAST else f"{stem}-{mode}{dot}{end}"


def weigh(
    report: LikenessReport,
    conditions: list[Condition],
    impostor_S: Scores_N,
    artifact: LoraArtifact,
    lora_scale: float,
    now: datetime,
    mode: str = FAST,
) -> Acceptance:
    """Judge the test pictures of an artifact, which were made with ``lora_scale`` in ``mode``."""
    calibration = report.calibration
    accepted, line = acceptance(report.recognised, calibration)
    short = accepted is False or (calibration.can_claim and report.recognised.high < WANTED_TPR)
    remedies = _remedies(report, conditions, artifact, lora_scale) if short else []
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
        mode=mode,
        profile=RELIABLE if short or mode == RELIABLE else FAST,
        verdict=report.verdict,
        sentence=report.sentence,
        photos=report.acceptance,
        bleed=report.bleed,
        copying=report.copying,
        advice=[*remedies, *_other(report, remedies), *_more_images(report, mode)],
        conditions=conditions,
        pairs=Pairs(
            generated=[score.centroid for score in report.scores if score.centroid is not None],
            generated_misses=report.misses,
            held_out=report.genuine_scores,
            stress=report.stress_scores,
            stress_misses=report.stress.trials - len(report.stress_scores) if report.stress else 0,
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


def _remedies(
    report: LikenessReport, conditions: list[Condition], artifact: LoraArtifact, lora_scale: float
) -> list[Advice]:
    """What to do about a LoRA that falls short: photograph, retrain, raise its scale; what does not apply is
    left out."""
    found = (_photograph(report, conditions), retrain(report, artifact), raise_scale(report, lora_scale))
    return [advice for advice in found if advice is not None]


def _photograph(report: LikenessReport, conditions: list[Condition]) -> Advice | None:
    """The conditions that the LoRA has not learned, the worst first."""
    failing = _failing(conditions, report.calibration.threshold)
    if not failing:
        return None
    text = f"photograph: {failing}: take photos of these, then oblik dataset build PHOTOS"
    return Advice(topic="photograph", text=text, number=len(_failed(conditions)))


def _failing(conditions: list[Condition], threshold: float) -> str:
    """As "5 of 12 conditions fall short of the threshold 0.48 (profile 0 of 2, mean 0.31; ...)"."""
    failed = _failed(conditions)
    named = "; ".join(
        f"{row.name} {row.recognised} of {len(row.likeness)}, mean {_mean(row):.2f}" for row in failed[:NAMED]
    )
    more = "; ..." if len(failed) > NAMED else ""
    short = f"{len(failed)} of {len(conditions)} conditions fall short of the threshold {threshold:.2f}"
    return f"{short} ({named}{more})" if failed else ""


def _failed(conditions: list[Condition]) -> list[Condition]:
    """Those of which too few pictures reach the threshold, the worst first."""
    return sorted((row for row in conditions if row.recognised < WANTED_TPR * len(row.likeness)), key=_mean)


def _other(report: LikenessReport, remedies: list[Advice]) -> list[Advice]:
    """The report's own advice; of likeness only where the remedies do not say it in more detail."""
    return [advice for advice in report.advice if not (remedies and advice.topic == "likeness")]


def _more_images(report: LikenessReport, mode: str) -> list[Advice]:
    if report.images >= ENOUGH_STRESS:
        return []
    text = (
        f"{report.images} pictures were tested and {ENOUGH_STRESS} are needed to claim anything: "
        f"oblik likeness accept --images {ENOUGH_STRESS}{'' if mode == FAST else f' --mode {mode}'}"
    )
    return [Advice(topic="images", text=text, number=report.images)]


def _mean(row: Condition) -> float:
    return sum(MISS if score is None else score for score in row.likeness) / len(row.likeness)
