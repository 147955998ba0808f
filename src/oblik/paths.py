"""Where things lie under one home folder, and how they are written.

In: a root folder. Out: paths; files that are either whole or absent, readable by their owner only.
Nothing is created until it is written. Knows nothing of what the files mean.
What it does *not* guarantee: on file systems without POSIX modes (Windows) folders keep the modes
that the account gives them.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_VERSION = re.compile(r"v(\d{3,})")
_CHUNK_BYTES = 1 << 20
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}|%([^%/\\]+)%")


@dataclass(frozen=True)
class PersonaHome:
    """The folders of one persona."""

    root: Path

    @property
    def toml(self) -> Path:
        return self.root / "persona.toml"

    @property
    def consent(self) -> Path:
        return self.root / "consent"

    @property
    def vault(self) -> Path:
        return self.root / "vault"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def loras(self) -> Path:
        return self.root / "loras"

    @property
    def gallery(self) -> Path:
        return self.root / "gallery"

    @property
    def token(self) -> Path:
        return self.root / "token.json"


@dataclass(frozen=True)
class Home:
    """The root of everything Oblik keeps: ``$OBLIK_HOME``."""

    root: Path

    @property
    def personas(self) -> Path:
        return self.root / "personas"

    @property
    def packs(self) -> Path:
        return self.root / "packs"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def persona(self, slug: str) -> PersonaHome:
        """The folders of the persona ``slug``; they need not exist."""
        return PersonaHome(self.personas / slug)


def expanded(text: str) -> Path:
    """A path as a person types it: ``~``, ``$VAR``, ``${VAR}`` and ``%VAR%`` are replaced on every system.

    A variable that is not set stays as it was typed; HOME and USERPROFILE are the home folder everywhere.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2] or found[3]
        known = os.environ.get(name)
        return known or (str(Path.home()) if name.upper() in ("HOME", "USERPROFILE") else found[0])

    return Path(_VARIABLE.sub(value, text)).expanduser()


def private_dir(path: Path) -> Path:
    """Make ``path`` and its missing parents, each with mode 0700; return it."""
    if not path.is_dir():
        private_dir(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to a temporary name, fsync, rename. Mode 0600."""
    with atomic_file(path) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes its name, mode 0600, once all is on the disk; else nothing is left."""
    private_dir(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def versions(folder: Path) -> list[str]:
    """Names of the version folders ``v001``, ``v002``... in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), entry.name) for entry in folder.iterdir() if (match := _VERSION.fullmatch(entry.name))
    ]
    return [name for _, name in sorted(found)]


def latest_version(folder: Path) -> str | None:
    """The newest version in ``folder``, or None."""
    found = versions(folder)
    return found[-1] if found else None


def next_version(folder: Path) -> str:
    """The name after the newest one; ``v001`` in an empty or missing folder."""
    latest = latest_version(folder)
    return f"v{(int(latest[1:]) if latest else 0) + 1:03d}"


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
