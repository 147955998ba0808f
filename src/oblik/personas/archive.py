"""One person in one file: everything that Oblik has of them, behind a passphrase, and back again.

In: a persona's folder, a passphrase. Out: a zip of two age files, ``key.age`` (a key, behind the passphrase)
and ``persona.tar.age`` (the rest, behind that key), so that unzip, age and tar open it without Oblik. What
the vault holds is decrypted and encrypted again in memory; no original or document is written in plain. On
the way back the vault gets a new key of its own. Knows nothing of what the files mean.
Not guaranteed: that the passphrase is a good one.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import psutil

from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.paths import Home, PersonaHome, atomic_file, atomic_write, private_dir
from oblik.personas.amend import revoked
from oblik.personas.installations import FILE_NAME as INSTALLATIONS
from oblik.personas.keys import Machine
from oblik.personas.persona import Persona
from oblik.personas.store import PersonaStore, consent_sha256, parse_persona
from oblik.personas.trigger import resembling
from oblik.personas.vault import Vault

Lock = Callable[[str], bytes]
Unlock = Callable[[bytes], str]
KEY, BODY = "key.age", "persona.tar.age"
FORMAT = 1
PERSONA, CONTENTS, AUDIT = "persona.toml", "contents.json", "audit-before-import.jsonl"
VAULT, IMPORTING = "vault", ".importing-"
NAMES = f"{VAULT}/names.json"
SKIPPED = (VAULT, INSTALLATIONS, AUDIT, "caches")


class Member(NamedTuple):
    """One file of an archive. ``mode`` is 0400 for what nobody changes, else 0600."""

    name: str
    content: bytes
    mode: int


def export(home: Home, persona: Persona, out: Path, lock: Lock, audit: str, machine: Machine) -> int:
    """Write everything of a persona, with its ``audit`` lines, to ``out``; return the number of files.

    ``lock`` encrypts the archive's own key, as `oblik.personas.keys.wrap` does with a passphrase.
    Raises Conflict when ``out`` exists already and InvalidInput when it is not a .zip.
    """
    import pyrage

    if out.suffix.lower() != ".zip":
        raise InvalidInput(f"{out.name} does not end with .zip", hint="oblik persona export SLUG OUT.zip")
    if out.exists():
        raise Conflict(f"{out} exists already", hint="choose another name")
    folders = home.persona(persona.slug)
    identity = pyrage.x25519.Identity.generate()
    with atomic_file(out.absolute()) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as container:
        container.writestr(KEY, lock(str(identity)))
        with container.open(BODY, "w", force_zip64=True) as body:
            return _encrypted(
                lambda pipe: _pack(pipe, folders, persona, audit, machine), body, identity.to_public()
            )


def bring_back(
    home: Home,
    archive: Path,
    unlock: Unlock,
    machine: Machine,
    today: date,
    withdrawn: Collection[str],
) -> Persona:
    """Unpack an archive into ``home``; nothing is left there when it is damaged.

    A consent whose hash is among the ``withdrawn`` ones comes back revoked: an archive from before undoes no
    withdrawal.

    Raises Conflict for a slug or a trigger that is taken, InvalidInput for a wrong passphrase or file.
    """
    import pyrage

    if not archive.is_file():
        raise NotFound(f"there is no file {archive}", hint="oblik persona import ARCHIVE.zip")
    _sweep(home)
    staging = Path(tempfile.mkdtemp(prefix=f"{IMPORTING}{os.getpid()}-", dir=private_dir(home.root)))
    try:
        with zipfile.ZipFile(archive) as container:
            identity = pyrage.x25519.Identity.from_str(unlock(container.read(KEY)))
            with container.open(BODY) as body, _decrypted(body, identity) as plain:
                persona = _unpack(plain, staging, home, machine)
        folders = home.persona(persona.slug)
        if folders.root.exists():
            raise Conflict(f"persona {persona.slug!r} exists", hint=f"oblik persona show {persona.slug}")
        if consent_sha256(persona.consent) in withdrawn:
            persona = PersonaStore(Home(staging)).save(revoked(persona, today))
        (staging / "personas" / persona.slug).rename(private_dir(home.personas) / persona.slug)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        KeyError,
        ValueError,
        EOFError,
        pyrage.DecryptError,
        pyrage.IdentityError,
    ) as bad:
        raise InvalidInput(
            f"{archive.name} is damaged, or is no archive of a persona: {bad}",
            hint="copy it again, or write a new one: oblik persona export SLUG OUT.zip",
        ) from bad
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return persona


def _sweep(home: Home) -> None:
    """Remove what imports that were killed left behind."""
    for folder in home.root.glob(f"{IMPORTING}*"):
        number = folder.name.removeprefix(IMPORTING).partition("-")[0]
        if not number.isdecimal() or not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _pack(pipe: IO[bytes], folders: PersonaHome, persona: Persona, audit: str, machine: Machine) -> int:
    """Write every member; the table of contents goes last, so that its presence proves that all is there."""
    contents: dict[str, str] = {}
    with tarfile.open(fileobj=pipe, mode="w|") as tar:

        def add(name: str, content: bytes, mode: int = 0o600) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
            contents[name] = hashlib.sha256(content).hexdigest()

        add(PERSONA, folders.toml.read_bytes())
        for path in sorted(folders.root.rglob("*")):
            name = path.relative_to(folders.root).as_posix()
            *parents, _ = name.split("/")
            skipped = path.is_symlink() or name == PERSONA or name.split("/")[0] in SKIPPED
            unfinished = any(parent.startswith(".") for parent in parents)
            if path.is_file() and not skipped and not unfinished:
                add(name, path.read_bytes(), path.stat().st_mode & 0o600)
        vault = Vault.open(folders, persona, machine=machine)
        entries = vault.entries()
        add(NAMES, json.dumps({entry.sha256: entry.name for entry in entries}).encode())
        for entry in entries:
            add(f"{VAULT}/{entry.kind}/{entry.sha256}", vault.get(entry.sha256))
        earlier = folders.root / AUDIT
        add(AUDIT, (earlier.read_bytes() if earlier.is_file() else b"") + audit.encode())
        count = len(contents)
        add(CONTENTS, json.dumps({"format": FORMAT, "files": contents}).encode())
    return count


def _unpack(plain: IO[bytes], staging: Path, home: Home, machine: Machine) -> Persona:
    """Read members one after the other; files of the vault go from memory into a new vault."""
    with tarfile.open(fileobj=plain, mode="r|") as tar:
        members = (Member(_safe(one), _content(tar, one), (one.mode & 0o200) | 0o400) for one in tar)
        first = next(members, Member("", b"", 0o600))
        persona = _newcomer(first.name, first.content, home)
        folders = Home(staging).persona(persona.slug)
        vault = Vault.open(folders, persona, machine=machine)
        try:
            _fill(folders, vault, itertools.chain([first], members))
        except BaseException:
            vault.destroy_key()
            raise
    for folder in (folders.consent, folders.vault, folders.datasets, folders.loras, folders.gallery):
        private_dir(folder)
    return persona


def _fill(folders: PersonaHome, vault: Vault, members: Iterable[Member]) -> None:
    """Put every member in its place. Raises ValueError unless the contents are what they were."""
    seen: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, content, mode in members:
        if name == CONTENTS:
            contents: dict[str, Any] = json.loads(content)
            if contents.get("format") != FORMAT or contents.get("files") != seen:
                raise ValueError("files are missing or were changed")
            return
        seen[name] = hashlib.sha256(content).hexdigest()
        if name == NAMES:
            names = json.loads(content)
        elif name.startswith(f"{VAULT}/"):
            _, kind, digest = name.split("/")
            vault.put(content, kind=kind, name=names[digest])
        else:
            atomic_write(folders.root / name, content)
            (folders.root / name).chmod(mode)
    raise ValueError("its end is missing")


def _newcomer(name: str, content: bytes, home: Home) -> Persona:
    """The persona of an archive, if this home has room for them."""
    if name != PERSONA:
        raise ValueError(f"it does not begin with {PERSONA}")
    persona = parse_persona(content.decode())
    store = PersonaStore(home)
    store.require_free(persona)
    if home.persona(persona.slug).root.exists():
        raise Conflict(f"persona {persona.slug!r} exists", hint=f"oblik persona delete {persona.slug}")
    for other in store.list():
        if resembling(persona.trigger, other.trigger):
            raise Conflict(
                f"the trigger {persona.trigger} resembles {other.trigger} of persona {other.slug!r}",
                hint="import it into another home folder: oblik --home FOLDER persona import",
            )
    return persona


def _safe(member: tarfile.TarInfo) -> str:
    """The member's name. Raises ValueError for one that leads out of its folder, and for links."""
    path = PurePosixPath(member.name)
    parts = path.parts
    if not member.isreg() or path.is_absolute() or not parts or ".." in parts or "\\" in member.name:
        raise ValueError(f"{member.name!r} is not a plain file inside the persona's folder")
    if ":" in parts[0] or path.as_posix() != member.name:
        raise ValueError(f"{member.name!r} is not a plain file inside the persona's folder")
    return member.name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _encrypted(write: Callable[[IO[bytes]], int], out: IO[bytes], recipient: Any) -> int:
    """Encrypt what ``write`` writes as it is written. Raises what ``write`` raises."""
    import pyrage

    read_end, write_end = os.pipe()
    outcome: list[int | BaseException] = []

    def feed() -> None:
        try:
            with os.fdopen(write_end, "wb") as pipe:
                outcome.append(write(pipe))
        except BaseException as raised:
            outcome.append(raised)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with os.fdopen(read_end, "rb") as pipe:
            pyrage.encrypt_io(pipe, out, [recipient])
    finally:
        feeder.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


@contextmanager
def _decrypted(body: IO[bytes], identity: Any) -> Iterator[IO[bytes]]:
    """A stream of the plain bytes; an archive that was cut off or changed raises DecryptError at its end."""
    import pyrage

    read_end, write_end = os.pipe()
    raised: list[BaseException] = []

    def feed() -> None:
        try:
            with os.fdopen(write_end, "wb") as pipe:
                pyrage.decrypt_io(body, pipe, [identity])
        except BrokenPipeError:
            return
        except BaseException as problem:
            raised.append(problem)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with os.fdopen(read_end, "rb") as pipe:
            yield pipe
    finally:
        feeder.join()
    if raised:
        raise raised[0]
