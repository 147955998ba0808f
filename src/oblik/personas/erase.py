"""Everything of one person is destroyed: the key first, then what was made, then the copies elsewhere.

In: a home and a slug. Out: a `Receipt` of what was destroyed, in counts, bytes and hashes. Being stopped
half-way is no harm: the persona's own file goes last, and the command can be given again.
Not guaranteed: other people's copies, backups, and what an SSD or a file system keeps of removed files.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from oblik.errors import NotFound
from oblik.paths import Home, PersonaHome, sha256_file
from oblik.personas.amend import revoked
from oblik.personas.installations import FILE_NAME, remove_all
from oblik.personas.keys import Machine
from oblik.personas.persona import SLUG
from oblik.personas.store import PersonaStore
from oblik.personas.vault import Vault

ORDER = ("datasets", "loras", "voice", "gallery")
LAST = (FILE_NAME, "persona.toml")
NO_KEY, NO_REACH = "there was none", "NOT destroyed: the keyring could not be reached"
DESTROYED = "destroyed"


class Pile(BaseModel):
    """Files of one kind. ``sha256`` is over the sorted hashes of the files as they lay on the disk."""

    model_config = ConfigDict(frozen=True)

    files: int
    bytes: int
    sha256: str


class Copy(BaseModel):
    """A copy in another program and what became of it."""

    model_config = ConfigDict(frozen=True)

    path: str
    program: str
    sha256: str
    fate: str


class Receipt(BaseModel):
    """What was destroyed."""

    model_config = ConfigDict(frozen=True)

    persona: str
    at: datetime
    vault_key: str
    destroyed: dict[str, Pile]
    copies: list[Copy]

    @property
    def files(self) -> int:
        return sum(pile.files for pile in self.destroyed.values())

    @property
    def bytes(self) -> int:
        return sum(pile.bytes for pile in self.destroyed.values())

    @property
    def key_is_gone(self) -> bool:
        return self.vault_key != NO_REACH

    def words(self) -> list[str]:
        """The receipt for a person."""
        lines = [f"vault key    {self.vault_key}"]
        lines += [
            f"{name:<12} {pile.files} files, {pile.bytes:,} bytes, sha256 {pile.sha256[:16]}"
            for name, pile in self.destroyed.items()
        ]
        return [*lines, *(f"{copy.program:<12} {copy.path}: {copy.fate}" for copy in self.copies)]


def erase(home: Home, slug: str, now: datetime, machine: Machine | None = None) -> Receipt:
    """Destroy everything of a persona. Running work stops at its next step, because the consent is revoked.

    Raises NotFound when nobody is called so.
    """
    require_somebody(home, slug)
    folders, store = home.persona(slug), PersonaStore(home)
    _revoke(store, folders, slug, now)
    key = _destroy_key(folders, machine)
    destroyed: dict[str, Pile] = {}
    for name in (*ORDER, *_others(folders)):
        _destroy(folders.root / name, name, destroyed)
    copies = [
        Copy(path=known.path, program=known.program, sha256=known.sha256, fate=fate.value)
        for known, fate in remove_all(folders)
    ]
    for name in LAST:
        _destroy(folders.root / name, "records", destroyed)
    while folders.root.exists():
        with suppress(FileNotFoundError):  # work that stops sweeps the same folder
            shutil.rmtree(folders.root)
    store.forget_active(slug)
    return Receipt(persona=slug, at=now, vault_key=key, destroyed=destroyed, copies=copies)


def require_somebody(home: Home, slug: str) -> None:
    """Raise NotFound unless there is a folder of this persona, damaged or whole."""
    if not re.fullmatch(SLUG, slug) or not home.persona(slug).root.is_dir():
        raise NotFound(f"no persona is called {slug!r}", hint="oblik persona list")


def _revoke(store: PersonaStore, folders: PersonaHome, slug: str, now: datetime) -> None:
    """Stop what is running; a damaged file is no reason to keep a person's pictures."""
    try:
        store.save(revoked(store.get(slug), now.date()))
    except Exception:
        folders.toml.unlink(missing_ok=True)


def _destroy_key(folders: PersonaHome, machine: Machine | None) -> str:
    try:
        vault = Vault.existing(folders, machine=machine)
    except NotFound:
        return NO_KEY
    try:
        return DESTROYED if vault.destroy_key() else NO_REACH
    except Exception:  # a keyring that is locked raises errors of its own
        return NO_REACH


def _others(folders: PersonaHome) -> list[str]:
    """What else lies in the persona's folder, the vault first."""
    found = sorted(entry.name for entry in folders.root.iterdir() if entry.name not in (*ORDER, *LAST))
    return sorted(found, key=lambda name: name != "vault")


def _destroy(place: Path, name: str, destroyed: dict[str, Pile]) -> None:
    """Count, then remove, a folder or a file; files go onto the pile of the records."""
    if not place.exists():
        return
    inside = place.rglob("*") if place.is_dir() else (place,)
    files = [path for path in inside if path.is_file() and not path.is_symlink()]
    hashes, size = sorted(sha256_file(path) for path in files), sum(path.stat().st_size for path in files)
    name = name if place.is_dir() else "records"
    before = destroyed.get(name)
    digest = hashlib.sha256("".join([before.sha256 if before else "", *hashes]).encode()).hexdigest()
    if files:
        destroyed[name] = Pile(
            files=len(files) + (before.files if before else 0),
            bytes=size + (before.bytes if before else 0),
            sha256=digest,
        )
    for path in files:
        path.chmod(0o600)  # a dataset's files are read-only, and Windows removes no such file
    shutil.rmtree(place) if place.is_dir() else place.unlink()
