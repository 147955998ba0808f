"""``pack.lock``: exactly which bytes a pulled pack is made of, and from where.

In: a pack's folder. Out: its lock, or None (a pack that was made here has none). Knows nothing of hubs.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oblik.errors import PackBroken
from oblik.packs.manifest import InnerPath

LOCK = "pack.lock"


class LockedFile(BaseModel):
    """A file of the pack, and the commit of the repository that it is from."""

    model_config = ConfigDict(extra="forbid")

    path: InnerPath
    repository: str
    file: InnerPath
    revision: str
    bytes: int
    sha256: str


class Lock(BaseModel):
    """What was asked for, what was agreed to, every file; ``manifest_sha256`` is that of ``pack.json``."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    variant: str | None = None
    options: list[str] = Field(default_factory=list)
    accepted: list[str] = Field(default_factory=list)
    source: str
    pulled: datetime
    manifest_sha256: str
    files: list[LockedFile]


def read_lock(folder: Path) -> Lock | None:
    """The lock in ``folder``, if there is one.

    Raises:
        PackBroken: it cannot be read.
    """
    file = folder / LOCK
    if not file.is_file():
        return None
    try:
        return Lock.model_validate_json(file.read_bytes())
    except ValidationError as broken:
        raise PackBroken(
            f"{file} is not a pack lock: {broken.errors()[0]['msg']}", hint=f"oblik pack pull {folder.name}"
        ) from broken
