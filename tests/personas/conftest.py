"""A persona with a consent, and a machine whose keyring and passphrase are scripted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any

import pytest

from oblik.paths import Home
from oblik.personas.keys import Machine
from oblik.personas.persona import Consent, Persona, Scope
from oblik.personas.store import PersonaStore

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
PASSPHRASE = "four words and a number 7"


@dataclass
class ScriptedKeyring:
    """A keyring in a dictionary; a locked one raises, as real ones do."""

    kept: dict[tuple[str, str], str] = field(default_factory=dict)
    locked: bool = False

    def get_password(self, service: str, username: str) -> str | None:
        self._open()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._open()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._open()
        del self.kept[service, username]

    def _open(self) -> None:
        if self.locked:
            raise RuntimeError("the keyring is locked")


def machine_of(keyring: ScriptedKeyring | None = None, passphrase: str | None = None) -> Machine:
    """A computer with these."""
    return Machine(lambda: keyring, lambda new: passphrase)


def make_persona(slug: str = "subject", **consent: Any) -> Persona:
    """A persona with a signed consent; keyword arguments replace parts of it."""
    terms = {
        "kind": "signed", "signed_by": "Subject", "signed_on": date(2026, 1, 1),
        "scopes": frozenset({Scope.portraits}),
    } | consent  # fmt: skip
    return Persona(
        slug=slug, trigger=f"<oblik_{slug}>", consent=Consent.model_validate(terms), created_at=NOW
    )


@pytest.fixture
def keyring() -> ScriptedKeyring:
    return ScriptedKeyring()


@pytest.fixture
def machine(keyring: ScriptedKeyring) -> Machine:
    """A computer with a keyring."""
    return machine_of(keyring)


@pytest.fixture
def person() -> Callable[..., Persona]:
    return make_persona


@pytest.fixture
def bare() -> Callable[..., Machine]:
    """Makes a computer without a keyring; its passphrase, if any, is the argument."""
    return lambda passphrase=None: machine_of(None, passphrase)


@pytest.fixture
def stored(home: Home) -> Callable[..., Persona]:
    """Makes a persona and writes it."""
    return lambda *slug, **consent: PersonaStore(home).create(make_persona(*slug, **consent))
