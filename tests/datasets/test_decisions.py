"""Keep, drop and undo: what the user says holds for the next version."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oblik.datasets.build import build_dataset
from oblik.datasets.choose import refuse_unkeepable, sources_of
from oblik.datasets.decisions import (
    FILE_NAME,
    decide_photos,
    forget,
    read_decisions,
    undo_last,
    write_captions,
)
from oblik.datasets.manifest import Dataset, Photo, Status
from oblik.errors import InvalidInput, NotFound
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.personas.persona import Persona
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.datasets.conftest import Phone

NOW = datetime(2026, 6, 1, 9, tzinfo=timezone.utc)
HALF_PAST = datetime(2026, 5, 1, 12, 30)


def build(persona: Persona, phone: Phone, home: Home, pack: Pack) -> Dataset:
    return build_dataset(
        persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=NOW, progress=SilentProgress()
    )


def row(dataset: Dataset, source: str) -> Photo:
    return next(photo for photo in dataset.photos if photo.source == source)


def test_the_last_word_holds_and_can_be_taken_back(tmp_path: Path) -> None:
    assert read_decisions(tmp_path).words == {}
    decide_photos(tmp_path, {"a" * 64: "a.jpg", "b" * 64: "b.jpg"}, "drop", "eyes  closed")
    decide_photos(tmp_path, {"a" * 64: "a.jpg"}, "keep")
    write_captions(tmp_path, {"c" * 64: "photo of <oblik_subject> woman"})
    known = read_decisions(tmp_path)
    assert {k[0]: w.sentence() for k, w in known.words.items()} == {
        "a": "kept by you",
        "b": "dropped by you: eyes closed",
    }
    assert undo_last(tmp_path) == ["a.jpg"]
    assert read_decisions(tmp_path).words["a" * 64].verdict == "drop"
    assert forget(tmp_path, ["b" * 64, "d" * 64]) == ["b.jpg"]
    assert undo_last(tmp_path) == ["a.jpg"]
    assert read_decisions(tmp_path).captions == known.captions
    with pytest.raises(NotFound):
        undo_last(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("photos = 3\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"decisions\.toml"):
        read_decisions(tmp_path)


def test_kept_and_dropped_photos_in_the_next_version(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    phone.shoot("friend.jpg", person=2, photo=41)
    phone.shoot("burst/1.jpg", photo=42, at=HALF_PAST, blur=0.6)
    phone.shoot("burst/2.jpg", photo=43, at=HALF_PAST + timedelta(seconds=1))
    phone.shoot("landscape.jpg", photo=40, faces=0)
    first = build(persona, phone, home, pack)
    datasets = home.persona("subject").datasets
    before = {f: f.read_bytes() for f in (datasets / "v001").rglob("*") if f.is_file()}

    def say(names: list[str], verdict: str) -> None:
        hashes = {row(first, name).source_sha256: name for name in names}
        decide_photos(datasets, hashes, "keep" if verdict == "keep" else "drop", "")

    say(["friend.jpg", "landscape.jpg"], "keep")
    say(["burst/2.jpg"], "drop")
    second = build(persona, phone, home, pack)
    assert second.version == "v002"
    assert row(second, "friend.jpg").status is Status.accepted
    assert row(second, "friend.jpg").decision == "kept by you"
    assert row(second, "landscape.jpg").decision == "kept by you, but it cannot be used"
    assert row(second, "burst/2.jpg").reason == "dropped by you"
    assert row(second, "burst/1.jpg").status is Status.accepted, "the next best of a burst takes its place"
    assert {f: f.read_bytes() for f in before} == before
    page = (datasets / "v002" / "report.html").read_text(encoding="utf-8")
    assert "Your decisions" in page
    assert build(persona, phone, home, pack).version == "v002"


def test_both_of_a_burst_stay_on_one_side(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    phone.shoot("1.jpg", photo=42, at=HALF_PAST, blur=1.5)
    phone.shoot("2.jpg", photo=43, at=HALF_PAST + timedelta(seconds=1))
    first = build(persona, phone, home, pack)
    decide_photos(home.persona("subject").datasets, {row(first, "1.jpg").source_sha256: "1.jpg"}, "keep")
    second = build(persona, phone, home, pack)
    assert row(second, "1.jpg").split is row(second, "2.jpg").split is not None
    assert "Same moments" in (home.persona("subject").datasets / "v002" / "report.html").read_text("utf-8")


def test_photos_are_found_by_the_names_that_people_type(tmp_path: Path) -> None:
    def photo(source: str, letter: str, status: Status = Status.accepted, reason: str = "") -> Photo:
        return Photo(source=source, source_sha256=letter * 64, status=status, reason=reason)

    photos = [photo("a/1.jpg", "a"), photo("b/1.jpg", "b"), photo("2.jpg", "c", Status.set_aside, "no face")]
    dataset = Dataset(
        persona="subject", version="v001", trigger="<oblik_subject>", class_noun="woman", created_at=NOW,
        consent_sha256="c", face_stack="s", short_side_px=128, embeddings="faces.npz", photos=photos,
    )  # fmt: skip
    assert [p.source for p in sources_of(["a/1.jpg", "2.jpg", "bbbbbb"], [dataset])] == [
        "a/1.jpg",
        "2.jpg",
        "b/1.jpg",
    ]
    with pytest.raises(InvalidInput, match=r"could be a/1\.jpg, b/1\.jpg"):
        sources_of(["1.jpg"], [dataset])
    with pytest.raises(NotFound, match=r"'9\.jpg'"):
        sources_of(["9.jpg"], [dataset])
    (tmp_path / "new.jpg").write_bytes(b"new")
    assert sources_of([str(tmp_path / "new.jpg")], [])[0].source == "new.jpg"
    with pytest.raises(InvalidInput, match="cannot be kept: no face"):
        refuse_unkeepable(photos)
