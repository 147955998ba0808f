"""Captions edited as one CSV or in place: a new version, never a changed one."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oblik.datasets.build import build_dataset
from oblik.datasets.captions import check_caption
from oblik.datasets.edits import (
    export_captions,
    import_captions,
    offer_captions,
    picked_up,
    recaption,
    working_name,
)
from oblik.datasets.manifest import Dataset
from oblik.datasets.versions import files_in, verify
from oblik.errors import InvalidInput, NotFound
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.personas.persona import Persona
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.datasets.conftest import Phone

NOW = datetime(2026, 6, 1, 9, tzinfo=timezone.utc)
OTHERS = ("<oblik_ben>", "zxqv")
GOOD = "photo of <oblik_subject> woman, red clothes, on a balcony"


def build(persona: Persona, phone: Phone, home: Home, pack: Pack) -> Dataset:
    return build_dataset(
        persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=NOW, progress=SilentProgress()
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("photo of a woman", "exactly once, not 0"),
        ("<oblik_subject> and <oblik_subject>", "exactly once, not 2"),
        ("<oblik_subject> with <oblik_ben>", "another persona's token"),
        ("<oblik_subject> with zxqv", "another persona's token"),
        ("<oblik_subject> as an Anime hero", "style word 'anime'"),
        ("<oblik_subject> with a mole", "'mole' describes what the token must learn"),
        ("<oblik_subject> " + "very " * 200, "at most 600"),
    ],
)
def test_what_a_caption_must_not_be(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        check_caption(text, "<oblik_subject>", OTHERS)


def test_a_caption_becomes_one_line() -> None:
    assert check_caption(f" {GOOD}\n smiling ", "<oblik_subject>", OTHERS) == f"{GOOD} smiling"


def test_the_way_through_a_csv(
    persona: Persona, phone: Phone, home: Home, pack: Pack, tmp_path: Path
) -> None:
    first = build(persona, phone, home, pack)
    datasets, table = home.persona("subject").datasets, tmp_path / "captions.csv"
    before = {file: file.read_bytes() for file in files_in(datasets / "v001")}
    assert export_captions(first, table) == len(first.accepted())
    assert import_captions(first, table) == {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["caption"] = GOOD
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file", "caption"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    second = recaption(datasets, first, persona, import_captions(first, table), NOW + timedelta(1), OTHERS)
    assert second.version == "v002"
    assert [p.caption for p in second.accepted() if p.edited] == [GOOD]
    assert verify(datasets / "v002") == []
    assert {file: file.read_bytes() for file in before} == before
    edited = next(p for p in second.accepted() if p.edited)
    assert (datasets / "v002" / str(edited.path)).with_suffix(".txt").read_text("utf-8") == GOOD + "\n"
    assert "on a balcony" in (datasets / "v002" / "report.html").read_text("utf-8")
    assert build(persona, phone, home, pack) == second, "the same photos and captions are the same version"
    phone.shoot("IMG_99.jpg", photo=99)
    third = build(persona, phone, home, pack)
    assert [p.caption for p in third.accepted() if p.edited] == [GOOD], "edits survive later builds"


def test_captions_edited_in_place(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    first = build(persona, phone, home, pack)
    datasets = home.persona("subject").datasets
    photo = first.accepted()[0]
    working = datasets / "captions" / working_name(photo)
    assert working.read_text(encoding="utf-8") == photo.caption + "\n"
    assert picked_up(datasets, first) == {}
    working.write_text("a stranger", encoding="utf-8")
    with pytest.raises(InvalidInput, match=f"{photo.source}: a caption holds"):
        recaption(datasets, first, persona, picked_up(datasets, first), NOW)
    with pytest.raises(InvalidInput, match="exactly once"):
        build(persona, phone, home, pack)
    working.write_text(GOOD, encoding="utf-8")
    assert picked_up(datasets, first) == {photo.source_sha256: GOOD}
    second = build(persona, phone, home, pack)
    assert (second.version, second.accepted()[0].caption) == ("v002", GOOD)
    assert picked_up(datasets, second) == {}
    assert recaption(datasets, second, persona, {}, NOW) == second


def test_a_file_that_was_never_offered_is_no_edit(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    first = build(persona, phone, home, pack)
    datasets = home.persona("subject").datasets
    fewer = first.model_copy(update={"photos": first.photos[1:]})
    offer_captions(datasets, fewer)
    gone = datasets / "captions" / working_name(first.photos[0])
    assert not gone.exists()
    gone.write_text(GOOD, encoding="utf-8")
    assert picked_up(datasets, first) == {}


def test_a_table_that_does_not_fit(
    persona: Persona, phone: Phone, home: Home, pack: Pack, tmp_path: Path
) -> None:
    first = build(persona, phone, home, pack)
    table = tmp_path / "captions.csv"
    with pytest.raises(NotFound):
        import_captions(first, table)
    table.write_text("picture,words\na,b\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="columns file and caption"):
        import_captions(first, table)
    table.write_text("file,caption\nnobody.jpg,b\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"nobody\.jpg"):
        import_captions(first, table)


def test_a_whole_caption_beside_the_photo_stands_as_it_is(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    (phone.folder / "IMG_01.txt").write_text(GOOD, encoding="utf-8")
    dataset = build(persona, phone, home, pack)
    photo = next(p for p in dataset.accepted() if p.source == "IMG_01.jpg")
    assert photo.caption == GOOD
    assert photo.attributes["clothing"] == "red"
    (phone.folder / "IMG_02.txt").write_text("with <oblik_ben> in a park", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"IMG_02\.jpg.*<oblik_ben>"):
        build(persona, phone, home, pack)
