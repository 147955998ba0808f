"""What to photograph next."""

from __future__ import annotations

import pytest

from oblik.photos.coverage import WANTED_VIEWS, advice, cover, judge, variability


def full_set() -> list[dict[str, str]]:
    photos = []
    for name, number in WANTED_VIEWS.items():
        view, _, side = name.partition(" ")
        photos += [{"view": view, "side": side}] * (number + 4)
    return [{**photo, "light": ("dim", "side", "warm")[i % 3]} for i, photo in enumerate(photos)]


def test_counts_follow_the_attributes() -> None:
    coverage = cover(
        [{"view": "frontal"}, {"view": "profile", "side": "left", "accessories": "glasses", "light": "dim"}]
    )
    assert (coverage.photos, coverage.views["frontal"], coverage.views["profile left"]) == (2, 1, 1)
    assert coverage.worn == {"glasses": 1}
    assert coverage.light == {"dim": 1, "even": 1}


def test_nothing_missing_nothing_said() -> None:
    assert advice(cover(full_set())) == []


def test_missing_views_are_counted() -> None:
    photos = [photo for photo in full_set() if photo["view"] != "profile"] + [
        {"view": "profile", "side": "left"}
    ]
    said = " ".join(advice(cover(photos)))
    assert "one profile turned to the left" in said
    assert "two profiles turned to the right" in said
    assert "frontal" not in said


def test_one_pair_of_glasses_in_most_photos_is_a_warning() -> None:
    photos = [{**photo, "accessories": "glasses"} if i % 3 else photo for i, photo in enumerate(full_set())]
    assert any("glasses" in sentence for sentence in advice(cover(photos)))


def test_few_photos_are_said() -> None:
    assert any("12 usable photos" in sentence for sentence in advice(cover([{"view": "frontal"}] * 12)))


def test_one_background_in_most_photos_is_a_warning() -> None:
    photos = [{**photo, "backdrop": "0" if i % 4 else str(i)} for i, photo in enumerate(full_set())]
    assert "76% of the photos have the same background. Add 13 in other places." in advice(cover(photos))
    other = [{**photo, "backdrop": str(i)} for i, photo in enumerate(photos)]
    assert not any("background" in sentence for sentence in advice(cover(other)))


def test_how_many_more_would_do() -> None:
    photos = [
        {**photo, "accessories": "hat, scarf"} if i < 37 else photo for i, photo in enumerate(full_set())
    ]
    assert len(photos) == 46
    said = advice(cover(photos))
    assert "80% of the photos have this in them: hat. Add 16 without it." in said
    assert 37 / (46 + 16) <= 0.6 < 37 / (46 + 15)


def test_full_and_half_length_are_asked_for_once_they_are_measured() -> None:
    photos = [{**photo, "shows": "face" if i else "full length"} for i, photo in enumerate(full_set())]
    assert any("one full length and two half length" in sentence for sentence in advice(cover(photos)))


@pytest.mark.parametrize("photos", [0, 7])
def test_under_eight_never(photos: int) -> None:
    enough = judge([{"view": "frontal", "backdrop": str(i)} for i in range(photos)])
    assert not enough.ok
    assert enough.sentence == f"{photos} usable photos; 8 are the fewest."


def test_under_forty_the_variability_decides_and_is_said() -> None:
    varied = [{"view": "frontal", "backdrop": str(i)} for i in range(12)]
    alike = [{"view": "frontal", "backdrop": str(i // 4)} for i in range(12)]
    assert variability(varied) == pytest.approx(12)
    assert variability(alike) == pytest.approx(3)
    assert judge(varied).ok
    assert "variability 12.0, 6.0 needed below 40 photos" in judge(varied).sentence
    assert not judge(alike).ok
    assert "too much alike (variability 3.0, 6.0 needed" in judge(alike).sentence


def test_forty_are_enough_however_alike() -> None:
    assert judge([{"view": "frontal"}] * 40).ok
    assert not judge([{"view": "frontal"}] * 39).ok
