"""Zip archives as folders: what lies in one, and its bytes, without unpacking anything onto a disk.

In: an archive. Out: its entries, each with a name that is safe to print and to use as a path, or the reason
why it is not read; the bytes of one entry, in memory. An entry's path is the archive's path with the entry's
name behind it: ``holiday.zip/beach/IMG_1.jpg``. Knows nothing of pictures.
Nothing is extracted, so a name cannot write anywhere; names that try are refused all the same.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

ENDING = ".zip"
MAX_ENTRIES = 20_000
MAX_TOTAL_BYTES = 8_000_000_000
MAX_ENTRY_BYTES = 300_000_000
MAX_RATIO, RATIO_FROM_BYTES = 100, 1_000_000
MAX_NAME = 200
READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
OTHER_ARCHIVES = {".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz"}
ENCRYPTED = 0x1


@dataclass(frozen=True)
class Entry:
    """One file of an archive; ``refused`` is empty for one that can be read."""

    info: zipfile.ZipInfo
    refused: str = ""


@dataclass(frozen=True)
class Archive:
    """Entries by their printable, unique name; ``refused`` says why the archive as a whole is not read."""

    entries: dict[str, Entry]
    refused: str = ""


def is_archive(file: Path) -> bool:
    """Whether a path is a zip file, by its ending; links are not followed."""
    return file.suffix.lower() == ENDING and not file.is_symlink() and file.is_file()


def open_archive(file: Path) -> Archive:
    """The table of contents of an archive."""
    try:
        return _contents(_opened(*_state(file)))
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
        return Archive({}, "not a readable zip archive (damaged or cut off?)")


def archive_of(file: Path) -> tuple[Path, str] | None:
    """For the path of an entry, the archive and the entry's name in it; None for any other path."""
    for place in file.parents:
        if place.suffix.lower() == ENDING and is_archive(place):
            return place, file.relative_to(place).as_posix()
    return None


def read_entry(archive: Path, name: str) -> bytes:
    """The bytes of one entry, checked against the archive's own checksum.

    Raises:
        OSError: there is no such entry, it is refused, or it is damaged.
    """
    opened = _opened(*_state(archive))
    entry = _contents(opened).entries.get(name)
    if entry is None or entry.refused:
        raise OSError(entry.refused if entry else "no such file in the archive")
    try:
        with opened.open(entry.info) as stream:
            return stream.read(MAX_ENTRY_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as bad:
        raise OSError("damaged inside the archive") from bad


def _state(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _opened(file: str, mtime_ns: int, size: int) -> zipfile.ZipFile:
    """An open archive. The state of the file is part of the key: a changed one is opened again."""
    return zipfile.ZipFile(file)


@lru_cache(maxsize=4)
def _contents(opened: zipfile.ZipFile) -> Archive:
    files = [info for info in opened.infolist() if not info.is_dir() and not _hidden(info.filename)]
    if reason := _refuse_archive(files, Path(opened.filename or "").stat().st_size):
        return Archive({}, reason)
    entries: dict[str, Entry] = {}
    for info in files:
        entries[_unique(_safe(info.filename), entries)] = Entry(info, _refuse_entry(info))
    return Archive(entries)


def _refuse_archive(files: list[zipfile.ZipInfo], size: int) -> str:
    if len(files) > MAX_ENTRIES:
        return f"an archive of {len(files)} files (at most {MAX_ENTRIES})"
    total = sum(info.file_size for info in files)
    if total > MAX_TOTAL_BYTES:
        return f"the archive would unpack to {total / 1e9:.0f} GB (at most {MAX_TOTAL_BYTES / 1e9:.0f})"
    if sum(info.compress_size for info in files) > size:
        return "the files in this archive overlap: it is built to do harm, or damaged"
    return ""


def _refuse_entry(info: zipfile.ZipInfo) -> str:
    name = info.filename.replace("\\", "/")
    if name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
        return "its name leads out of the archive"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link inside an archive"
    if info.flag_bits & ENCRYPTED:
        return "locked with a password; unpack the archive and give the folder"
    if PurePosixPath(name).suffix.lower() in {ENDING, *OTHER_ARCHIVES}:
        return "an archive inside an archive; unpack it first"
    if info.file_size == 0:
        return "the file is empty (0 bytes)"
    if info.file_size > MAX_ENTRY_BYTES:
        mb = info.file_size // 1_000_000
        return f"the file is too large ({mb} MB, at most {MAX_ENTRY_BYTES // 1_000_000})"
    ratio = info.file_size / max(info.compress_size, 1)
    if ratio > MAX_RATIO and info.file_size > RATIO_FROM_BYTES:
        return f"it unpacks to {ratio:.0f} times its size, as no photo does (at most {MAX_RATIO})"
    return "" if info.compress_type in READ else "packed in a way that is not read; unpack the archive first"


def _hidden(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return "__MACOSX" in parts or any(part.startswith(".") and part not in (".", "..") for part in parts)


def _safe(name: str) -> str:
    """A relative name without steps upwards, of a length that every system takes."""
    parts = [part for part in name.replace("\\", "/").replace("\0", "").split("/") if part not in ("", ".")]
    shown = "/".join("(up)" if part == ".." else part.replace(":", "_") for part in parts) or "(no name)"
    path = PurePosixPath(shown)
    return shown if len(shown) <= MAX_NAME else f"{shown[: MAX_NAME - 20]}...{path.suffix[:10]}"


def _unique(name: str, taken: dict[str, Entry]) -> str:
    path, number, unique = PurePosixPath(name), 1, name
    while unique in taken:
        number += 1
        unique = path.with_name(f"{path.stem}~{number}{path.suffix}").as_posix()
    return unique
