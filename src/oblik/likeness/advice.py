"""What to do next, each piece with the number it rests on.

In: a `LikenessReport` without advice. Out: a list of `Advice`, the most pressing first; empty when all is
well. Knows no commands beyond their names and changes nothing.
"""

from __future__ import annotations

from oblik.likeness.calibration import ENOUGH_IDENTITIES, ENOUGH_SCORES
from oblik.likeness.findings import Advice, LikenessReport, Verdict

GOOD_GENUINE = 0.9
STEADY_REFERENCES = 5


def advise(report: LikenessReport) -> list[Advice]:
    """Everything worth saying about a report, in the order to act on it."""
    rules = (_misses, _genuine, _likeness, _borderline, _bleed, _copying, _stress, _references, _calibration)
    return [advice for rule in rules if (advice := rule(report)) is not None]


def _misses(report: LikenessReport) -> Advice | None:
    if not report.misses:
        return None
    return Advice(
        topic="misses",
        text=f"no face found in {report.misses} of {report.images} pictures: lower the LoRA scale, or ask "
        "for a face towards the camera",
        number=report.misses,
    )


def _genuine(report: LikenessReport) -> Advice | None:
    genuine = report.genuine
    if genuine is None or genuine.value >= GOOD_GENUINE:
        return None
    return Advice(
        topic="photos",
        text=f"only {genuine.successes} of {genuine.trials} of the person's own held-out photos reach the "
        "threshold: add sharp photos of the face in even light, front and half profile, and retrain",
        number=genuine.value,
    )


def _likeness(report: LikenessReport) -> Advice | None:
    short = report.calibration.threshold - report.median.value
    if report.verdict is not Verdict.not_recognised:
        return None
    reach = ""
    if report.genuine_scores:
        reach = f" (own photos reach {sorted(report.genuine_scores)[len(report.genuine_scores) // 2]:.2f})"
    return Advice(
        topic="likeness",
        text=f"the median is {short:.2f} below the threshold{reach}: raise the LoRA scale, train longer, or "
        "add photos and retrain",
        number=short,
    )


def _borderline(report: LikenessReport) -> Advice | None:
    """Intervals shrink with the root of the number of pictures."""
    if report.verdict is not Verdict.borderline:
        return None
    margin = report.median.value - report.calibration.threshold
    width = report.median.value - report.median.low
    wanted = min(report.images * max(2, round((width / max(margin, 0.01)) ** 2)), 64)
    return Advice(
        topic="certainty",
        text=f"the median is {margin:.2f} above the threshold but its interval starts at "
        f"{report.median.low:.2f}: generate about {wanted} pictures to know, or raise the LoRA scale",
        number=margin,
    )


def _bleed(report: LikenessReport) -> Advice | None:
    bleed = report.bleed
    if bleed is None or bleed.passed:
        return None
    return Advice(
        topic="bleed",
        text=f"{bleed.above} of {bleed.images} pictures without the token look like the person "
        f"(highest {bleed.highest or 0:.2f}, chance alone gives {bleed.by_chance:.1f}): train with "
        "prior preservation, or for fewer steps",
        number=bleed.above,
    )


def _copying(report: LikenessReport) -> Advice | None:
    copying = report.copying
    if copying is None or copying.passed:
        return None
    return Advice(
        topic="copying",
        text=f"{len(copying.suspects)} of {report.images} pictures are closer to one training photo than a "
        f"new photo would be (gap {copying.gap.value:.2f}, honest photos {copying.genuine_gap:.2f}): train "
        "for fewer steps, or add photos of other occasions",
        number=copying.excess.value,
    )


def _stress(report: LikenessReport) -> Advice | None:
    if report.accepted is not False or report.stress is None:
        return None
    return Advice(
        topic="stress",
        text=f"{100 * report.stress.value:.0f} % of the hard photos are recognised: use the reliable mode, "
        "and add photos with glasses, in profile and in low light",
        number=report.stress.value,
    )


def _references(report: LikenessReport) -> Advice | None:
    count = report.calibration.references
    if count >= STEADY_REFERENCES:
        return None
    return Advice(
        topic="references",
        text=f"likeness rests on {count} held-out photo{'' if count == 1 else 's'}: with {STEADY_REFERENCES} "
        "or more it depends less on the choice; add photos",
        number=count,
    )


def _calibration(report: LikenessReport) -> Advice | None:
    calibration = report.calibration
    if calibration.can_claim:
        return None
    return Advice(
        topic="calibration",
        text=f"the threshold rests on {calibration.impostor_identities} people and "
        f"{calibration.impostor_scores} scores; {ENOUGH_IDENTITIES} and {ENOUGH_SCORES} are needed to "
        "claim it: oblik likeness impostors FOLDER, or --generate 3100",
        number=calibration.impostor_identities,
    )
