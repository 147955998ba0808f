"""Personas on disk: ``personas/<slug>/persona.toml`` and which one is active.

In: a `Home` and personas. Out: the same personas, read back. Creating refuses a slug or trigger that
another persona has; every consent record that ever held stays in ``consent/``. Knows nothing of photos,
tokenizers, packs, nor whether a consent is genuine.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.paths import Home, atomic_write, private_dir
from oblik.personas.acl import for_owner_only
from oblik.personas.persona import Consent, Persona

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ACTIVE = "active-persona"


class PersonaStore:
    """All personas under one home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def create(self, persona: Persona) -> Persona:
        """Write a new persona and its private folders.

        Raises:
            Conflict: the slug or the trigger is taken.
        """
        self.require_free(persona)
        folders = self.home.persona(persona.slug)
        for_owner_only(private_dir(folders.root))
        for folder in (folders.consent, folders.vault, folders.datasets, folders.loras, folders.gallery):
            private_dir(folder)
        return self.save(persona)

    def require_free(self, persona: Persona) -> None:
        """Raise Conflict when somebody has the slug or the trigger."""
        if self._file(persona.slug).exists():
            raise Conflict(
                f"persona {persona.slug!r} already exists", hint=f"oblik persona show {persona.slug}"
            )
        for other in self.list():
            if other.trigger.casefold() == persona.trigger.casefold():
                raise Conflict(
                    f"the trigger {persona.trigger} belongs to persona {other.slug!r}",
                    hint="choose another one with --trigger",
                )

    def save(self, persona: Persona) -> Persona:
        """Write a persona that changed, and keep its consent record for good, under its own hash."""
        record = self.home.persona(persona.slug).consent / f"{consent_sha256(persona.consent)}.toml"
        if not record.is_file():
            atomic_write(record, tomli_w.dumps(_plain(persona.consent)))
        atomic_write(self._file(persona.slug), tomli_w.dumps(_plain(persona)))
        return persona

    def get(self, slug: str) -> Persona:
        """Read one persona. Raises NotFound, or InvalidInput when its file was damaged."""
        file = self._file(slug)
        if not file.is_file():
            known = ", ".join(p.slug for p in self.list()) or "none yet"
            raise NotFound(f"no persona is called {slug!r} (known: {known})", hint="oblik persona list")
        try:
            return parse_persona(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, ValidationError, UnicodeDecodeError) as broken:
            raise InvalidInput(f"{file} cannot be read: {broken}", hint=f"mend {file} by hand") from broken

    def list(self) -> list[Persona]:
        """Every persona, by slug."""
        files = sorted(self.home.personas.glob("*/persona.toml")) if self.home.personas.is_dir() else []
        return [self.get(file.parent.name) for file in files]

    def use(self, slug: str) -> Persona:
        """Make one persona the active one."""
        persona = self.get(slug)
        atomic_write(private_dir(self.home.root) / ACTIVE, slug + "\n")
        return persona

    def active(self) -> str | None:
        """The slug of the active persona, if there is one and it still exists."""
        file = self.home.root / ACTIVE
        slug = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        return slug if slug and self._file(slug).is_file() else None

    def forget_active(self, slug: str) -> None:
        """Nobody is active any more if ``slug`` was."""
        file = self.home.root / ACTIVE
        if file.is_file() and file.read_text(encoding="utf-8").strip() == slug:
            file.unlink()

    def _file(self, slug: str) -> Path:
        return self.home.persona(slug).toml


def parse_persona(text: str) -> Persona:
    """A persona from the text of its file. Raises ValueError for anything else."""
    return Persona.model_validate(tomllib.loads(text))


def consent_sha256(consent: Consent) -> str:
    """What datasets and artifacts record of the consent they were made under."""
    record = json.dumps(_plain(consent), sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(record.encode()).hexdigest()


def _plain(model: Persona | Consent) -> dict[str, Any]:
    """The model as TOML types; sets become sorted lists, unset values are left out."""
    data = model.model_dump(exclude_none=True)
    consent = data.get("consent", data)
    consent["scopes"] = sorted(scope.value for scope in consent["scopes"])
    return data
