"""The audit log: who did what with which persona under which consent, one JSON line each, chained by hashes.

In: what was done. Out: a line in ``logs/audit.jsonl`` that carries the hash of the line before it, and
``logs/audit.head`` with the number of lines and the last hash, so that a cut-off tail shows too. The only
name of a person in it is the slug; words, prompts and file names are refused. Knows nothing of what the
operations do; checking is `oblik.personas.audit_check`.
Not guaranteed: whoever may write both files can write a new chain from the beginning. Note the last hash
that ``oblik audit verify`` prints somewhere else; ``--noted HASH`` asks for it later.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from oblik.errors import InvalidInput
from oblik.paths import Home, atomic_write, private_dir
from oblik.personas.acl import for_owner_only

GENESIS = "0" * 64
HEAD_LOST, TORN, FOREIGN = "audit head lost", "audit line torn", "audit line foreign"
_TAIL_BYTES = 1 << 18
_HARMLESS = re.compile(r"[\w.:+-]{0,80}", re.ASCII)

Plain = str | int | float | bool


class Line(BaseModel):
    """One line. ``hash`` is the SHA-256 of all the others as JSON with sorted keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(ge=1)
    time: str
    who: str
    what: str
    persona: str | None = None
    consent: str | None = None
    details: dict[str, Plain] = Field(default_factory=dict)
    previous: str
    hash: str = ""

    def sealed(self) -> Line:
        """The line with its hash."""
        return self.model_copy(update={"hash": self.computed()})

    def computed(self) -> str:
        data = self.model_dump(exclude={"hash"})
        return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class Head(BaseModel):
    """How many lines there are and the last one's hash; ``coming`` is the hash of a line being written."""

    model_config = ConfigDict(extra="forbid")

    count: int = 0
    hash: str = GENESIS
    coming: str | None = None


class AuditLog:
    """The log of one home folder."""

    def __init__(self, home: Home) -> None:
        self.file, self.head_file = home.logs / "audit.jsonl", home.logs / "audit.head"

    def append(
        self,
        what: str,
        *,
        now: datetime,
        persona: str | None = None,
        consent: str | None = None,
        details: Mapping[str, Plain] | None = None,
    ) -> Line:
        """Write one line and wait until it is on the disk; other processes wait for each other."""
        from filelock import FileLock

        known = {key: value for key, value in (details or {}).items() if _harmless(key, value)}
        if not self.file.parent.is_dir():
            for_owner_only(private_dir(self.file.parent))
        with FileLock(self.file.with_suffix(".lock"), mode=0o600):
            head = self._settled(now)
            line = Line(
                n=head.count + 1, time=now.isoformat(), who=os_user(), what=what, persona=persona,
                consent=consent, details=known, previous=head.hash,
            ).sealed()  # fmt: skip
            self._write(line, head)
        return line

    def lines(self) -> list[tuple[int, Line | None]]:
        """Every line with its number in the file, from 1; None for one that is not a line of ours."""
        content = self.file.read_bytes() if self.file.is_file() else b""
        return [(place, parsed(text)) for place, text in enumerate(content.splitlines(), start=1)]

    def about(self, slug: str) -> list[Line]:
        """The lines that name a persona."""
        return [line for _, line in self.lines() if line is not None and line.persona == slug]

    def head(self) -> Head | None:
        """What the head file says; None when it is missing or damaged."""
        try:
            return Head.model_validate_json(self.head_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _settled(self, now: datetime) -> Head:
        """The head to go on from: after a crash the line that was coming is there, torn, or not begun."""
        head, (last, torn) = self.head(), self._tail()
        if head is None and last is not None:
            head = self._note(HEAD_LOST, Head(count=last.n, hash=last.hash), now)
        head = head or Head()
        what = TORN if head.coming is not None else FOREIGN
        if head.coming is not None and last is not None and last.hash == head.coming:
            head = Head(count=head.count + 1, hash=head.coming)
        return self._note(what, head, now, torn) if torn else head

    def _tail(self) -> tuple[Line | None, int]:
        """The last whole line, and how many that are none stand after it."""
        if not self.file.is_file():
            return None, 0
        with self.file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            texts = file.read().splitlines()
        for torn, text in enumerate(reversed(texts)):
            if (line := parsed(text)) is not None:
                return line, torn
        return None, len(texts)

    def _note(self, what: str, head: Head, now: datetime, torn: int = 0) -> Head:
        """Write a line about the log itself."""
        line = Line(
            n=head.count + 1, time=now.isoformat(), who=os_user(), what=what, previous=head.hash,
            details={"lines": torn} if torn else {},
        )  # fmt: skip
        return self._write(line.sealed(), head)

    def _write(self, line: Line, head: Head) -> Head:
        self._set(head.model_copy(update={"coming": line.hash}))
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "r+b") as file:
            if size := file.seek(0, os.SEEK_END):
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new = Head(count=line.n, hash=line.hash)
        self._set(new)
        return new

    def _set(self, head: Head) -> None:
        atomic_write(self.head_file, head.model_dump_json() + "\n")


def parsed(text: bytes) -> Line | None:
    """The line, or None when the bytes are none."""
    try:
        return Line.model_validate_json(text)
    except ValueError:
        return None


def os_user() -> str:
    """The account that runs Oblik."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"


def _harmless(key: str, value: Plain) -> bool:
    """True; raise InvalidInput for text that could hold words of or about a person."""
    if isinstance(value, str) and not _HARMLESS.fullmatch(value):
        raise InvalidInput(
            f"the audit log takes no free text, and {key} is some", hint="give a version, a hash or a count"
        )
    return True
