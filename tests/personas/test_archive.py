"""A person goes into one file and comes back the same; a file that was tampered with does not."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pyrage
import pytest

from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.paths import Home, atomic_write
from oblik.personas.archive import AUDIT, BODY, KEY, bring_back, export
from oblik.personas.keys import Machine, unwrap, wrap
from oblik.personas.persona import Persona
from oblik.personas.store import PersonaStore, consent_sha256
from oblik.personas.vault import Vault

Make = Callable[..., Persona]
IDENTITY = pyrage.x25519.Identity.generate()
Member = tuple[tarfile.TarInfo, bytes]
TODAY = date(2026, 6, 1)
PHOTO = b"\xff\xd8\xff a photo of somebody " * 40
LORA = bytes(range(256)) * 8000


def lock(key: str) -> bytes:
    """Encrypts the key of an archive without the second of work that a passphrase costs."""
    return bytes(pyrage.encrypt(key.encode(), [IDENTITY.to_public()]))


def unlock(content: bytes) -> str:
    return bytes(pyrage.decrypt(content, [IDENTITY])).decode()


@pytest.fixture
def persona(home: Home, stored: Make, machine: Machine) -> Persona:
    persona = stored()
    folders = home.persona(persona.slug)
    atomic_write(folders.loras / "v001" / "lora.safetensors", LORA)
    atomic_write(folders.datasets / "v001" / "dataset.json", "{}")
    (folders.datasets / "v001" / "dataset.json").chmod(0o400)
    vault = Vault.open(folders, persona, machine=machine)
    vault.put(PHOTO, kind="originals", name="../holiday/Фото 1.jpg")
    vault.put(b"%PDF signed", kind="documents", name="consent")
    return persona


def plain_files(home: Home) -> dict[str, bytes]:
    root = home.persona("subject").root
    files = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
    return {name: content for name, content in files.items() if not name.startswith("vault/")}


def vault_of(home: Home, persona: Persona, machine: Machine) -> dict[tuple[str, str], bytes]:
    vault = Vault.open(home.persona("subject"), persona, machine=machine)
    return {(entry.kind, entry.name): vault.get(entry.sha256) for entry in vault.entries()}


def test_a_round_trip_brings_everything_back(
    home: Home, persona: Persona, machine: Machine, tmp_path: Path
) -> None:
    """With a true passphrase; another one brings nothing back."""
    out, there = tmp_path / "subject.zip", Home(tmp_path / "there")
    seal = partial(wrap, passphrase="four words and a number 7")
    assert export(home, persona, out, seal, '{"n":1}\n', machine) == 8
    with pytest.raises(InvalidInput, match="passphrase"):
        bring_back(there, out, partial(unwrap, passphrase="another one"), machine, TODAY, ())
    assert list(there.root.iterdir()) == []
    opened = partial(unwrap, passphrase="four words and a number 7")
    assert bring_back(there, out, opened, machine, TODAY, ()) == persona
    assert PersonaStore(there).get("subject") == persona
    assert plain_files(there) == {**plain_files(home), AUDIT: b'{"n":1}\n'}
    assert vault_of(there, persona, machine) == vault_of(home, persona, machine)
    recipients = [(one.persona("subject").vault / "recipient").read_text() for one in (home, there)]
    assert recipients[0] != recipients[1]
    assert [path.name for path in there.root.iterdir()] == ["personas"]
    assert stat.S_IMODE((there.persona("subject").datasets / "v001" / "dataset.json").stat().st_mode) == 0o400


def test_an_archive_from_before_undoes_no_withdrawal(
    home: Home, persona: Persona, machine: Machine, tmp_path: Path
) -> None:
    out, there = tmp_path / "subject.zip", Home(tmp_path / "there")
    export(home, persona, out, lock, "", machine)
    brought = bring_back(there, out, unlock, machine, TODAY, {consent_sha256(persona.consent)})
    assert brought.consent.revoked_on == TODAY
    assert PersonaStore(there).get("subject") == brought


def test_what_a_killed_import_or_build_left_is_swept_away_and_not_taken_along(
    home: Home, persona: Persona, machine: Machine, tmp_path: Path
) -> None:
    atomic_write(home.persona("subject").datasets / ".building-1-x" / "a.png", b"half")
    out, there = tmp_path / "subject.zip", Home(tmp_path / "there")
    export(home, persona, out, lock, "", machine)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(60)
    atomic_write(there.root / f".importing-{dead.pid}-x" / "personas" / "subject" / "a.png", b"half")
    bring_back(there, out, unlock, machine, TODAY, ())
    assert [path.name for path in there.root.iterdir()] == ["personas"]
    assert [path.name for path in there.persona("subject").datasets.iterdir()] == ["v001"]


def test_the_archive_is_encrypted_as_a_whole(
    home: Home, persona: Persona, machine: Machine, tmp_path: Path
) -> None:
    out = tmp_path / "subject.zip"
    export(home, persona, out, lock, "", machine)
    content = out.read_bytes()
    for secret in (b"somebody", b"oblik_subject", b"AGE-SECRET-KEY", LORA[:300], b"dataset.json"):
        assert secret not in content
    with zipfile.ZipFile(out) as container:
        assert container.namelist() == [KEY, BODY]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    with pytest.raises(Conflict):
        export(home, persona, out, lock, "", machine)
    with pytest.raises(InvalidInput):
        export(home, persona, tmp_path / "subject.tar", lock, "", machine)


def test_what_is_taken_or_wrong_is_refused_and_nothing_is_left(
    home: Home, persona: Persona, machine: Machine, tmp_path: Path, stored: Make
) -> None:
    out, there = tmp_path / "subject.zip", Home(tmp_path / "there")
    export(home, persona, out, lock, "", machine)
    with pytest.raises(Conflict):
        bring_back(home, out, unlock, machine, TODAY, ())
    PersonaStore(there).create(persona.model_copy(update={"slug": "other", "trigger": "<OBLIK_SUBJECT>"}))
    with pytest.raises(Conflict, match="belongs to persona 'other'"):
        bring_back(there, out, unlock, machine, TODAY, ())
    with pytest.raises(NotFound):
        bring_back(there, tmp_path / "none.zip", unlock, machine, TODAY, ())
    assert sorted(path.name for path in there.root.rglob("*") if path.is_dir()) == [
        "consent", "datasets", "gallery", "loras", "other", "personas", "vault",
    ]  # fmt: skip


def identity_of(archive: Path) -> Any:
    with zipfile.ZipFile(archive) as container:
        return pyrage.x25519.Identity.from_str(container.read(KEY).decode())


def repacked(out: Path, identity: Any, change: Callable[[list[Member]], object]) -> None:
    """The same archive with other members, encrypted with the same key."""
    with zipfile.ZipFile(out) as container:
        wrapped, body = container.read(KEY), container.read(BODY)
    with tarfile.open(fileobj=io.BytesIO(pyrage.decrypt(body, [identity]))) as tar:
        members = [(one, file.read() if (file := tar.extractfile(one)) else b"") for one in tar]
    change(members)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with zipfile.ZipFile(out, "w") as container:
        container.writestr(KEY, wrapped)
        container.writestr(BODY, pyrage.encrypt(plain.getvalue(), [identity.to_public()]))


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info, b""


def test_archives_that_were_tampered_with_are_refused(
    home: Home, persona: Persona, machine: Machine, keyring: object, tmp_path: Path
) -> None:
    out, there = tmp_path / "subject.zip", Home(tmp_path / "there")
    export(home, persona, out, str.encode, "", machine)
    identity = identity_of(out)
    good, keys = out.read_bytes(), len(keyring.kept)  # type: ignore[attr-defined]
    evil: list[Callable[[list[Member]], object]] = [
        lambda members: members.insert(1, (tarfile.TarInfo("../../outside"), b"x")),
        lambda members: members.insert(1, (tarfile.TarInfo("/outside"), b"x")),
        lambda members: members.insert(1, (tarfile.TarInfo("..\\outside"), b"x")),
        lambda members: members.insert(1, link("loras", "/tmp")),
        lambda members: members.insert(1, (tarfile.TarInfo("extra"), b"x")),
        lambda members: members.pop(0),
        lambda members: members.pop(),
    ]
    for change in evil:
        out.write_bytes(good)
        repacked(out, identity, change)
        with pytest.raises(InvalidInput, match="damaged, or is no archive"):
            bring_back(there, out, bytes.decode, machine, TODAY, ())
    for content in (good[: len(good) // 2], b"", b"PK"):
        out.write_bytes(content)
        with pytest.raises(InvalidInput):
            bring_back(there, out, bytes.decode, machine, TODAY, ())
    assert not there.persona("subject").root.exists()
    assert list(there.root.iterdir()) == []
    assert not (tmp_path / "outside").exists()
    assert len(keyring.kept) == keys  # type: ignore[attr-defined]
