"""What to do next, each piece with the number it rests on.

In: a `LikenessReport` without advice. Out: a list of `Advice`, the most pressing first; empty when all is
well. Knows no commands beyond their names and changes nothing.
"""

from __future__ import annotations

from oblik.likeness.calibration import ENOUGH_IDENTITIES, ENOUGH_SCORES
from oblik.likeness.findings import Advice, LikenessReport, Verdict
from oblik.training.artifact import LoraArtifact

GOOD_GENUINE = 0.9
STEADY_REFERENCES = 5
LOWEST_SCALE, HIGHEST_SCALE, SCALE_STEP = 0.6, 0.9, 0.1
"""Of the LoRA, in the requirement's range of 0.6 to 0.9."""


def advise(report: LikenessReport, lora_scale: float | None = None) -> list[Advice]:
    """Everything worth saying about a report, in the order to act on it. ``lora_scale`` is what the pictures
    were made with, None where no record tells."""
    found = (
        _misses(report, lora_scale), _genuine(report), _likeness(report, lora_scale),
        _borderline(report, lora_scale), _bleed(report), _copying(report), _stress(report),
        _references(report), _calibration(report),
    )  # fmt: skip
    return [advice for advice in found if advice is not None]


def remedies(
    report: LikenessReport, artifact: LoraArtifact | None, lora_scale: float, failing: str = ""
) -> list[Advice]:
    """What is left to do about pictures that fall short: photograph, retrain, raise the scale; what does not
    apply is left out. ``failing`` says in which conditions the LoRA's last test fell short."""
    short = report.calibration.threshold - report.mean.value
    if failing:
        what = f", and in the last test of the LoRA {failing}: take photos of these"
    else:
        what = (
            ": take photos of the face from the front and in half profile (oblik likeness accept names "
            "conditions that fail)"
        )
    photograph = Advice(
        topic="photograph",
        text=f"photograph: the mean is {short:.2f} below the threshold{what}, then "
        "oblik dataset build PHOTOS",
        number=short,
    )
    found = (photograph, retrain(report, artifact) if artifact else None, raise_scale(report, lora_scale))
    return [advice for advice in found if advice is not None]


def retrain(report: LikenessReport, artifact: LoraArtifact) -> Advice | None:
    """Longer where the last step was the best, with a higher rank where an earlier one was."""
    chosen, steps, rank = artifact.chosen_step, artifact.steps, artifact.rank
    if report.copying is not None and not report.copying.passed:
        return None  # it has learned the photos by heart: more photos, not more training
    if chosen is None or chosen >= steps:
        best = "the last step was the best" if chosen is not None else "nobody judged its checkpoints"
        text = f"retrain: {best} of {steps}: oblik train --steps {2 * steps}"
        return Advice(topic="retrain", text=text, number=steps)
    text = (
        f"retrain: step {chosen} of {steps} was the best, so more steps do not help: with the new photos, "
        f"oblik train --rank {2 * rank} (it was {rank})"
    )
    return Advice(topic="retrain", text=text, number=chosen)


def raise_scale(report: LikenessReport, lora_scale: float) -> Advice | None:
    """Not where faces are missing: a stronger LoRA costs more of them."""
    if lora_scale >= HIGHEST_SCALE or report.misses:
        return None
    higher = min(HIGHEST_SCALE, round(lora_scale + SCALE_STEP, 2))
    text = (
        f"raise the LoRA scale: the mean is {report.mean.value:.2f} at {lora_scale:.2f}, threshold "
        f"{report.calibration.threshold:.2f}: oblik generate --lora-scale {higher:.2f}"
    )
    return Advice(topic="scale", text=text, number=report.mean.value)


def _rescaled(word: str, lora_scale: float | None, rest: str) -> str:
    """``word`` the LoRA scale, or ``rest``; only ``rest`` where the scale is at that end of its range."""
    if lora_scale is None:
        return f"{word} the LoRA scale, {rest}"
    at_end = lora_scale >= HIGHEST_SCALE if word == "raise" else lora_scale <= LOWEST_SCALE
    if at_end:
        return f"{rest.removeprefix('or ')} (the LoRA scale is {lora_scale:.2f} already)"
    return f"{word} the LoRA scale (it was {lora_scale:.2f}), {rest}"


def _misses(report: LikenessReport, lora_scale: float | None) -> Advice | None:
    if not report.misses:
        return None
    ways = _rescaled("lower", lora_scale, "or ask for a face towards the camera")
    return Advice(
        topic="misses",
        text=f"no face found in {report.misses} of {report.images} pictures: {ways}",
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


def _likeness(report: LikenessReport, lora_scale: float | None) -> Advice | None:
    short = report.calibration.threshold - report.median.value
    if report.verdict is not Verdict.not_recognised:
        return None
    reach = ""
    if report.genuine_scores:
        reach = f" (own photos reach {sorted(report.genuine_scores)[len(report.genuine_scores) // 2]:.2f})"
    return Advice(
        topic="likeness",
        text=f"the median is {short:.2f} below the threshold{reach}: "
        + _rescaled("raise", lora_scale, "train longer, or add photos and retrain"),
        number=short,
    )


def _borderline(report: LikenessReport, lora_scale: float | None) -> Advice | None:
    """Intervals shrink with the root of the number of pictures."""
    if report.verdict is not Verdict.borderline:
        return None
    margin = report.median.value - report.calibration.threshold
    width = report.median.value - report.median.low
    higher = "" if lora_scale is not None and lora_scale >= HIGHEST_SCALE else ", or raise the LoRA scale"
    wanted = min(report.images * max(2, round((width / max(margin, 0.01)) ** 2)), 64)
    return Advice(
        topic="certainty",
        text=f"the median is {margin:.2f} above the threshold but its interval starts at "
        f"{report.median.low:.2f}: generate about {wanted} pictures to know{higher}",
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
