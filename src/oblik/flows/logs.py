"""The log: one JSON object a line, one file a day, in the home's ``logs``.

In: what happened, in plain values. Out: ``logs/oblik-2026-01-02.jsonl`` (UTC days); lines back, for
reports. Kept for 30 days at least; each day has its share of the size bound, and when it is spent harmless
lines are dropped first. Prompts and names of people other than slugs do not belong here: whoever writes a
line leaves them out. The audit log (`oblik.personas.audit`) is another thing: it is chained, and nothing of
it is ever removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from oblik.errors import InvalidInput
from oblik.paths import Home, private_dir
from oblik.personas.acl import for_owner_only

LEAST_DAYS = 30
MOST_BYTES = 256 << 20
LONGEST_TEXT = 1000
HARMLESS_SHARE = 0.9
"""Of a day's bytes; the rest is kept for warnings and errors."""
FULL = "log full"
Level = Literal["info", "warning", "error"]
_FILE = re.compile(r"oblik-(\d{4}-\d\d-\d\d)\.jsonl")


@dataclass(frozen=True)
class Journal:
    """The log of one home folder. Raises InvalidInput when it should keep fewer than 30 days."""

    home: Home
    days: int = LEAST_DAYS
    most_bytes: int = MOST_BYTES

    def __post_init__(self) -> None:
        if self.days < LEAST_DAYS:
            raise InvalidInput(
                f"logs are kept for at least {LEAST_DAYS} days, not {self.days}", hint="oblik doctor"
            )

    def write(self, what: str, *, now: datetime, level: Level = "info", **values: Any) -> None:
        """Append a line. The first line of a day also removes what has been kept long enough."""
        folder = self.home.logs
        if not folder.is_dir():
            for_owner_only(private_dir(folder))
        path = folder / f"oblik-{now:%Y-%m-%d}.jsonl"
        new = not path.exists()
        line = _line({"time": now.isoformat(), "level": level, "what": what, **values})
        size = 0 if new else path.stat().st_size
        share = self.most_bytes // (LEAST_DAYS + 1)
        if size + len(line) > share * (HARMLESS_SHARE if level == "info" else 1):
            line = _line({"time": now.isoformat(), "level": "warning", "what": FULL})
            if size + len(line) > share or _last(path).endswith(b'"%s"}\n' % FULL.encode()):
                return
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)
        if new:
            self.retain(now.date())

    def retain(self, today: date) -> list[Path]:
        """Remove days older than `days`; then, above the size bound, the oldest of those that have had their
        30 days. Returns what was removed."""
        found = sorted((day, path) for path, day in self._files())
        old = [path for day, path in found if day < today - timedelta(days=self.days)]
        total = sum(path.stat().st_size for _, path in found if path not in old)
        for day, path in found:
            if total > self.most_bytes and path not in old and day < today - timedelta(days=LEAST_DAYS):
                old.append(path)
                total -= path.stat().st_size
        for path in old:
            path.unlink(missing_ok=True)
        return old

    def lines(self, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
        """Lines from ``since`` up to, and without, ``until``, in order; what is no line is passed over."""
        for path, day in sorted(self._files(), key=lambda entry: entry[1]):
            if since.date() - timedelta(days=1) <= day <= until.date() + timedelta(days=1):
                for text in path.read_bytes().splitlines():
                    line = _read(text)
                    if line is not None and since <= line["time"] < until:
                        yield line

    def _files(self) -> Iterator[tuple[Path, date]]:
        for path in self.home.logs.glob("oblik-*.jsonl"):
            if match := _FILE.fullmatch(path.name):
                yield path, date.fromisoformat(match[1])


def _line(values: dict[str, Any]) -> bytes:
    short = {
        key: value[:LONGEST_TEXT] if isinstance(value, str) else value
        for key, value in values.items()
        if value is not None
    }
    return json.dumps(short, ensure_ascii=False, default=str).encode() + b"\n"


def _last(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 256))
        return file.read()


def _read(text: bytes) -> dict[str, Any] | None:
    try:
        line: dict[str, Any] = json.loads(text)
        line["time"] = datetime.fromisoformat(line["time"])
    except (ValueError, TypeError, KeyError):
        return None
    return line
