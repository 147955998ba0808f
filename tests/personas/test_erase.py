"""Deleting: the key first, then everything, copies elsewhere only while they are what Oblik wrote."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oblik.errors import NotFound
from oblik.paths import Home, atomic_write, sha256_file
from oblik.personas.erase import DESTROYED, NO_KEY, NO_REACH, erase
from oblik.personas.installations import Fate, installations, record, remove_all
from oblik.personas.keys import Machine
from oblik.personas.persona import Persona
from oblik.personas.store import PersonaStore
from oblik.personas.vault import Vault

if TYPE_CHECKING:
    from tests.personas.conftest import ScriptedKeyring

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
Make = Callable[..., Persona]
MADE = ("datasets/v001/images/a.png", "loras/v001/lora.safetensors", "voice/v.wav", "gallery/v001/b.png")


@pytest.fixture
def persona(home: Home, stored: Make, machine: Machine) -> Persona:
    """Somebody with one file of every kind."""
    persona = stored()
    PersonaStore(home).use(persona.slug)
    folders = home.persona(persona.slug)
    for name in MADE:
        atomic_write(folders.root / name, name.encode())
        (folders.root / name).chmod(0o400)
    Vault.open(folders, persona, machine=machine).put(b"photo", kind="originals", name="a.jpg")
    return persona


def copies(home: Home, persona: Persona, folder: Path) -> dict[str, Path]:
    """Three copies in another program: one as it was, one changed since, one gone."""
    places = {name: folder / f"{name}.safetensors" for name in ("same", "changed", "gone")}
    for place in places.values():
        atomic_write(place, b"lora")
        record(home.persona(persona.slug), place, sha256_file(place), "ComfyUI", NOW)
    places["changed"].write_bytes(b"something of the user's own")
    places["gone"].unlink()
    return places


def test_everything_is_destroyed_and_the_receipt_counts_it(
    home: Home, persona: Persona, machine: Machine, keyring: ScriptedKeyring, tmp_path: Path
) -> None:
    places = copies(home, persona, tmp_path / "other program")
    receipt = erase(home, persona.slug, NOW, machine)
    assert not home.persona(persona.slug).root.exists()
    assert (keyring.kept, PersonaStore(home).active()) == ({}, None)
    assert receipt.vault_key == DESTROYED
    assert {name: receipt.destroyed[name].files for name in ("datasets", "loras", "voice", "gallery")} == {
        "datasets": 1, "loras": 1, "voice": 1, "gallery": 1,
    }  # fmt: skip
    assert receipt.destroyed["gallery"].bytes == len(MADE[3])
    assert receipt.files == sum(pile.files for pile in receipt.destroyed.values()) >= 8
    assert (places["same"].exists(), places["changed"].exists()) == (False, True)
    assert [copy.fate for copy in receipt.copies] == [
        Fate.removed.value, Fate.changed.value, Fate.gone.value,
    ]  # fmt: skip
    assert any("look at it yourself" in line for line in receipt.words())


def test_the_key_goes_before_anything_else(
    home: Home, persona: Persona, machine: Machine, keyring: ScriptedKeyring
) -> None:
    """A folder that cannot be removed stops the deletion; by then nobody can read the originals."""
    inside = home.persona(persona.slug).datasets
    inside.rename(inside.with_name("elsewhere"))
    inside.symlink_to(inside.with_name("elsewhere"))
    with pytest.raises(OSError, match="symbolic link"):
        erase(home, persona.slug, NOW, machine)
    assert keyring.kept == {}
    inside.unlink()
    assert erase(home, persona.slug, NOW, machine).vault_key == NO_KEY
    assert not home.persona(persona.slug).root.exists()


def test_a_locked_keyring_is_said_plainly(
    home: Home, persona: Persona, machine: Machine, keyring: ScriptedKeyring
) -> None:
    keyring.locked = True
    receipt = erase(home, persona.slug, NOW, machine)
    assert receipt.vault_key == NO_REACH
    assert not receipt.key_is_gone
    assert not home.persona(persona.slug).root.exists()


def test_a_key_file_is_overwritten_before_it_goes(
    home: Home, stored: Make, bare: Callable[..., Machine], tmp_path: Path
) -> None:
    persona = stored(kind="synthetic")
    Vault.open(home.persona(persona.slug), persona, machine=bare())
    key = home.persona(persona.slug).vault / "key"
    other_name = tmp_path / "the same file"
    other_name.hardlink_to(key)
    assert b"AGE-SECRET-KEY" in other_name.read_bytes()
    erase(home, persona.slug, NOW, bare())
    assert set(other_name.read_bytes()) == {0}


def test_a_damaged_persona_can_be_deleted_and_nobody_cannot(
    home: Home, persona: Persona, machine: Machine
) -> None:
    home.persona(persona.slug).toml.write_text("slug = [", encoding="utf-8")
    erase(home, persona.slug, NOW, machine)
    assert not home.persona(persona.slug).root.exists()
    for slug in (persona.slug, "", ".", "../personas", "/"):
        with pytest.raises(NotFound):
            erase(home, slug, NOW, machine)


def test_other_people_stay(home: Home, persona: Persona, stored: Make, machine: Machine) -> None:
    stored("subject-b")
    erase(home, persona.slug, NOW, machine)
    assert [other.slug for other in PersonaStore(home).list()] == ["subject-b"]


def test_installations_are_remembered_and_taken_back(home: Home, persona: Persona, tmp_path: Path) -> None:
    folders = home.persona(persona.slug)
    places = copies(home, persona, tmp_path)
    assert [Path(known.path) for known in installations(folders)] == list(places.values())
    record(folders, places["same"], sha256_file(places["same"]), "Easy Diffusion", NOW)
    assert [known.program for known in installations(folders)] == ["ComfyUI", "ComfyUI", "Easy Diffusion"]
    assert {Path(known.path).stem: fate for known, fate in remove_all(folders)} == {
        "same": Fate.removed, "changed": Fate.changed, "gone": Fate.gone,
    }  # fmt: skip
    assert [Path(known.path).stem for known in installations(folders)] == ["changed"]
