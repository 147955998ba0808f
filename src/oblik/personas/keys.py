"""Where the key of a vault is kept: the system's keyring, behind a passphrase, or beside the vault.

In: a secret (an age identity as text). Out: the same secret, as long as nobody destroyed it. Which place is
taken is decided once, by `choose`, when a vault is made. Knows nothing of what the key opens.
Not guaranteed: that a keyring is safe while its owner is logged in; that a passphrase is a good one; that an
overwritten file is gone from an SSD; that no copy stays in this process's memory or in the swap file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oblik.errors import BackendUnavailable, InvalidInput
from oblik.paths import atomic_write

SERVICE = "oblik"
PASSPHRASE = "OBLIK_PASSPHRASE"
SHORTEST_PASSPHRASE = 8
ENOUGH_WORK, TRIES = 18, 20
"""2^18 is what the age program takes; how often to measure again."""
TOO_MUCH_WORK = "Excessive work"
SET_PASSPHRASE = f"set {PASSPHRASE} to a passphrase of your own and run the command again"


class Keyring(Protocol):
    """What every backend of the ``keyring`` library can do."""

    def get_password(self, service: str, username: str) -> str | None: ...

    def set_password(self, service: str, username: str, password: str) -> None: ...

    def delete_password(self, service: str, username: str) -> None: ...


class KeyPlace(Protocol):
    """One place for one secret. ``words`` says in plain language how safe it is."""

    words: str

    def fetch(self) -> str:
        """The secret. Raises BackendUnavailable or InvalidInput when it cannot be had."""
        ...

    def keep(self, secret: str) -> None: ...

    def destroy(self) -> bool:
        """Make the secret unreadable for good; False when it could not be reached."""
        ...


@dataclass(frozen=True)
class Machine:
    """What this computer offers: a keyring and somebody who knows a passphrase.

    ``keyring()`` returns None when there is none; asking may unlock it, so nobody asks for rendered people.
    ``passphrase(new)`` returns None when neither the environment nor a terminal can say one.
    """

    keyring: Callable[[], Keyring | None]
    passphrase: Callable[[bool], str | None]


@dataclass
class InKeyring:
    """The system's keyring. ``account`` tells apart vaults of one slug in two home folders."""

    keyring: Keyring | None
    account: str
    words: str = "its key is in the system's keyring"

    def fetch(self) -> str:
        secret = self._found()
        if secret is None:
            raise BackendUnavailable(
                "the key of this vault is not in the system's keyring, or the keyring is locked",
                hint="unlock the keyring, on the computer and account where the persona was created",
            )
        return secret

    def keep(self, secret: str) -> None:
        assert self.keyring is not None
        self.keyring.set_password(SERVICE, self.account, secret)
        if self._found() != secret:
            raise BackendUnavailable("the system's keyring did not keep the key", hint=SET_PASSPHRASE)

    def destroy(self) -> bool:
        if self._found() is None or self.keyring is None:
            return False
        self.keyring.delete_password(SERVICE, self.account)
        return self._found() is None

    def _found(self) -> str | None:
        return self.keyring.get_password(SERVICE, self.account) if self.keyring else None


@dataclass
class BehindPassphrase:
    """A file that age encrypted with a passphrase."""

    file: Path
    machine: Machine
    words: str = "its key is behind a passphrase"

    def fetch(self) -> str:
        return unwrap(self.file.read_bytes(), require_passphrase(self.machine, new=False))

    def keep(self, secret: str) -> None:
        atomic_write(self.file, wrap(secret, require_passphrase(self.machine, new=True)))

    def destroy(self) -> bool:
        return overwrite(self.file)


@dataclass
class BesideVault:
    """A plain file that only its owner may read: for rendered people, whose pictures show nobody."""

    file: Path
    words: str = "its key lies beside it, unprotected: these pictures are of nobody"

    def fetch(self) -> str:
        return self.file.read_text(encoding="utf-8").strip()

    def keep(self, secret: str) -> None:
        atomic_write(self.file, secret + "\n")

    def destroy(self) -> bool:
        return overwrite(self.file)


