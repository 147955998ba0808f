"""The acceptance line, and advice that names the conditions a LoRA fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.likeness.acceptance import Acceptance, by_condition, weigh
from oblik.likeness.calibration import Calibration, calibrate
from oblik.likeness.gate import acceptance, judge
from oblik.likeness.intervals import rate
from oblik.likeness.pairs import Impostors, References, impostor_scores, score_embedding
from oblik.training.artifact import LoraArtifact
from oblik.training.config import TrainConfig

Draw = Callable[..., NDArray[np.float32]]
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
PROMPTS = {"portrait": "smiling", "profile": "profile view"}


@pytest.mark.parametrize(
    ("successes", "trials", "accepted", "line"),
    [
        (232, 248, True, "TPR 93.5 % [90.4, 95.9] at FMR 1 %: accepted"),
        (187, 200, False, "TPR 93.5 % [89.9, 96.1] at FMR 1 %: not accepted, 90 % is not proven"),
        (199, 199, None, "TPR 100.0 % [98.5, 100.0] at FMR 1 %: not enough images to claim (199 of 200)"),
    ],
)
def test_the_line(successes: int, trials: int, accepted: bool | None, line: str) -> None:
    """The observed 93.5 % are the same in two of them: what is proven decides."""
    assert acceptance(rate(successes, trials), claims(320, 3200)) == (accepted, line)


def test_without_an_image_nothing_is_claimed() -> None:
    assert acceptance(None, claims(320, 3200)) == (None, "not enough images to claim (0 of 200)")


def claims(people: int, scores: int) -> Calibration:
    """A calibration on so many people and scores."""
    bounds = dict.fromkeys(("threshold", "threshold_low", "threshold_high"), 0.6)
    nearest = dict.fromkeys(("nearest_threshold", "nearest_low", "nearest_high"), 0.6)
    return Calibration(
        stack="clouds", source="toy", fmr=0.01, references=6, impostor_identities=people,
        impostor_scores=scores, bootstrap_draws=10, **bounds, **nearest,
    )  # fmt: skip


@pytest.mark.parametrize(("people", "scores"), [(2, 3200), (320, 2999)])
@pytest.mark.parametrize("successes", [200, 20])
def test_too_few_other_people_claim_nothing_however_many_pictures(
    people: int, scores: int, successes: int
) -> None:
    accepted, line = acceptance(rate(successes, 200), claims(people, scores))
    assert accepted is None
    assert line.endswith(f"not enough other people to claim ({people} of 300, {scores:,} of 3,000 scores)")


def test_a_provisional_threshold_switches_no_mode(
    draw: Draw, impostors: Impostors, references: References
) -> None:
    few = Impostors(impostors.embeddings_MD[:20], impostors.identity_M[:20], "clouds", "2 clouds")
    found = weighed(draw, few, references, alike=20, each=100)
    assert (found.accepted, found.profile) == (None, "fast")
    assert "(2 of 300, 40 of 3,000 scores)" in found.line
    assert "calibration" in {each.topic for each in found.advice}


ARTIFACT = LoraArtifact(
    persona="subject", version="v003", pack="paint", pack_version="1", dataset="v001", dataset_sha256="",
    consent_sha256="", trigger="<oblik_subject>", token_id=1, class_noun="person", rank=4, alpha=4.0,
    targets=("to_q",), steps=10, config=TrainConfig(), created_at=NOW, seconds=1.0, weights_sha256="",
    token_sha256="", libraries={},
)  # fmt: skip


def weighed(
    draw: Draw, impostors: Impostors, references: References, *, alike: int, each: int,
    artifact: LoraArtifact = ARTIFACT, like: float = 0.5,
) -> Acceptance:  # fmt: skip
    """``alike`` of ``2 * each`` pictures are of the person, the others are misses, all of them in profile."""
    calibration = calibrate(impostors, references.heldout_ND, rng=np.random.default_rng(0), draws=50)
    photos = draw(2, 1, 38 + alike, like)[0, 38:]
    scores = [score_embedding(photo, 1, references.heldout_ND) for photo in photos]
    scores += [score_embedding(None, 0, references.heldout_ND)] * (2 * each - alike)
    names = [f"{place}.png" for place in range(2 * each)]
    report = judge(
        scores, calibration, references, persona="subject", rng=np.random.default_rng(0), names=names
    )
    sorted_by = {name: list(PROMPTS)[place // each] for place, name in enumerate(names)}
    conditions = by_condition(report, PROMPTS, sorted_by)
    others = impostor_scores(impostors, references.heldout_ND, at_least=3000).centroid_S
    return weigh(report, conditions, others, artifact, 0.8, NOW)


def test_a_lora_that_misses_the_goal_calls_for_the_reliable_profile(
    draw: Draw, impostors: Impostors, references: References
) -> None:
    found = weighed(draw, impostors, references, alike=150, each=100)
    assert (found.accepted, found.profile) == (False, "reliable")
    assert found.tpr.successes <= 150
    assert found.pairs.generated_misses == 50
    assert [row.recognised for row in found.conditions] == [found.tpr.successes - 50, 50]


def test_conditions_that_fail_are_named_with_their_number(
    draw: Draw, impostors: Impostors, references: References
) -> None:
    found = weighed(draw, impostors, references, alike=8, each=8)
    advice = {each.topic: each for each in found.advice}
    assert "1 of 2 conditions fall short" in advice["photograph"].text
    assert "(profile 0 of 8, mean 0.00)" in advice["photograph"].text
    assert "portrait" not in advice["photograph"].text
    assert advice["photograph"].number == 1
    assert advice["images"].number == 16
    assert found.accepted is None, "16 pictures claim nothing"
    assert found.tpr.high < 0.9
    assert found.profile == "reliable", "but that 8 of 16 are not 90 % is known"


def test_what_is_not_known_to_fall_short_is_fast(
    draw: Draw, impostors: Impostors, references: References
) -> None:
    found = weighed(draw, impostors, references, alike=15, each=8)
    assert found.tpr.value > 0.9 > found.tpr.low
    assert (found.accepted, found.profile) == (None, "fast")
    assert not {"photograph", "retrain", "scale"} & {each.topic for each in found.advice}


@pytest.mark.parametrize(
    ("chosen", "said", "number"),
    [(None, "--steps 20", 10), (10, "--steps 20", 10), (4, "--rank 8", 4)],
)
def test_a_lora_that_falls_short_is_told_what_to_do_each_with_its_number(
    draw: Draw, impostors: Impostors, references: References, chosen: int | None, said: str, number: int
) -> None:
    """Pictures far less alike: faces everywhere, but below the threshold."""
    artifact = ARTIFACT.model_copy(update={"chosen_step": chosen})
    found = weighed(draw, impostors, references, alike=16, each=8, artifact=artifact, like=4.0)
    advice = {each.topic: each for each in found.advice}
    assert found.profile == "reliable"
    assert "dataset build" in advice["photograph"].text
    assert (said in advice["retrain"].text, advice["retrain"].number) == (True, number)
    assert "--lora-scale 0.90" in advice["scale"].text
    mean = np.mean(found.pairs.generated)
    assert advice["scale"].number == pytest.approx(mean, abs=1e-6)
    assert f"{mean:.2f} at 0.80" in advice["scale"].text


def test_pairs_are_enough_for_a_roc_and_are_read_back(
    draw: Draw, impostors: Impostors, references: References
) -> None:
    found = weighed(draw, impostors, references, alike=6, each=4)
    pairs = found.pairs
    assert (len(pairs.generated), pairs.generated_misses) == (6, 2)
    assert (len(pairs.held_out), len(pairs.stress), pairs.stress_misses) == (6, 12, 0)
    assert len(pairs.impostors) == 3100
    above = np.mean(np.array(pairs.impostors) >= found.threshold)
    assert above == pytest.approx(found.fmr, abs=0.002)
    assert Acceptance.model_validate_json(found.model_dump_json()) == found
