"""What goes into the vault comes out again, for the key's owner only, and never lies about in plain."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oblik.errors import BackendUnavailable, ConsentError, InvalidInput, NotFound
from oblik.paths import Home, PersonaHome
from oblik.personas.acl import icacls
from oblik.personas.keys import Machine, say_passphrase, unwrap, work_of
from oblik.personas.persona import Persona
from oblik.personas.vault import Vault

if TYPE_CHECKING:
    from tests.personas.conftest import ScriptedKeyring

Make = Callable[..., Persona]
PHOTO = b"\xff\xd8\xff a photo of somebody " * 40
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def folders(home: Home) -> PersonaHome:
    return home.persona("subject")


def test_what_was_put_comes_out_again(folders: PersonaHome, machine: Machine, person: Make) -> None:
    vault = Vault.open(folders, person(), machine=machine)
    digest = vault.put(PHOTO, kind="originals", name="Фото/IMG 1.jpg")
    assert digest == hashlib.sha256(PHOTO).hexdigest()
    again = Vault.open(folders, person(), machine=machine)
    assert again.get(digest) == PHOTO
    assert again.has(digest)
    assert not again.has("0" * 64)
    (entry,) = again.entries()
    assert entry[:3] == ("originals", digest, "Фото/IMG 1.jpg")
    assert entry.bytes == (folders.vault / "originals" / f"{digest}.age").stat().st_size


def test_putting_twice_changes_nothing(folders: PersonaHome, machine: Machine, person: Make) -> None:
    vault = Vault.open(folders, person(), machine=machine)
    file = folders.vault / "references" / f"{vault.put(PHOTO, kind='references', name='a.jpg')}.age"
    before = file.read_bytes()
    vault.put(PHOTO, kind="references", name="b.jpg")
    assert file.read_bytes() == before
    assert len(vault.entries()) == 1


def test_no_file_of_the_vault_holds_plain_bytes_or_names(
    folders: PersonaHome, machine: Machine, person: Make, keyring: ScriptedKeyring
) -> None:
    Vault.open(folders, person(), machine=machine).put(PHOTO, kind="originals", name="Subject at home.jpg")
    files = [path for path in folders.vault.rglob("*") if path.is_file()]
    (secret,) = keyring.kept.values()
    for path in files:
        content = path.read_bytes()
        assert b"somebody" not in content
        assert b"Subject" not in content
        assert secret.encode() not in content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_key_of_a_real_person_is_in_the_keyring(
    folders: PersonaHome, machine: Machine, person: Make, keyring: ScriptedKeyring
) -> None:
    vault = Vault.open(folders, person(), machine=machine)
    ((service, account),) = keyring.kept
    assert (service, account.split()[0]) == ("oblik", "subject")
    assert "keyring" in vault.protection
    assert not list(folders.vault.glob("key*"))


def test_the_same_slug_in_two_homes_has_two_keys(
    tmp_path: Path, machine: Machine, person: Make, keyring: ScriptedKeyring
) -> None:
    here, there = (Home(tmp_path / name).persona("subject") for name in ("a", "b"))
    first, second = (Vault.open(home, person(), machine=machine) for home in (here, there))
    digest = first.put(PHOTO, kind="originals", name="a.jpg")
    assert second.destroy_key()
    assert first.get(digest) == PHOTO
    assert len(keyring.kept) == 1


def test_without_a_keyring_a_passphrase_guards_the_key(
    folders: PersonaHome, person: Make, bare: Callable[..., Machine]
) -> None:
    vault = Vault.open(folders, person(), machine=bare("a good long one"))
    digest = vault.put(PHOTO, kind="originals", name="a.jpg")
    sealed = (folders.vault / "key.age").read_bytes()
    assert (b"AGE-SECRET-KEY" in sealed, work_of(sealed) > 10) == (False, True)
    Vault.open(folders, person(), machine=bare(None)).put(b"more", kind="originals", name="b.jpg")
    with pytest.raises(InvalidInput, match="not the right one"):
        Vault.open(folders, person(), machine=bare("another one")).get(digest)
    with pytest.raises(BackendUnavailable) as refused:
        Vault.open(folders, person(), machine=bare(None)).get(digest)
    assert "OBLIK_PASSPHRASE" in refused.value.hint
    assert Vault.open(folders, person(), machine=bare("a good long one")).get(digest) == PHOTO


class Terminal(io.StringIO):
    """An input at which somebody sits."""

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_the_passphrase_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    monkeypatch.delenv("OBLIK_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert say_passphrase(False) is None, "nobody is there to ask"
    monkeypatch.setattr("sys.stdin", Terminal())
    answers[:] = ["four words and a number"]
    assert say_passphrase(False) == "four words and a number"
    answers[:] = ["four words and a number", "four words and a number"]
    assert say_passphrase(True) == "four words and a number"
    answers[:] = ["four words and a number", "four words and another"]
    with pytest.raises(InvalidInput, match="differ"):
        say_passphrase(True)
    answers[:] = ["short", "short"]
    with pytest.raises(InvalidInput, match="at least 8"):
        say_passphrase(True)
    monkeypatch.setenv("OBLIK_PASSPHRASE", "said by the environment")
    assert say_passphrase(True) == "said by the environment"


def test_a_slow_computer_is_not_a_wrong_passphrase() -> None:
    """A file of the age format that asks for 2^40 rounds; whether the passphrase is right, nobody can say."""
    header = ["age-encryption.org/v1", f"-> scrypt {'A' * 22} 40", "A" * 43, f"--- {'A' * 43}", "A" * 40]
    hard = "\n".join(header).encode()
    assert (work_of(hard), work_of(b"none")) == (40, 0)
    with pytest.raises(BackendUnavailable, match="too slow"):
        unwrap(hard, "a good long one")


def test_a_real_person_without_any_protection_is_refused(
    folders: PersonaHome, person: Make, bare: Callable[..., Machine]
) -> None:
    with pytest.raises(BackendUnavailable) as refused:
        Vault.open(folders, person(), machine=bare())
    assert "set OBLIK_PASSPHRASE" in refused.value.hint
    assert not (folders.vault / "recipient").exists()


def test_rendered_people_need_no_protection_and_the_vault_says_so(
    folders: PersonaHome, person: Make, machine: Machine, keyring: ScriptedKeyring
) -> None:
    rendered = person(kind="synthetic")
    vault = Vault.open(folders, rendered, machine=machine)
    assert "nobody" in vault.protection
    assert keyring.kept == {}
    assert stat.S_IMODE((folders.vault / "key").stat().st_mode) == 0o600
    assert vault.get(vault.put(PHOTO, kind="originals", name="a.jpg")) == PHOTO


def test_nobody_asks_the_keyring_about_rendered_people(folders: PersonaHome, person: Make) -> None:
    """A keyring that is locked would open a window."""

    def asked() -> ScriptedKeyring:
        raise AssertionError("the keyring was asked")

    machine = Machine(asked, lambda new: None)
    vault = Vault.open(folders, person(kind="synthetic"), machine=machine)
    digest = vault.put(PHOTO, kind="originals", name="a.jpg")
    again = Vault.existing(folders, machine=machine)
    assert again.get(digest) == PHOTO
    assert again.destroy_key()


def test_without_its_key_a_vault_is_closed_for_good(
    folders: PersonaHome, machine: Machine, person: Make, keyring: ScriptedKeyring
) -> None:
    vault = Vault.open(folders, person(), machine=machine)
    digest = vault.put(PHOTO, kind="originals", name="a.jpg")
    assert vault.destroy_key()
    assert keyring.kept == {}
    with pytest.raises(BackendUnavailable):
        vault.get(digest)
    with pytest.raises(ConsentError, match="deleted"):
        vault.put(b"more", kind="originals", name="b.jpg")
    with pytest.raises(NotFound):
        Vault.existing(folders, machine=machine)


def test_damage_and_strange_questions_are_said(folders: PersonaHome, machine: Machine, person: Make) -> None:
    vault = Vault.open(folders, person(), machine=machine)
    digest = vault.put(PHOTO, kind="originals", name="a.jpg")
    with pytest.raises(NotFound):
        vault.get("0" * 64)
    with pytest.raises(InvalidInput):
        vault.put(PHOTO, kind="../elsewhere", name="a.jpg")
    file = folders.vault / "originals" / f"{digest}.age"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InvalidInput, match="damaged"):
        vault.get(digest)


KILLED = """
import os, signal, sys
from datetime import date, datetime, timezone
from pathlib import Path
from oblik.paths import Home
from oblik.personas.enrol import make_persona, synthetic_consent
from oblik.personas.vault import Vault
home, at, seen = Path(sys.argv[1]), int(sys.argv[2]), 0
made = make_persona("x", synthetic_consent(date(2026, 1, 1)), datetime(2026, 1, 1, tzinfo=timezone.utc),
                    trigger=None, descriptors={})
vault = Vault.open(Home(home).persona("x"), made)
def hook(event, arguments):
    global seen
    if event in ("os.rename", "tempfile.mkstemp", "open", "os.remove"):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
content = sys.stdin.buffer.read()
vault.put(b"first", kind="originals", name="a.jpg")
sys.addaudithook(hook)
for n in range(9):
    vault.put(content + bytes([n]), kind="originals", name="b.jpg")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("at", [2, 3, 5, 8, 13])
def test_a_killed_process_leaves_nothing_in_plain(tmp_path: Path, at: int) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "home"), str(at)], input=PHOTO, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(temporary)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"somebody" not in path.read_bytes(), path


def test_on_windows_only_the_current_user_gets_in() -> None:
    assert icacls(Path("C:/oblik"), "HOST\\me") == [
        "icacls", str(Path("C:/oblik")), "/inheritance:r", "/grant:r", "HOST\\me:(OI)(CI)F", "/Q",
    ]  # fmt: skip
