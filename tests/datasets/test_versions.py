"""A version is whole, read-only and provable; what failed leaves nothing."""

from __future__ import annotations

import errno
import os
import stat
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oblik.datasets.build import build_dataset, require_held_out
from oblik.datasets.manifest import Dataset, Split
from oblik.datasets.versions import BUILDING, building, files_in, publish, sweep, verify
from oblik.errors import BackendError, Conflict, InvalidInput
from oblik.packs.manifest import Pack
from oblik.paths import Home, versions
from oblik.personas.persona import Persona
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.datasets.conftest import Phone

NOW = datetime(2026, 6, 1, 9, tzinfo=timezone.utc)


def build(persona: Persona, phone: Phone, home: Home, pack: Pack) -> Dataset:
    return build_dataset(
        persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=NOW, progress=SilentProgress()
    )


def test_every_file_is_hashed_and_read_only(persona: Persona, phone: Phone, home: Home, pack: Pack) -> None:
    dataset = build(persona, phone, home, pack)
    folder = home.persona("subject").datasets / "v001"
    assert set(dataset.files) == {f.relative_to(folder).as_posix() for f in files_in(folder)} - {
        "dataset.json"
    }
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o400 for file in files_in(folder))
    for photo in dataset.accepted():
        caption = (folder / str(photo.path)).with_suffix(".txt")
        assert caption.read_text(encoding="utf-8") == photo.caption + "\n"
        assert str(photo.path).split("/")[1] == "1x1"
    assert verify(folder) == []
    changed = folder / str(dataset.accepted()[0].path)
    changed.chmod(0o600)
    changed.write_bytes(b"another")
    (folder / "stranger.txt").write_text("x", encoding="utf-8")
    (folder / "faces.npz").unlink()
    assert [problem.split(" ", 1)[1] for problem in verify(folder)] == [
        "is missing",
        "was changed",
        "does not belong to it",
    ]


def test_a_second_build_never_changes_a_byte_of_the_first(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    build(persona, phone, home, pack)
    folder = home.persona("subject").datasets / "v001"
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files_in(folder)}
    phone.shoot("IMG_99.jpg", photo=99)
    assert build(persona, phone, home, pack).version == "v002"
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files_in(folder)} == before


def test_a_full_disk_leaves_nothing_half_written(
    persona: Persona, phone: Phone, home: Home, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10_000))
    real = os.fsync

    def fsync(handle: int) -> None:
        if next(calls) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(BackendError, match="the disk is full"):
        build(persona, phone, home, pack)
    assert list(home.persona("subject").datasets.iterdir()) == []
    monkeypatch.setattr(os, "fsync", real)
    assert build(persona, phone, home, pack).version == "v001"


def test_what_a_killed_build_left_is_swept_away(tmp_path: Path) -> None:
    dead, mine = tmp_path / f"{BUILDING}999999999-x", tmp_path / f"{BUILDING}{os.getpid()}-y"
    for folder in (dead, mine):
        (folder / "images").mkdir(parents=True)
    assert versions(tmp_path) == []
    sweep(tmp_path)
    assert not dead.exists()
    assert mine.exists()


def test_a_name_that_is_taken_is_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "v001").mkdir()
    with building(tmp_path) as folder:
        (folder / "a").write_text("a", encoding="utf-8")
        with pytest.raises(Conflict):
            publish(folder, tmp_path / "v001")
    assert [f.name for f in tmp_path.iterdir()] == ["v001"]


def test_photos_of_one_moment_cannot_be_held_out() -> None:
    with pytest.raises(InvalidInput, match="too few moments"):
        require_held_out([Split.train] * 9 + [Split.validation] * 3)
    require_held_out([Split.train] * 4 + [Split.validation] * 4 + [None])


def test_manifests_of_older_versions_are_read(tmp_path: Path) -> None:
    old = (
        '{"persona":"subject","version":"v001","trigger":"<oblik_subject>","class_noun":"woman",'
        '"created_at":"2026-06-01T09:00:00Z","consent_sha256":"c","face_stack":"s","short_side_px":128,'
        '"embeddings":"faces.npz","tools":{"inputs":"x"},"photos":[{"source":"a.jpg","source_sha256":"a",'
        '"status":"set_aside","reason":"no face was found in it"}]}'
    )
    (tmp_path / "dataset.json").write_text(old, encoding="utf-8")
    assert verify(tmp_path) == []
    (tmp_path / "dataset.json").write_text(old[:90], encoding="utf-8")
    with pytest.raises(InvalidInput, match="damaged"):
        verify(tmp_path)
