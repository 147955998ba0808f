"""Files into a folder: room on the disk, bytes from a source, and every byte read back.

In: resolved files, a source, a folder. Out: the files, and their SHA-256. A file has its name only when it
is whole and checked; on its way it is called ``NAME.HASH.part``, and the same wish goes on with it. Knows
nothing of packs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oblik.errors import BackendUnavailable, PackBroken
from oblik.packs.sources import CHUNK_BYTES, Source, Tick, Wanted
from oblik.paths import private_dir
from oblik.progress import Advance, Progress

MIB = 1024**2
SPARE_BYTES = 256 * MIB
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Meter:
    """Bytes into the whole MiB of a progress bar; a place where work can be stopped."""

    def __init__(self, advance: Advance, progress: Progress) -> None:
        self.advance, self.progress, self.note = advance, progress, ""
        self.bytes = self.shown_mib = 0

    def __call__(self, n: int) -> None:
        self.bytes += n
        self.advance(self.bytes // MIB - self.shown_mib, self.note)
        self.shown_mib = self.bytes // MIB
        self.progress.check_cancelled()


def fetch_all(
    wanted: list[Wanted], source: Source, folder: Path, *, command: str, progress: Progress
) -> dict[str, str]:
    """Fetch what ``folder`` lacks and check everything: path to SHA-256. ``command`` goes on after a failure.

    Raises:
        BackendUnavailable: the disk is full, or the source cannot be read.
        PackBroken: a file is not what the source vouched for; it is deleted.
    """
    total_mib = sum(file.remote.bytes for file in wanted) // MIB
    with _disk(folder, command):
        check_room(wanted, folder, command)
        with (
            progress.stage("fetch (MiB)", total_mib) as fetched,
            progress.stage("check (MiB)", total_mib) as checked,
        ):
            down, read = Meter(fetched, progress), Meter(checked, progress)
            return {file.path: _fetch(file, source, folder, (down, read)) for file in wanted}


def check_room(wanted: list[Wanted], folder: Path, command: str) -> None:
    """Refuse to begin what the disk cannot hold."""
    missing = sum(file.remote.bytes - _there(file, folder) for file in wanted)
    free = shutil.disk_usage(folder).free
    if missing > 0 and missing + SPARE_BYTES > free:
        raise BackendUnavailable(
            f"{missing / 1e9:.1f} GB are to come and {folder.parent} has {free / 1e9:.1f} GB free",
            hint=f"make room, or set OBLIK_HOME to a larger disk, then: {command}",
        )


def sweep(wanted: list[Wanted], folder: Path) -> None:
    """Delete everything in ``folder`` that is neither a wanted file nor one on its way."""
    keep = {folder / file.path for file in wanted} | {_part(file, folder) for file in wanted}
    for path in folder.rglob("*"):
        if path.is_file() and path not in keep:
            path.unlink()


def digest(path: Path, tick: Tick) -> str:
    """SHA-256 of a file; ``tick`` hears of every piece read."""
    sums = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            sums.update(piece)
            tick(len(piece))
    return sums.hexdigest()


def _fetch(file: Wanted, source: Source, folder: Path, meters: tuple[Meter, Meter]) -> str:
    """One file. What lay there before is checked like what comes now, and is fetched anew if it is wrong."""
    down, read = meters
    down.note = read.note = file.path
    target, part = folder / file.path, _part(file, folder)
    private_dir(target.parent)
    had = _there(file, folder)
    if target.is_file():
        target.replace(part)
    while True:
        if had == 0:
            part.unlink(missing_ok=True)
        down(had)
        came = had < file.remote.bytes or not part.is_file()
        if came:
            source.fetch(file, part, down)
        sha256 = digest(part, read)
        problem = _problem(part, sha256, file)
        if not problem:
            break
        part.unlink()
        if came and had == 0:
            raise PackBroken(
                f"{file.file} of {file.repository} {problem}: it was not kept",
                hint="the same command again; if it repeats, the copy or the mirror is not to be trusted",
            )
        had = 0
    _sync(part)
    part.replace(target)
    return sha256


def _problem(path: Path, sha256: str, file: Wanted) -> str:
    size, known = path.stat().st_size, file.remote
    if size != known.bytes:
        return f"has {size} bytes instead of {known.bytes}"
    if known.sha256 is not None:
        return "" if sha256 == known.sha256 else f"has the hash {sha256[:12]} instead of {known.sha256[:12]}"
    if known.git_sha1 is not None and _blob_name(path) != known.git_sha1:
        return f"is not the blob {known.git_sha1[:12]}"
    return ""


def _blob_name(path: Path) -> str:
    """What git calls the content of a file; a hub keeps its small files so."""
    content = path.read_bytes()
    head = f"blob {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _part(file: Wanted, folder: Path) -> Path:
    tag = file.remote.sha256 or file.remote.git_sha1 or file.commit
    return folder / f"{file.path}.{tag[:12]}.part"


def _there(file: Wanted, folder: Path) -> int:
    """How many bytes of it lie there; 0 where they cannot be its own."""
    target, part = folder / file.path, _part(file, folder)
    if target.is_file():
        return file.remote.bytes if target.stat().st_size == file.remote.bytes else 0
    size = part.stat().st_size if part.is_file() else 0
    return size if size <= file.remote.bytes else 0


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _disk(folder: Path, command: str) -> Iterator[None]:
    """Say that the disk is full, or cannot be used, in our words."""
    try:
        yield
    except OSError as broken:
        if broken.errno in FULL:
            free = shutil.disk_usage(folder).free
            message = f"the disk of {folder.parent} is full ({free / 1e9:.1f} GB free)"
            hint = f"make room, then go on: {command}"
        else:
            message, hint = (
                f"{broken.filename or folder}: {broken.strerror or broken}",
                f"then go on: {command}",
            )
        raise BackendUnavailable(message, hint=hint) from broken