def choose(folder: Path, account: str, machine: Machine, *, synthetic: bool) -> KeyPlace:
    """The place for a new key. Rendered people need no protection, and nobody may have to be asked."""
    if synthetic:
        return BesideVault(folder / "key")
    if (keyring := machine.keyring()) is not None:
        return InKeyring(keyring, account)
    return BehindPassphrase(folder / "key.age", machine)


def found(folder: Path, account: str, machine: Machine) -> KeyPlace:
    """The place where the key of an existing vault was put."""
    if (folder / "key").is_file():
        return BesideVault(folder / "key")
    if (folder / "key.age").is_file():
        return BehindPassphrase(folder / "key.age", machine)
    return InKeyring(machine.keyring(), account)


def this_machine() -> Machine:
    """The keyring and the passphrase of the computer and the process that Oblik runs in."""
    return Machine(_system_keyring, say_passphrase)


def say_passphrase(new: bool) -> str | None:
    """``OBLIK_PASSPHRASE``, else what is typed at the terminal (twice when ``new``), else None."""
    said = os.environ.get(PASSPHRASE)
    if not said:
        if not sys.stdin.isatty():
            return None
        from getpass import getpass

        said = getpass("Passphrase of the vault: ")
        if new and said != getpass("Once more: "):
            raise InvalidInput("the two passphrases differ", hint="run the command again")
    if new and len(said) < SHORTEST_PASSPHRASE:
        raise InvalidInput(
            f"a passphrase needs at least {SHORTEST_PASSPHRASE} characters", hint="take four or five words"
        )
    return said


def require_passphrase(machine: Machine, *, new: bool) -> str:
    """The passphrase. Raises BackendUnavailable when nobody says one."""
    said = machine.passphrase(new)
    if said is None:
        raise BackendUnavailable(
            "this needs a passphrase, and there is neither one nor a terminal to ask at", hint=SET_PASSPHRASE
        )
    return said


def wrap(secret: str, passphrase: str) -> bytes:
    """The secret as an age file that the passphrase opens.

    The library asks for as much work as this computer seems to do in a second, and a busy one seems slow:
    what came out too easy to guess is made again.
    """
    import pyrage

    made = b""
    for _ in range(TRIES):
        made = max(made, bytes(pyrage.passphrase.encrypt(secret.encode(), passphrase)), key=work_of)
        if work_of(made) >= ENOUGH_WORK:
            break
    return made


def unwrap(content: bytes, passphrase: str) -> str:
    """The secret of such a file.

    Raises InvalidInput for another passphrase, BackendUnavailable where this computer is too slow to try it.
    """
    import pyrage

    for _ in range(TRIES):
        try:
            return bytes(pyrage.passphrase.decrypt(content, passphrase)).decode()
        except pyrage.DecryptError as wrong:
            if TOO_MUCH_WORK not in str(wrong):
                raise InvalidInput(
                    "the passphrase is not the right one",
                    hint=f"set {PASSPHRASE} to the one that was used before",
                ) from wrong
    raise BackendUnavailable(
        "this computer is too slow, or too busy, to try the passphrase",
        hint="run it again with less going on",
    )


def work_of(content: bytes) -> int:
    """log2 of scrypt's N in the header of an age file (age-encryption.org/v1, scrypt recipient stanza)."""
    found = re.match(rb"age-encryption\.org/v1\n-> scrypt \S+ (\d+)\n", content)
    return int(found[1]) if found else 0


def overwrite(file: Path) -> bool:
    """Write zeros over a small file and remove it; False when there is none."""
    if not file.is_file():
        return False
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
        opened.flush()
        os.fsync(opened.fileno())
    file.unlink()
    return True


def _system_keyring() -> Keyring | None:
    """The keyring of the system; None where the library finds none that it recommends (priority 1 and more):
    others keep nothing, or keep it in a plain file."""
    import keyring

    backend = keyring.get_keyring()
    return backend if backend.priority >= 1 and _is_open(backend) else None


def _is_open(backend: Keyring) -> bool:
    """Whether the keyring answers: one that is locked, or whose service is not running, raises."""
    try:
        backend.get_password(SERVICE, "is it open")
    except Exception:  # each backend has errors of its own
        return False
    return True
