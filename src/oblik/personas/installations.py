"""Copies of a person's files that Oblik put into other programs, so that they can be taken back.

In: a path, its SHA-256, the program's name. Out: ``installations.json`` in the persona's folder; on removal,
what became of each copy: removed, gone already, or left because it is no longer the file that Oblik wrote.
Knows nothing of the programs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from oblik.paths import PersonaHome, atomic_write, sha256_file

FILE_NAME = "installations.json"


class Installation(BaseModel):
    """One copy outside the home folder. ``version`` is that of the LoRA that it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    program: str
    at: datetime
    version: str = ""


class Fate(str, Enum):
    """What became of a copy."""

    removed = "removed"
    gone = "gone already"
    changed = "left: it was changed since, look at it yourself"
    locked = "left: it could not be removed, look at it yourself"


_LIST = TypeAdapter(list[Installation])


def record(
    home: PersonaHome, path: Path, sha256: str, program: str, now: datetime, version: str = ""
) -> Installation:
    """Remember a copy; one at the same place takes the place of the earlier one."""
    made = Installation(path=str(path.absolute()), sha256=sha256, program=program, at=now, version=version)
    _write(home, [*(known for known in installations(home) if known.path != made.path), made])
    return made


def installations(home: PersonaHome) -> list[Installation]:
    """Every copy that is remembered, oldest first."""
    file = home.root / FILE_NAME
    return _LIST.validate_json(file.read_bytes()) if file.is_file() else []


def remove_all(
    home: PersonaHome, wanted: Callable[[Installation], bool] = lambda known: True
) -> list[tuple[Installation, Fate]]:
    """Remove every copy (those ``wanted``) that still is what Oblik wrote. The others stay on the list."""
    everything = installations(home)
    fates = [(known, _remove(known)) for known in everything if wanted(known)]
    if fates:
        gone = [known for known, fate in fates if fate in (Fate.removed, Fate.gone)]
        _write(home, [known for known in everything if known not in gone])
    return fates


def _remove(known: Installation) -> Fate:
    path = Path(known.path)
    try:
        if not path.is_file():
            return Fate.gone
        if sha256_file(path) != known.sha256:
            return Fate.changed
        path.unlink()
    except OSError:
        return Fate.locked
    return Fate.removed


def _write(home: PersonaHome, known: list[Installation]) -> None:
    atomic_write(home.root / FILE_NAME, _LIST.dump_json(known, indent=1).decode() + "\n")
