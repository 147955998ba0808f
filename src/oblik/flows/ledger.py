"""Finished stages of a long run: what was done with which inputs, so that nothing is done twice.

In: a stage's name, its inputs as plain values, the work. Out: the work's result, new or remembered.
One JSON file. A stage is done again when its inputs changed or its results are gone. Knows nothing
of what the stages are.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oblik.errors import InvalidInput
from oblik.paths import atomic_write

Result = dict[str, Any]


class Ledger:
    """The stages of one run. ``reused`` names those that were found finished, in order."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: dict[str, dict[str, Any]] = _read(file)
        self.reused: list[str] = []
        self.done: list[str] = []

    def once(
        self,
        name: str,
        inputs: Mapping[str, Any],
        work: Callable[[], Result],
        *,
        intact: Callable[[Result], bool],
    ) -> Result:
        """Return what ``work`` returned for these inputs, now or earlier."""
        key = fingerprint(inputs)
        entry = self._entries.get(name, {})
        if entry.get("key") == key and "result" in entry and intact(entry["result"]):
            self.reused.append(name)
            return dict(entry["result"])
        self._write(name, {"key": key})
        started_s = time.perf_counter()
        result = work()
        self._write(
            name, {"key": key, "result": result, "seconds": round(time.perf_counter() - started_s, 1)}
        )
        self.done.append(name)
        return result

    def interrupted(self, name: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the stage was begun with these inputs and did not end."""
        entry = self._entries.get(name, {})
        return entry.get("key") == fingerprint(inputs) and "result" not in entry

    @property
    def seconds(self) -> dict[str, float]:
        """How long each finished stage took when it was done."""
        return {name: float(entry["seconds"]) for name, entry in self._entries.items() if "seconds" in entry}

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        self._entries[name] = entry
        atomic_write(self._file, json.dumps(self._entries, indent=1) + "\n")


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def folder_sha256(folder: Path) -> str:
    """SHA-256 of the names and bytes of every file below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read(file: Path) -> dict[str, dict[str, Any]]:
    if not file.is_file():
        return {}
    try:
        entries: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as broken:
        raise InvalidInput(f"{file} is damaged: {broken}", hint=f"remove {file} and run again") from broken
    return entries
