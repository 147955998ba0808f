"""The verdict: a sentence, guards and advice that follow from the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.errors import InvalidInput
from oblik.likeness.calibration import Calibration, calibrate
from oblik.likeness.findings import LikenessReport, Verdict
from oblik.likeness.gate import judge
from oblik.likeness.pairs import Impostors, References, Score, score_embedding, unit

Draw = Callable[..., NDArray[np.float32]]
DIMS = 64

CALIBRATION = Calibration(
    stack="clouds",
    source="toy",
    fmr=0.01,
    threshold=0.61,
    threshold_low=0.58,
    threshold_high=0.64,
    nearest_threshold=0.6,
    nearest_low=0.55,
    nearest_high=0.65,
    references=6,
    impostor_identities=320,
    impostor_scores=3200,
    bootstrap_draws=2000,
)


def scored(*values: float | None) -> list[Score]:
    blank = unit(np.ones(DIMS))
    return [Score(v, v, 0 if v is None else 1, None if v is None else blank) for v in values]


def judged(
    scores: list[Score],
    references: References,
    *,
    calibration: Calibration = CALIBRATION,
    bare: list[Score] | None = None,
    names: tuple[str, ...] = (),
) -> LikenessReport:
    rng = np.random.default_rng(0)
    return judge(
        scores, calibration, references, persona="subject", rng=rng, names=names, without_token=bare or []
    )


def topics(report: LikenessReport) -> list[str]:
    return [advice.topic for advice in report.advice]


ALIKE = [0.70, 0.72, 0.73, 0.74, 0.74, 0.75, 0.77, 0.78]


def test_a_person_can_read_it(references: References) -> None:
    report = judged(scored(*ALIKE), references, bare=scored(0.02, 0.05, 0.08))
    assert report.verdict is Verdict.recognised
    assert re.fullmatch(
        r"likeness 0\.74 \[0\.7\d, 0\.7\d\], threshold 0\.61 at FMR 1 %: recognised; no copies; "
        r"without the token 0\.05",
        report.sentence,
    )
    assert (report.recognised.successes, report.recognised.trials) == (8, 8)
    assert report.mean.value == pytest.approx(np.mean(ALIKE))


@pytest.mark.parametrize(
    ("values", "verdict", "topic"),
    [
        ([0.4, 0.45, 0.5, 0.55, 0.5, 0.52], Verdict.not_recognised, "likeness"),
        ([0.3, 0.4, 0.62, 0.64, 0.66, 0.68], Verdict.borderline, "certainty"),
        (ALIKE, Verdict.recognised, None),
    ],
)
def test_verdicts(references: References, values: list[float], verdict: Verdict, topic: str | None) -> None:
    report = judged(scored(*values), references)
    assert report.verdict is verdict
    assert report.verdict.value in report.sentence
    assert [t for t in topics(report) if t in ("likeness", "certainty")] == ([topic] if topic else [])


@pytest.mark.parametrize(("scale", "said"), [(None, True), (0.8, True), (0.9, False), (1.0, False)])
def test_a_scale_at_its_end_is_not_raised(references: References, scale: float | None, said: bool) -> None:
    for values in ([0.4, 0.45, 0.5, 0.55, 0.5, 0.52], [0.3, 0.4, 0.62, 0.64, 0.66, 0.68]):
        rng = np.random.default_rng(0)
        report = judge(scored(*values), CALIBRATION, references, persona="subject", rng=rng, lora_scale=scale)
        text = next(a.text for a in report.advice if a.topic in ("likeness", "certainty"))
        assert ("raise the LoRA scale" in text) is said
        assert scale is None or "likeness" not in topics(report) or f"{scale:.2f}" in text


def test_misses_are_counted_never_skipped(references: References) -> None:
    report = judged(scored(0.8, None, 0.8, None, None), references)
    assert (report.images, report.misses) == (5, 3)
    assert report.mean.value == pytest.approx(0.32)
    assert report.median.value == 0
    assert report.verdict is Verdict.not_recognised
    assert (report.recognised.successes, report.recognised.trials) == (2, 5)
    assert "no face in 3 of 5" in report.sentence
    assert report.advice[0].topic == "misses"
    assert report.advice[0].number == 3
    assert [s.centroid for s in report.scores] == [0.8, None, 0.8, None, None]


def test_bleed(references: References) -> None:
    clean = judged(scored(*ALIKE), references, bare=scored(0.1, 0.2, None)).bleed
    assert clean is not None
    assert (clean.images, clean.misses, clean.above, clean.passed) == (3, 1, 0, True)
    assert clean.median == pytest.approx(0.15)
    assert clean.highest == 0.2
    report = judged(scored(*ALIKE), references, bare=scored(0.1, 0.65, 0.61))
    assert report.bleed is not None
    assert (report.bleed.above, report.bleed.passed) == (2, False)
    assert "2 of 3 pictures without the token" in next(a.text for a in report.advice if a.topic == "bleed")
    assert judged(scored(*ALIKE), references).bleed is None


def embedded(vectors: NDArray[np.float32], references: References) -> list[Score]:
    return [score_embedding(v, 1, references.heldout_ND) for v in vectors]


def test_copies_of_training_photos_are_caught_and_honest_pictures_are_not(draw: Draw) -> None:
    photos = draw(2, 1, 60)[0]
    references = References(photos[:8], photos[8:28], photos[:0], 0)
    honest = judged(embedded(photos[40:52], references), references).copying
    rng = np.random.default_rng(1)
    near = unit(references.train_ND[:8] + 0.02 * rng.normal(size=(8, DIMS)))
    names = tuple(f"{i}.png" for i in range(8))
    copied_report = judged(embedded(near, references), references, names=names)
    copied = copied_report.copying
    assert honest is not None
    assert copied is not None
    assert honest.passed
    assert honest.excess.low < 0 < honest.excess.high
    assert not copied.passed
    assert copied.excess.low > 0.1
    assert set(copied.suspects) <= set(names)
    assert len(copied.suspects) >= 6
    assert "copying" in topics(copied_report)
    said = f"{len(copied.suspects)} of 8 too close to one training photo; bleed not measured"
    assert copied_report.sentence.endswith(said)


def test_no_copy_guard_without_enough_photos(draw: Draw) -> None:
    photos = draw(2, 1, 10)[0]
    references = References(photos[:2], photos[2:], photos[:0])
    report = judged(embedded(photos[:3], references), references)
    assert report.copying is None
    assert "copies not measured" in report.sentence


def test_genuine_and_stress_photos_are_measured(draw: Draw) -> None:
    photos = draw(2, 1, 300)[0]
    references = References(photos[:6], photos[6:16], photos[16:26], 2)
    report = judged(scored(*ALIKE), references)
    assert report.genuine is not None
    assert report.stress is not None
    assert report.genuine.trials == len(report.genuine_scores) == 6
    assert (report.stress.trials, len(report.stress_scores)) == (12, 10)
    assert report.accepted is None
    assert "not enough images to claim (12 of 200)" in report.acceptance


@pytest.mark.parametrize(("misses", "accepted"), [(12, True), (13, False)])
def test_acceptance_is_proven_not_observed(draw: Draw, misses: int, accepted: bool) -> None:
    """188 of 200 prove 90 % with one-sided 95 % confidence, 187 do not (Clopper-Pearson)."""
    photos = draw(2, 1, 300, 0.3)[0]
    references = References(photos[:6], photos[6:16], photos[16 : 216 - misses], misses)
    report = judged(scored(*ALIKE), references)
    assert report.stress is not None
    assert (report.stress.successes, report.stress.trials) == (200 - misses, 200)
    assert report.accepted is accepted
    assert ("stress" in topics(report)) is not accepted


def test_without_stress_photos_nothing_is_claimed(draw: Draw) -> None:
    photos = draw(2, 1, 30, 0.3)[0]
    report = judged(scored(*ALIKE), References(photos[:6], photos[6:], np.empty((0, 0), np.float32)))
    assert (report.stress, report.accepted) == (None, None)
    assert "0 of 200" in report.acceptance
    assert report.advice == []


def test_a_weak_calibration_says_so(references: References) -> None:
    weak = CALIBRATION.model_copy(update={"impostor_identities": 40, "references": 2})
    report = judged(scored(*ALIKE), references, calibration=weak)
    assert "provisional: 40 impostors" in report.sentence
    assert {"calibration", "references"} <= set(topics(report))


def test_every_advice_states_its_number(references: References) -> None:
    weak = CALIBRATION.model_copy(update={"impostor_identities": 40, "references": 2, "threshold": 0.9})
    report = judged(scored(0.3, None, 0.4), references, calibration=weak, bare=scored(0.95))
    assert len(report.advice) >= 5
    for advice in report.advice:
        assert re.search(r"\d", advice.text)


def test_no_picture_is_an_error_and_so_are_wrong_names(references: References) -> None:
    with pytest.raises(InvalidInput, match="no picture"):
        judged([], references)
    with pytest.raises(InvalidInput, match="1 names for 2"):
        judged(scored(0.1, 0.2), references, names=("a.png",))


def test_from_embeddings_to_verdict_and_back_from_paper(
    draw: Draw, impostors: Impostors, references: References
) -> None:
    calibration = calibrate(impostors, references.heldout_ND, rng=np.random.default_rng(0), draws=200)
    same = embedded(draw(2, 1, 60)[0, 40:46], references) + scored(None)
    strangers = embedded(draw(77, 4, 1)[:, 0], references)
    report = judged(same, references, calibration=calibration, bare=strangers)
    assert report.verdict is Verdict.recognised
    assert (report.images, report.misses, report.stack) == (7, 1, "clouds")
    assert report.bleed is not None
    assert report.bleed.passed
    assert judged(strangers, references, calibration=calibration).verdict is Verdict.not_recognised
    assert LikenessReport.model_validate_json(report.model_dump_json()) == report


def test_embeddings_of_two_stacks_never_meet(references: References) -> None:
    foreign = CALIBRATION.model_copy(update={"stack": "another"})
    with pytest.raises(InvalidInput, match="another"):
        judged(scored(0.7), references, calibration=foreign)
