"""The report is one page that asks nobody for anything."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from oblik.datasets.manifest import Dataset, Photo, Split, Status
from oblik.datasets.report import render_report, write_report

EVIL = '<img src=x onerror="alert(1)">.jpg'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), "tan").save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "b.jpg")
    return tmp_path


@pytest.fixture
def dataset() -> Dataset:
    photos = [
        Photo(
            source=f"IMG_{i}.jpg", source_sha256=f"{i:064x}", status=Status.accepted, path="a.png",
            split=split, caption="photo of <oblik_subject> woman & dog",
            attributes={"view": "frontal", "light": "dim"}, flags={"yaw_deg": 3.2, "sharpness": 80.0},
        )
        for i, split in enumerate([Split.train] * 5 + [Split.validation] * 4 + [Split.stress])
    ]  # fmt: skip
    photos += [
        Photo(source=EVIL, source_sha256="", status=Status.refused, reason="the file is empty (0 bytes)"),
        Photo(
            source="b.jpg",
            source_sha256="b",
            status=Status.set_aside,
            reason="somebody else (likeness 0.02)",
            thumb="b.jpg",
            group=0,
        ),
    ]
    return Dataset(
        persona="subject", version="v003", trigger="<oblik_subject>", class_noun="woman",
        created_at=datetime(2026, 6, 1, tzinfo=timezone.utc), consent_sha256="c" * 64, face_stack="scripted",
        short_side_px=128, embeddings="faces.npz", photos=photos, tools={"oblik": "0.1.0", "inputs": "x"},
    )  # fmt: skip


class Reader(HTMLParser):
    """Collects tags that are not closed properly, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_well_formed_and_self_contained(folder: Path, dataset: Dataset) -> None:
    page = render_report(folder, dataset)
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    pictures = [address for address in reader.addresses if not address.startswith("#")]
    assert len(pictures) == 11
    assert all(address.startswith("data:image/") for address in pictures)
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme:dark" in page


def test_names_and_captions_cannot_become_markup(folder: Path, dataset: Dataset) -> None:
    page = render_report(folder, dataset)
    assert "onerror=&quot;" in page
    assert "<img src=x" not in page
    assert "&lt;oblik_subject&gt; woman &amp; dog" in page


def test_every_photo_and_every_reason_is_on_it(folder: Path, dataset: Dataset) -> None:
    page = render_report(folder, dataset)
    for photo in dataset.photos:
        if photo.source != EVIL:
            assert photo.source in page
    for text in (
        "Somebody else",
        "likeness 0.02",
        "The file is empty",
        "What to photograph next",
        "Training",
    ):
        assert text in page
    assert page.count("<figure tabindex") == 10


def test_it_says_when_the_pack_knows_only_rendered_people(folder: Path, dataset: Dataset) -> None:
    assert "rendered people" in render_report(folder, dataset.model_copy(update={"synthetic": True}))
    assert "rendered people" not in render_report(folder, dataset)


def test_it_lies_in_the_dataset_for_its_owner_only(folder: Path, dataset: Dataset) -> None:
    file = write_report(folder, dataset)
    assert file == folder / "report.html"
    assert file.stat().st_mode & 0o077 == 0
