"""Bring a pack to this machine: resolve, ask for the licences, fetch, verify, lock.

In: an entry of the catalogue with a choice of variant and options, and a source. Out: the pack's folder
with ``pack.json`` and ``pack.lock``. Everything is made in ``.NAME.part`` beside it and takes its name once
every file has been read back and is what the source vouched for; stopped at any moment, the same command goes
on. Knows nothing of tensors; the network is behind `Source`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from oblik.errors import InvalidInput, NotFound, PackBroken
from oblik.packs.catalogue import Entry, EntryFile, Part
from oblik.packs.fetching import fetch_all, sweep
from oblik.packs.lock import LOCK, Lock, LockedFile, read_lock
from oblik.packs.manifest import Component, OpenPack, PackFile
from oblik.packs.sources import Listing, Remote, Source, Wanted
from oblik.packs.store import MANIFEST, OLD, PART, alone, beside, read_pack
from oblik.paths import Home, atomic_write, private_dir
from oblik.progress import Progress

FACES, OWN = "faces/faces.json", "oblik"
"""The settings of face networks; the source of such files, which Oblik writes by the catalogue."""


@dataclass(frozen=True)
class Wish:
    """What a person asked for. ``place`` is how they named the entry, and ``copy`` the folder, if any."""

    entry: Entry
    place: str
    variant: str | None = None
    options: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    copy: str | None = None

    def command(self, *accept: str) -> str:
        """The command line that asks for this, and accepts the licences ``accept`` too."""
        words = ["oblik", "pack", "pull", self.place]
        words += ["--variant", self.variant] if self.variant else []
        words += ["--with", ",".join(self.options)] if self.options else []
        words += ["--from", self.copy] if self.copy else []
        for licence in (*self.accepted, *accept):
            words += ["--accept-licence", licence]
        return shlex.join(words)


@dataclass(frozen=True)
class Pulled:
    """``unchecked`` are files that nothing had a hash of: the lock says what they were when they came."""

    pack: OpenPack
    lock: Lock
    unchecked: tuple[str, ...]


def pull(wish: Wish, source: Source, home: Home, *, now: datetime, progress: Progress) -> Pulled:
    """Fetch what ``wish`` names and what is not here yet; options that are here stay.

    Raises:
        InvalidInput: an unknown variant or option, or a licence that must be accepted by name.
        NotFound: the source lacks a repository or a file.
        PackBroken: a file is not what it should be.
        BackendUnavailable: the hub cannot be reached, or the disk is too small.
        Conflict: another process is at work on the same pack.
    """
    folder = home.packs / wish.entry.name
    staging, old = beside(folder, PART), beside(folder, OLD)
    with alone(folder):
        if old.exists() and not folder.exists():
            old.rename(folder)
        before = read_lock(folder)
        wish = _with_what_is_here(wish, before)
        parts = wish.entry.select(wish.variant, wish.options)
        check_licences(wish, parts)
        wanted = _resolve(parts, source, wish)
        sweep(wanted, private_dir(staging))
        if before:
            _reuse(before, folder, staging, wanted)
        sums = fetch_all(wanted, source, staging, command=wish.command(), progress=progress)
        settings = _settings(wish.entry, parts)
        for path, text in settings.items():
            atomic_write(staging / path, text)
        lock = _lock(wish, wanted, sums, Origin(source.name, now, before), settings)
        _write(wish, parts, lock, staging)
        if folder.exists():
            folder.rename(old)
        staging.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    return Pulled(read_pack(folder), lock, tuple(file.path for file in wanted if not file.remote.vouched))


def check_licences(wish: Wish, parts: list[Part]) -> None:
    """Ask for every licence that forbids commercial use by its name.

    Raises:
        InvalidInput: one was not accepted; the hint is the command that accepts it.
    """
    closed = [part for part in parts if not part.commercial_use and part.licence not in wish.accepted]
    if closed:
        told = "; ".join(
            f"{part.component} from {part.repository}: {part.licence}, {part.licence_url}" for part in closed
        )
        names = dict.fromkeys(part.licence for part in closed)
        raise InvalidInput(
            f"{wish.entry.name} has parts that forbid commercial use ({told})", hint=wish.command(*names)
        )


@dataclass(frozen=True)
class Origin:
    """Where and when the files came, and the lock that was there before."""

    source: str
    now: datetime
    before: Lock | None


def _with_what_is_here(wish: Wish, before: Lock | None) -> Wish:
    if before is None:
        return replace(wish, options=tuple(sorted(set(wish.options))))
    known = [name for name in before.options if name in wish.entry.options]
    variant = wish.variant or (before.variant if before.variant in wish.entry.variants else None)
    return replace(
        wish,
        variant=variant,
        options=tuple(sorted({*known, *wish.options})),
        accepted=tuple(sorted({*before.accepted, *wish.accepted})),
    )


def _resolve(parts: list[Part], source: Source, wish: Wish) -> list[Wanted]:
    """Every file with the commit it is from and what vouches for it; each repository is asked once."""
    listings: dict[tuple[str, str | None], Listing] = {}
    wanted = {}
    for part in parts:
        key = (part.repository, part.revision)
        if key not in listings:
            listings[key] = source.listing(*key)
        for file in part.files:
            remote = _agreed(part, file, listings[key], wish)
            wanted[file.path] = Wanted(file.path, part.repository, file.file, listings[key].commit, remote)
    return list(wanted.values())


def _agreed(part: Part, file: EntryFile, listing: Listing, wish: Wish) -> Remote:
    """What the source says of a file, if the catalogue does not contradict it."""
    found = listing.files.get(file.file)
    if found is None:
        close = get_close_matches(file.file, listing.files, n=1, cutoff=0.4)
        doubt = "" if file.confirmed else f" (the catalogue could not confirm this name: {file.note})"
        raise NotFound(
            f"{part.repository} has no file {file.file}{doubt}"
            + (f"; the closest there is {close[0]}" if close else ""),
            hint=f"oblik pack info {wish.entry.name} --json prints the entry: correct a copy and pull that",
        )
    if file.bytes not in (None, found.bytes) or (found.sha256 and file.sha256 not in (None, found.sha256)):
        raise PackBroken(
            f"{file.file} of {part.repository} at {listing.commit[:12]} is not what the catalogue names",
            hint="the mirror or the copy is not to be trusted, or the catalogue is wrong: oblik pack info "
            + wish.entry.name,
        )
    return replace(found, sha256=found.sha256 or file.sha256)


def _reuse(before: Lock, folder: Path, staging: Path, wanted: list[Wanted]) -> None:
    """Files of the same commit that are here already are linked (or copied), and checked like the others."""
    here = {(file.path, file.repository, file.file, file.revision) for file in before.files}
    for file in wanted:
        source, target = folder / file.path, staging / file.path
        same = (file.path, file.repository, file.file, file.commit) in here
        if same and not target.exists() and source.is_file() and source.stat().st_size == file.remote.bytes:
            private_dir(target.parent)
            try:
                os.link(source, target)
            except OSError:
                with suppress(OSError):
                    shutil.copyfile(source, target)


def _settings(entry: Entry, parts: list[Part]) -> dict[str, str]:
    """The files that Oblik writes: how the networks of the pack are run."""
    told = {path: json.dumps(values, indent=2) for part in parts for path, values in part.settings.items()}
    if entry.faces:
        told[FACES] = entry.faces.model_dump_json(indent=2)
    return {path: text + "\n" for path, text in told.items()}


def _lock(
    wish: Wish, wanted: list[Wanted], sums: dict[str, str], origin: Origin, settings: dict[str, str]
) -> Lock:
    files = [
        LockedFile(
            path=file.path, repository=file.repository, file=file.file, revision=file.commit,
            bytes=file.remote.bytes, sha256=sums[file.path],
        )
        for file in wanted
    ]  # fmt: skip
    for path, text in settings.items():
        data = text.encode("utf-8")
        files.append(
            LockedFile(
                path=path, repository=OWN, file=path, revision=wish.entry.pack.version, bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )  # fmt: skip
    same = origin.before is not None and origin.before.files == files
    return Lock(
        name=wish.entry.name,
        version=wish.entry.pack.version,
        variant=wish.entry.variant(wish.variant),
        options=list(wish.options),
        accepted=list(wish.accepted),
        source=origin.before.source if origin.before and same else origin.source,
        pulled=origin.before.pulled if origin.before and same else origin.now,
        manifest_sha256="",
        files=files,
    )


def _write(wish: Wish, parts: list[Part], lock: Lock, staging: Path) -> None:
    """``pack.lock``, then ``pack.json``: a folder without the latter is no pack."""
    locked = {file.path: file for file in lock.files}
    components: dict[str, Component] = {}
    for part in parts:
        files = [
            PackFile(**locked[f.path].model_dump(include={"path", "bytes", "sha256"})) for f in part.files
        ]
        first = components.setdefault(
            part.component,
            Component(
                source=part.repository, revision=locked[part.files[0].path].revision, licence=part.licence,
                commercial_use=True, format=part.format, files=[],
            ),
        )  # fmt: skip
        first.commercial_use &= part.commercial_use
        first.files += files
    own = [file for file in lock.files if file.repository == OWN]
    if own:
        files = [PackFile(**file.model_dump(include={"path", "bytes", "sha256"})) for file in own]
        components["settings"] = Component(
            source=OWN, licence="Apache-2.0", commercial_use=True, format="json", files=files
        )
    manifest = wish.entry.pack.model_copy(update={"components": components})
    text = manifest.model_dump_json(indent=2) + "\n"
    lock.manifest_sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
    atomic_write(staging / LOCK, lock.model_dump_json(indent=2) + "\n")
    atomic_write(staging / MANIFEST, text)
