"""Personas on disk."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.paths import Home
from oblik.personas.persona import Consent, Persona, Scope
from oblik.personas.store import PersonaStore, consent_sha256

CONSENT = Consent(
    kind="signed", signed_by='Subject "S" Персона\n№ 1', signed_on=date(2026, 1, 31),
    scopes=frozenset({Scope.portraits, Scope.chat, Scope.voice}), expires_on=date(2028, 1, 31),
)  # fmt: skip


def persona(slug: str = "subject", trigger: str = "") -> Persona:
    return Persona(
        slug=slug, trigger=trigger or f"<oblik_{slug}>", class_noun="woman",
        descriptors={"gender": "woman", "hair_color": "brown"}, consent=CONSENT,
        created_at=datetime(2026, 2, 1, 12, tzinfo=timezone.utc),
    )  # fmt: skip


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    store = PersonaStore(Home(tmp_path / "home"))
    store.create(persona())
    assert store.get("subject") == persona()


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    store = PersonaStore(Home(tmp_path / "home"))
    store.create(persona())
    folders = store.home.persona("subject")
    assert stat.S_IMODE(folders.toml.stat().st_mode) == 0o600
    for folder in (folders.root, folders.consent, folders.vault, folders.datasets):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_slug_and_a_trigger_belong_to_one_persona(tmp_path: Path) -> None:
    store = PersonaStore(Home(tmp_path))
    store.create(persona())
    with pytest.raises(Conflict, match="already exists"):
        store.create(persona())
    with pytest.raises(Conflict, match="belongs to persona 'subject'"):
        store.create(persona("bea", "<OBLIK_subject>"))
    assert [p.slug for p in store.list()] == ["subject"]


def test_unknown_and_damaged_personas_say_so(tmp_path: Path) -> None:
    store = PersonaStore(Home(tmp_path))
    with pytest.raises(NotFound, match="known: none yet"):
        store.get("subject")
    store.create(persona())
    store.home.persona("subject").toml.write_text("slug = [", encoding="utf-8")
    with pytest.raises(InvalidInput, match="cannot be read"):
        store.get("subject")


def test_the_active_persona_is_remembered_while_it_exists(tmp_path: Path) -> None:
    store = PersonaStore(Home(tmp_path))
    assert store.active() is None
    store.create(persona())
    store.use("subject")
    assert PersonaStore(Home(tmp_path)).active() == "subject"
    store.home.persona("subject").toml.unlink()
    assert store.active() is None
    with pytest.raises(NotFound):
        store.use("nobody")


def test_listing_an_empty_home_creates_nothing(tmp_path: Path) -> None:
    assert PersonaStore(Home(tmp_path / "none")).list() == []
    assert not (tmp_path / "none").exists()


def test_the_consent_hash_does_not_depend_on_the_order_of_a_set() -> None:
    program = (
        "from datetime import date; from oblik.personas.persona import *; "
        "from oblik.personas.store import consent_sha256; "
        "print(consent_sha256(Consent(kind='signed', signed_by='A', signed_on=date(2026, 1, 1), "
        "scopes=frozenset(Scope))))"
    )
    hashes = set()
    for seed in ("1", "2", "3"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1
    assert consent_sha256(CONSENT) != consent_sha256(CONSENT.model_copy(update={"scopes": frozenset()}))
