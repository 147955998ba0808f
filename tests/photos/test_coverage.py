"""What to photograph next."""

from __future__ import annotations

from oblik.photos.coverage import WANTED_VIEWS, advice, cover


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
