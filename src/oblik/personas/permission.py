"""May this be done with this person, now? The one place that is asked, before the work and during it.

In: a persona and the name of an operation. Out: nothing, or a ConsentError; and a `Progress` whose every step
asks again, so that a revoked consent stops what is running. The record on the disk decides, not a copy that
somebody read earlier. There is no way around it. Knows nothing of what the operations do.
Not guaranteed: work between two steps goes on until the next one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

from oblik.errors import ConsentError
from oblik.paths import Home
from oblik.personas.persona import Persona, Scope
from oblik.personas.store import PersonaStore
from oblik.progress import Advance, Progress

NEEDS: Mapping[str, Scope] = {
    "dataset build": Scope.portraits,
    "dataset decide": Scope.portraits,
    "dataset captions": Scope.portraits,
    "train": Scope.portraits,
    "lora export": Scope.portraits,
    "lora install": Scope.portraits,
    "generate": Scope.portraits,
    "likeness": Scope.portraits,
    "replay": Scope.portraits,
    "restore": Scope.portraits,
    "gallery export": Scope.portraits,
    "edit": Scope.edit,
    "chat": Scope.chat,
    "voice": Scope.voice,
    "talk": Scope.avatar,
    "publish": Scope.publish,
}
"""The scope that each operation needs. What is not here cannot be permitted."""


def permit(persona: Persona, operation: str, *, home: Home, now: datetime) -> None:
    """Raise ConsentError unless the persona's consent allows ``operation`` today.

    Asked are the record that ``persona`` carries and the one on the disk, where there is one.
    """
    persona.consent.require(NEEDS[operation], now.date())
    if home.persona(persona.slug).toml.is_file():
        PersonaStore(home).get(persona.slug).consent.require(NEEDS[operation], now.date())


def under_consent(
    persona: Persona, operation: str, *, home: Home, now: datetime, progress: Progress
) -> Progress:
    """Permit ``operation``, and return a progress that permits every further step."""
    permitted = Permitted(persona, operation, home=home, now=now, progress=progress)
    permit(persona, operation, home=home, now=now)
    return permitted


class Permitted:
    """A progress that raises ConsentError at the next step once the consent no longer holds.

    The persona's file is read again only when it changed. ``now`` goes on by the time that has passed. Where
    the persona was deleted meanwhile, what this work wrote since then is removed.
    """

    def __init__(
        self, persona: Persona, operation: str, *, home: Home, now: datetime, progress: Progress
    ) -> None:
        self._persona, self._operation, self._home = persona, operation, home
        self._inner, self._now, self._began_s = progress, now, time.monotonic()
        self._file = home.persona(persona.slug).toml
        self._seen = (_state(self._file), now.date()) if self._file.is_file() else None

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        return self._inner.stage(name, total)

    def check_cancelled(self) -> None:
        self._inner.check_cancelled()
        now = self._now + timedelta(seconds=time.monotonic() - self._began_s)
        if self._seen is None:
            self._persona.consent.require(NEEDS[self._operation], now.date())
            return
        try:
            seen = (_state(self._file), now.date())
        except FileNotFoundError:
            shutil.rmtree(self._file.parent, ignore_errors=True)
            self._deleted()
        if seen != self._seen:
            if PersonaStore(self._home).get(self._persona.slug).created_at != self._persona.created_at:
                self._deleted()
            permit(self._persona, self._operation, home=self._home, now=now)
            self._seen = seen

    def _deleted(self) -> NoReturn:
        raise ConsentError(
            f"persona {self._persona.slug!r} was deleted; the work stops here", hint="oblik persona list"
        )


def _state(file: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
