"""From a folder to a version: what is written, what is set aside, what never changes."""

from __future__ import annotations

import json
import os
import stat
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oblik.datasets.build import build_dataset
from oblik.datasets.manifest import Dataset, Photo, Split, Status, read_dataset
from oblik.errors import ConsentError, InvalidInput, JobCancelled, NotFound
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.personas.persona import Persona
from oblik.personas.vault import Vault
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.datasets.conftest import Phone

NOW = datetime(2026, 6, 1, 9, tzinfo=timezone.utc)
HALF_PAST = datetime(2026, 5, 1, 12, 30)


def build(persona: Persona, phone: Phone, home: Home, pack: Pack, now: datetime = NOW) -> Dataset:
    return build_dataset(
        persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=now, progress=SilentProgress()
    )


def row(dataset: Dataset, source: str) -> Photo:
    return next(photo for photo in dataset.photos if photo.source == source)


def folder_of(dataset: Dataset, home: Home) -> Path:
    return home.persona(dataset.persona).datasets / dataset.version


def test_what_is_written_is_what_the_manifest_says(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    dataset = build(persona, phone, home, pack)
    folder = folder_of(dataset, home)
    assert read_dataset(folder) == dataset
    assert len(dataset.accepted()) == 16
    vectors = np.load(folder / dataset.embeddings)
    assert sorted(vectors.files) == sorted(photo.source_sha256 for photo in dataset.accepted())
    for photo in dataset.accepted():
        assert photo.path is not None
        assert photo.mask is not None
        with Image.open(folder / photo.path) as image, Image.open(folder / photo.mask) as mask:
            assert image.size == mask.size == (photo.width_px, photo.height_px)
            assert image.mode == "RGB"
            assert mask.mode == "L"
            assert image.info == {}
        assert photo.caption.startswith("photo of <oblik_subject> young woman with long brown hair")
        assert np.linalg.norm(vectors[photo.source_sha256]) == pytest.approx(1, abs=1e-5)


def test_the_same_photos_again_are_the_same_version(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    first = build(persona, phone, home, pack)
    looked = phone.stack.detections
    again = build(persona, phone, home, pack, NOW + timedelta(days=3))
    assert again == first
    assert phone.stack.detections == looked
    assert sorted(f.name for f in home.persona("subject").datasets.iterdir()) == ["captions", "v001"]


def test_from_scratch_the_manifest_differs_only_in_its_date(
    persona: Persona, phone: Phone, home: Home, pack: Pack, tmp_path: Path
) -> None:
    one = json.loads(build(persona, phone, home, pack).model_dump_json())
    other = json.loads(
        build(persona, phone, Home(tmp_path / "b"), pack, NOW + timedelta(1)).model_dump_json()
    )
    assert one.pop("created_at") != other.pop("created_at")
    assert one["files"].pop("report.html") != other["files"].pop("report.html"), "the page says the date"
    assert one == other


def test_a_new_photo_makes_a_new_version_and_leaves_the_old_one(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    first = build(persona, phone, home, pack)
    before = (folder_of(first, home) / "dataset.json").read_bytes()
    phone.shoot("IMG_99.jpg", photo=99)
    second = build(persona, phone, home, pack)
    assert (second.version, len(second.accepted())) == ("v002", 17)
    assert (folder_of(first, home) / "dataset.json").read_bytes() == before


def test_everything_is_for_the_owner_only_and_without_metadata(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    folder_of(build(persona, phone, home, pack), home)
    for here, folders, files in os.walk(home.root):
        for name in folders:
            assert stat.S_IMODE((Path(here) / name).stat().st_mode) == 0o700
        for name in files:
            file = Path(here) / name
            assert stat.S_IMODE(file.stat().st_mode) == (0o400 if "v001" in here else 0o600)
            content = file.read_bytes()
            assert b"Subject at home" not in content
            assert b"private" not in content
            assert b"Exif" not in content


def test_originals_are_kept_as_they_were(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    before = {file.name: file.read_bytes() for file in phone.folder.iterdir()}
    dataset = build(persona, phone, home, pack)
    assert {file.name: file.read_bytes() for file in phone.folder.iterdir()} == before
    vault = Vault.open(home.persona("subject"), persona)
    kept = {entry.sha256: entry for entry in vault.entries()}
    assert sorted(kept) == sorted(photo.source_sha256 for photo in dataset.accepted())
    for photo in dataset.accepted():
        assert vault.get(photo.source_sha256) == before[photo.source]
        assert (kept[photo.source_sha256].kind, kept[photo.source_sha256].name) == ("originals", photo.source)


def test_every_file_has_a_row_with_its_reason(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    (phone.folder / "broken.jpg").write_bytes((phone.folder / "IMG_00.jpg").read_bytes()[:900])
    (phone.folder / "empty.jpg").write_bytes(b"")
    (phone.folder / "copy.jpg").write_bytes((phone.folder / "IMG_01.jpg").read_bytes())
    phone.shoot("landscape.jpg", photo=40, faces=0)
    phone.shoot("friend.jpg", person=2, photo=41)
    phone.shoot("burst/1.jpg", photo=42, at=HALF_PAST, blur=1.5)
    phone.shoot("burst/2.jpg", photo=43, at=HALF_PAST + timedelta(seconds=1))
    phone.shoot("far.jpg", photo=44, unit=5)
    phone.shoot("shaky.jpg", photo=45, blur=8)
    dataset = build(persona, phone, home, pack)
    assert len(dataset.photos) == 25
    reasons = {
        "broken.jpg": (Status.refused, "cut off"), "empty.jpg": (Status.refused, "empty"),
        "IMG_01.jpg": (Status.accepted, ""), "copy.jpg": (Status.set_aside, "same file as IMG_01.jpg"),
        "landscape.jpg": (Status.set_aside, "no face"), "friend.jpg": (Status.set_aside, "somebody else"),
        "burst/1.jpg": (Status.set_aside, "same moment as"), "burst/2.jpg": (Status.accepted, ""),
        "far.jpg": (Status.set_aside, "too small"), "shaky.jpg": (Status.set_aside, "out of focus"),
    }  # fmt: skip
    for source, (status, reason) in reasons.items():
        assert row(dataset, source).status is status, source
        assert reason in row(dataset, source).reason, source
    assert all(photo.path is None and photo.caption == "" for photo in dataset.photos if photo.reason)


def test_in_a_group_photo_the_crop_is_on_the_persona(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    phone.shoot("party.jpg", photo=50, faces=3, width=640)
    photo = row(build(persona, phone, home, pack), "party.jpg")
    assert photo.status is Status.accepted
    assert photo.flags["faces"] == 3
    assert photo.landmarks is not None
    eyes_x = (photo.landmarks[0][0] + photo.landmarks[1][0]) / 2
    assert eyes_x == pytest.approx(64, abs=2)


def test_the_head_fills_the_crop_as_agreed(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    for photo in build(persona, phone, home, pack).accepted():
        assert photo.landmarks is not None
        (left, right, *_), eyes_y = photo.landmarks, (photo.landmarks[0][1] + photo.landmarks[1][1]) / 2
        assert eyes_y / 128 == pytest.approx(0.42, abs=0.02)
        assert (right[0] - left[0]) / 128 == pytest.approx(1 / (3.6 * 1.4), rel=0.05)


def test_splits_have_their_sizes_and_profiles_are_stress(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    dataset = build(persona, phone, home, pack)
    sizes = [len(dataset.accepted(split)) for split in (Split.train, Split.validation, Split.stress)]
    assert sizes == [10, 4, 2]
    assert {photo.attributes["view"] for photo in dataset.accepted(Split.stress)} == {"profile"}
    assert all("profile" in photo.caption for photo in dataset.accepted(Split.stress))


def test_captions_hold_measured_and_given_words(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    (phone.folder / "captions.csv").write_text(
        'file,words\nIMG_00.jpg,"red clothes, glasses, in a park, a bicycle behind her"\n', encoding="utf-8"
    )
    (phone.folder / "IMG_01.txt").write_text("smiling\n", encoding="utf-8")
    dataset = build(persona, phone, home, pack)
    first = row(dataset, "IMG_00.jpg").caption
    for words in ("red clothes", "wearing glasses", "in a park", "frontal view", ", a bicycle behind her"):
        assert words in first
    assert "smiling" in row(dataset, "IMG_01.jpg").caption
    assert "three-quarter view" in row(dataset, "IMG_01.jpg").caption


def test_changed_words_make_a_new_version(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    build(persona, phone, home, pack)
    (phone.folder / "IMG_01.txt").write_text("smiling\n", encoding="utf-8")
    assert build(persona, phone, home, pack).version == "v002"


def test_style_words_are_refused_by_name(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    (phone.folder / "IMG_01.txt").write_text("smiling, anime\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="'anime'"):
        build(persona, phone, home, pack)
    assert not home.persona("subject").datasets.exists()


def test_fewer_than_eight_are_refused_with_the_reasons(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    for file in sorted(phone.folder.iterdir())[7:]:
        file.unlink()
    (phone.folder / "empty.jpg").write_bytes(b"")
    with pytest.raises(InvalidInput, match="only 7 of 8 files") as refused:
        build(persona, phone, home, pack)
    assert "the file is empty" in refused.value.message
    assert str(phone.folder) in refused.value.hint
    assert not home.persona("subject").datasets.exists()


def test_an_empty_and_a_missing_folder(
    persona: Persona, phone: Phone, home: Home, pack: Pack, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    for folder, error in ((tmp_path / "nothing", InvalidInput), (tmp_path / "nowhere", NotFound)):
        with pytest.raises(error):
            build_dataset(
                persona, folder, home=home, stack=phone.stack, pack=pack, now=NOW, progress=SilentProgress()
            )


def test_no_consent_no_dataset(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    revoked = persona.consent.model_copy(update={"revoked_on": date(2026, 5, 31)})
    with pytest.raises(ConsentError):
        build(persona.model_copy(update={"consent": revoked}), phone, home, pack)
    assert phone.stack.detections == 0


def test_a_cancelled_build_leaves_nothing_half_written(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    asked = iter([False] * 20 + [True] * 100)
    with pytest.raises(JobCancelled):
        build_dataset(
            persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=NOW,
            progress=SilentProgress(lambda: next(asked)),
        )  # fmt: skip
    assert list(home.persona("subject").datasets.iterdir()) == []


def test_buckets_follow_the_photo(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    phone.shoot("tall.jpg", photo=60, width=240, height=426)
    wide = pack.model_copy(update={"training": {"buckets": ["1:1", "3:4", "9:16", "4:3"]}})
    dataset = build(persona, phone, home, wide)
    tall, lying = row(dataset, "tall.jpg"), row(dataset, "IMG_00.jpg")
    assert (tall.bucket, tall.width_px, tall.height_px) == ("9:16", 128, 224)
    assert lying.bucket == "4:3"
    assert all((photo.width_px or 0) % 16 == 0 for photo in dataset.accepted())
