"""Files are whole or absent, private, and versions count upwards."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from oblik.paths import Home, atomic_write, latest_version, next_version, private_dir, sha256_file, versions

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_home_names_folders_and_creates_none(home: Home) -> None:
    person = home.persona("sitter")
    assert person.root == home.root / "personas" / "sitter"
    assert [
        path.name for path in (person.consent, person.vault, person.datasets, person.loras, person.gallery)
    ] == ["consent", "vault", "datasets", "loras", "gallery"]
    assert (person.toml, home.packs, home.logs) == (
        person.root / "persona.toml", home.root / "packs", home.root / "logs",
    )  # fmt: skip
    assert not home.root.exists()


@posix
def test_folders_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        atomic_write(tmp_path / "a" / "b" / "file.txt", "text")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    assert mode(tmp_path / "a" / "b" / "file.txt") == 0o600


@posix
def test_private_dir_leaves_existing_folders_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    assert private_dir(shared / "new") == shared / "new"
    assert mode(shared) == 0o755


def test_atomic_write_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    atomic_write(target, b"old")
    atomic_write(target, "новое")
    assert target.read_bytes() == "новое".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "inside").write_text("kept", encoding="utf-8")
    with pytest.raises(OSError, match="folder"):
        atomic_write(target, b"a file cannot replace a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "inside").read_text(encoding="utf-8") == "kept"


def test_versions_count_from_v001_and_sort_as_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "datasets"
    assert (versions(folder), latest_version(folder), next_version(folder)) == ([], None, "v001")
    for name in ("v002", "v1000", "v999", "v01", "notes", "v003.part"):
        (folder / name).mkdir(parents=True)
    assert versions(folder) == ["v002", "v999", "v1000"]
    assert (latest_version(folder), next_version(folder)) == ("v1000", "v1001")


def test_sha256_file_reads_all_of_a_large_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(content)
    assert sha256_file(tmp_path / "large") == hashlib.sha256(content).hexdigest()
