"""Is it them? The verdict on a set of pictures, as a result a person understands.

In: scores, a calibration, the persona's own photos. Out: `LikenessReport`, never an exception for a
low likeness. Knows nothing of how the pictures were made; what to do next is `advice`.

The score of a picture is its cosine to the centroid of held-out references (`pairs`). A miss, a picture
without a face, counts as a cosine of 0 in mean and median and as not recognised.
What is *not* guaranteed: the interval says how much another batch like this one may differ, not that
a person would agree; a cosine is evidence of likeness, not identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oblik.errors import InvalidInput
from oblik.likeness.advice import advise
from oblik.likeness.calibration import ENOUGH_IDENTITIES, ENOUGH_SCORES, Calibration
from oblik.likeness.findings import Advice, ImageScore, LikenessReport, Verdict
from oblik.likeness.guards import bleed_words, copy_words, measure_bleed, measure_copying
from oblik.likeness.intervals import Interval, Rate, mean_interval, median_interval, rate
from oblik.likeness.pairs import References, Score, Scores_N, centroid_scores, leave_one_out

ENOUGH_STRESS = 200
WANTED_TPR = 0.90
MISS = 0.0


__all__ = ["Advice", "ImageScore", "LikenessReport", "Verdict", "acceptance", "judge", "sentence"]


def judge(
    scores: Sequence[Score],
    calibration: Calibration,
    references: References,
    *,
    persona: str,
    rng: np.random.Generator,
    names: Sequence[str] = (),
    without_token: Sequence[Score] = (),
    lora_scale: float | None = None,
) -> LikenessReport:
    """Weigh generated pictures against the persona's threshold.

    ``scores`` come from `score_images` with the held-out references; ``without_token`` likewise from
    the same prompts and seeds without the trigger. ``names`` are shown for the pictures (default 1, 2...).
    ``lora_scale`` is what they were made with, for the advice.
    Raises InvalidInput without any picture, or when impostors and references are of two face stacks.
    """
    if not scores:
        raise InvalidInput("no picture to measure", hint="oblik generate")
    if calibration.stack and references.stack and calibration.stack != references.stack:
        raise InvalidInput(
            f"impostors were embedded with {calibration.stack!r}, the persona's photos with "
            f"{references.stack!r}",
            hint="oblik dataset build",
        )
    values_N = np.array([MISS if s.centroid is None else s.centroid for s in scores])
    named = _named(scores, names)
    genuine_N, _ = leave_one_out(references.heldout_ND)
    stress_N = _stress_scores(references)
    report = LikenessReport(
        persona=persona,
        stack=calibration.stack or references.stack,
        verdict=Verdict.not_recognised,
        sentence="",
        images=len(scores),
        misses=sum(not s.found for s in scores),
        mean=mean_interval(values_N, rng),
        median=median_interval(values_N, rng),
        recognised=rate(_above(scores, calibration.threshold), len(scores)),
        calibration=calibration,
        genuine=_share(genuine_N, 0, calibration.threshold),
        genuine_scores=genuine_N.tolist(),
        stress=_share(stress_N, references.stress_misses, calibration.threshold),
        stress_scores=stress_N.tolist(),
        accepted=None,
        acceptance="",
        bleed=measure_bleed(without_token, calibration.threshold, calibration.fmr),
        copying=measure_copying(scores, [s.name for s in named], references, rng),
        advice=[],
        scores=named,
        without_token=_named(without_token, ()),
    )
    report.verdict = _verdict(report.median, calibration.threshold)
    report.sentence = sentence(report)
    report.accepted, line = acceptance(report.stress, calibration)
    report.acceptance = f"own stress photos: {line}"
    report.advice = advise(report, lora_scale)
    return report


def sentence(report: LikenessReport) -> str:
    """The verdict in one line: likeness, interval, threshold, verdict, both guards, misses."""
    calibration = report.calibration
    threshold = f"threshold {calibration.threshold:.2f} at FMR {100 * calibration.fmr:g} %"
    if not calibration.can_claim:
        threshold += f" (provisional: {calibration.impostor_identities} impostors)"
    parts = [f"likeness {report.median}, {threshold}: {report.verdict.value}"]
    parts += [copy_words(report.copying, report.images - report.misses), bleed_words(report.bleed)]
    if report.misses:
        parts.append(f"no face in {report.misses} of {report.images}")
    return "; ".join(parts)


def _verdict(median: Interval, threshold: float) -> Verdict:
    if median.low >= threshold:
        return Verdict.recognised
    return Verdict.borderline if median.value >= threshold else Verdict.not_recognised


def acceptance(stress: Rate | None, calibration: Calibration) -> tuple[bool | None, str]:
    """Accepted when TPR >= 90 % on hard images is proven: the one-sided lower bound reaches it.

    The line: "TPR 96.5 % [93.6, 98.3] at FMR 1 %: accepted". With fewer than 200 images, or a threshold that
    rests on fewer than 300 people or 3,000 scores, nothing is claimed.
    """
    if stress is None:
        return None, f"not enough images to claim (0 of {ENOUGH_STRESS})"
    low, high = 100 * stress.low, 100 * stress.high
    found = f"TPR {100 * stress.value:.1f} % [{low:.1f}, {high:.1f}] at FMR {100 * calibration.fmr:g} %"
    if stress.trials < ENOUGH_STRESS:
        return None, f"{found}: not enough images to claim ({stress.trials} of {ENOUGH_STRESS})"
    if not calibration.can_claim:
        people, scores = calibration.impostor_identities, calibration.impostor_scores
        return None, (
            f"{found}: not enough other people to claim ({people:,} of {ENOUGH_IDENTITIES}, {scores:,} of "
            f"{ENOUGH_SCORES:,} scores)"
        )
    accepted = stress.low >= WANTED_TPR
    verdict = "accepted" if accepted else f"not accepted, {100 * WANTED_TPR:.0f} % is not proven"
    return accepted, f"{found}: {verdict}"


def _stress_scores(references: References) -> Scores_N:
    if not len(references.stress_ND):
        return np.empty(0)
    return centroid_scores(references.stress_ND, references.heldout_ND)


def _share(scores_N: Scores_N, misses: int, threshold: float) -> Rate | None:
    trials = len(scores_N) + misses
    return rate(int((scores_N >= threshold).sum()), trials) if trials else None


def _above(scores: Sequence[Score], threshold: float) -> int:
    return sum(s.centroid is not None and s.centroid >= threshold for s in scores)


def _named(scores: Sequence[Score], names: Sequence[str]) -> list[ImageScore]:
    shown = list(names) or [str(i + 1) for i in range(len(scores))]
    if len(shown) != len(scores):
        raise InvalidInput(f"{len(shown)} names for {len(scores)} pictures", hint="give one name per picture")
    return [
        ImageScore(name=name, centroid=s.centroid, nearest=s.nearest, faces=s.faces)
        for name, s in zip(shown, scores, strict=True)
    ]
