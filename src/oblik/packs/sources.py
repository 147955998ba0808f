"""Where the files of a pack come from: what a source must be able to do, and the plain-folder source.

In: a folder on this machine (a USB stick, another machine's home, a hub client's cache). Out: which files
of a repository lie there, with every hash that something beside them vouches for; their bytes. Knows nothing
of catalogues. What it does *not* guarantee: a plain copy without any record has no hash to be checked by.

Read are, under the folder itself or under ``hub/``:
    pack.lock and the pack's files      a pack as pulled; also in a sub-folder of the pack's name
    models--owner--name/snapshots/SHA/  the cache of huggingface_hub
    owner/name/, owner--name/, name/    a snapshot; ``.cache/huggingface`` in it is read for hashes
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oblik.errors import InvalidInput, NotFound
from oblik.packs.lock import read_lock

CHUNK_BYTES = 1 << 20
UNKNOWN = "unknown"
"""The revision of a copy that nothing tells the commit of."""

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Remote:
    """What a source vouches for. Large files have a SHA-256, small ones the hash that git gives a blob."""

    bytes: int
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def vouched(self) -> bool:
        """Whether more than its size is known."""
        return self.sha256 is not None or self.git_sha1 is not None


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    commit: str
    files: dict[str, Remote]


@dataclass(frozen=True)
class Wanted:
    """One file, resolved: where it is to lie, where it is from, what it must be."""

    path: str
    repository: str
    file: str
    commit: str
    remote: Remote


class Source(Protocol):
    """A hub, or a folder."""

    @property
    def name(self) -> str:
        """For a person, and for the lock."""
        ...

    def listing(self, repository: str, revision: str | None) -> Listing:
        """The repository at ``revision``, or at its newest commit.

        Raises:
            NotFound: the source does not have it.
        """
        ...

    def fetch(self, wanted: Wanted, part: Path, tick: Tick) -> None:
        """Append to ``part`` what it still lacks of the file; ``tick`` hears of every few bytes."""
        ...


class FolderSource:
    """A folder that holds a copy. ``pack`` is the name of the pack that is looked for."""

    def __init__(self, folder: Path, pack: str) -> None:
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", hint="is the stick plugged in and mounted?")
        self.folder, self.pack = folder, pack
        self._places: dict[tuple[str, str], Path] = {}

    @property
    def name(self) -> str:
        return str(self.folder)

    def listing(self, repository: str, revision: str | None) -> Listing:
        found = self._as_pulled(repository) or self._snapshot(repository, revision)
        if found is None:
            cache = f"models--{repository.replace('/', '--')}"
            raise NotFound(
                f"{self.folder} holds no copy of {repository}",
                hint=f"looked for {self.pack}/pack.lock, {repository}, {cache}",
            )
        if revision is not None and found.commit not in (revision, UNKNOWN):
            raise InvalidInput(
                f"{self.folder} holds {repository} at {found.commit[:12]}, not {revision[:12]}",
                hint=f"copy that revision: hf download {repository} --revision {revision}",
            )
        return found

    def fetch(self, wanted: Wanted, part: Path, tick: Tick) -> None:
        place = self._places[wanted.repository, wanted.file]
        with place.open("rb") as source, part.open("ab") as target:
            source.seek(target.tell())
            while piece := source.read(CHUNK_BYTES):
                target.write(piece)
                tick(len(piece))

    def _as_pulled(self, repository: str) -> Listing | None:
        for folder in (self.folder, self.folder / self.pack):
            lock = read_lock(folder)
            if lock is None or lock.name != self.pack:
                continue
            mine = [file for file in lock.files if file.repository == repository]
            for file in mine:
                self._places[repository, file.file] = folder / file.path
            lying = [file for file in mine if (folder / file.path).is_file()]
            if lying:
                files = {file.file: Remote(file.bytes, file.sha256) for file in lying}
                return Listing(lying[0].revision, files)
        return None

    def _snapshot(self, repository: str, revision: str | None) -> Listing | None:
        for root, commit in self._roots(repository, revision):
            files = {}
            for place in sorted(path for path in root.rglob("*") if path.is_file()):
                name = place.relative_to(root).as_posix()
                if not name.startswith(".cache/"):
                    self._places[repository, name] = place
                    recorded, etag = _record(root, name)
                    commit = commit or recorded
                    files[name] = _remote(place, etag)
            if files:
                return Listing(commit or UNKNOWN, files)
        return None

    def _roots(self, repository: str, revision: str | None) -> Iterator[tuple[Path, str | None]]:
        flat = repository.replace("/", "--")
        for folder in (self.folder, self.folder / "hub"):
            snapshots = folder / f"models--{flat}" / "snapshots"
            commits = sorted(path.name for path in snapshots.iterdir()) if snapshots.is_dir() else []
            for commit in sorted(commits, key=lambda name: name != revision):
                yield snapshots / commit, commit
            for name in (repository, flat, repository.partition("/")[2]):
                if (folder / name).is_dir():
                    yield folder / name, None


def _record(root: Path, name: str) -> tuple[str | None, str | None]:
    """Commit and etag that ``hf download --local-dir`` wrote down beside a snapshot."""
    note = root / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    lines = note.read_text(encoding="utf-8").split() if note.is_file() else []
    return (lines[0], lines[1]) if len(lines) >= 2 else (None, None)


def _remote(place: Path, etag: str | None) -> Remote:
    """In the hub client's cache a file is a link to a blob that is named by its hash."""
    etag = etag or place.resolve().name
    sha256 = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None
    git_sha1 = etag if re.fullmatch(r"[0-9a-f]{40}", etag) else None
    return Remote(place.stat().st_size, sha256, git_sha1)
