"""The vault: originals, references and consent documents of one person, encrypted with age.

In: bytes. Out: the same bytes, named by their SHA-256. Nothing is ever written in plain, so a process that is
killed leaves none behind. Adding needs the public key only; reading needs the private one, from where
`oblik.personas.keys` put it. Every file opens with the ``age`` program and the key.
Not guaranteed: the memory of a running process, the swap file. File names and sizes can be seen by whoever
can list the folder, and a name tells whether a photo that somebody has already is in the vault.

    vault/recipient                      the public key
    vault/key.age or vault/key           the private key, unless a keyring has it
    vault/originals/<sha256>.age         a file
    vault/originals/<sha256>.name.age    what it was called
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from oblik.errors import ConsentError, InvalidInput, NotFound
from oblik.paths import PersonaHome, atomic_write, private_dir
from oblik.personas.keys import KeyPlace, Machine, choose, found, this_machine
from oblik.personas.persona import Persona

ORIGINALS, REFERENCES, DOCUMENTS = "originals", "references", "documents"
RECIPIENT = "recipient"
_KIND = re.compile(r"[a-z][a-z-]{0,30}")
_CONTENT = re.compile(r"[0-9a-f]{64}\.age")


class Entry(NamedTuple):
    """One file of a vault. ``bytes`` is its size on the disk, encrypted."""

    kind: str
    sha256: str
    name: str
    bytes: int


class Vault:
    """The vault of one persona. Open it with `Vault.open`."""

    def __init__(self, folder: Path, recipient: str, place: KeyPlace) -> None:
        self._folder, self._recipient, self._place = folder, recipient, place
        self._secret: str | None = None

    @classmethod
    def open(cls, home: PersonaHome, persona: Persona, *, machine: Machine | None = None) -> Vault:
        """The persona's vault; it is made, with its key, when there is none.

        Raises BackendUnavailable when a real person's key could be kept nowhere.
        """
        folder, machine = home.vault, machine or this_machine()
        with _alone(folder):
            if not (folder / RECIPIENT).is_file():
                secret, recipient = _new_key()
                account = _account(home, recipient)
                choose(folder, account, machine, synthetic=persona.consent.kind == "synthetic").keep(secret)
                atomic_write(folder / RECIPIENT, recipient + "\n")
        return cls._of(home, machine)

    @classmethod
    def existing(cls, home: PersonaHome, *, machine: Machine | None = None) -> Vault:
        """The vault in a folder, whoever it belongs to. Raises NotFound when there is none."""
        if not (home.vault / RECIPIENT).is_file():
            raise NotFound("this persona has no vault, or its key was destroyed", hint="oblik persona list")
        return cls._of(home, machine or this_machine())

    @classmethod
    def _of(cls, home: PersonaHome, machine: Machine) -> Vault:
        recipient = (home.vault / RECIPIENT).read_text(encoding="utf-8").strip()
        return cls(home.vault, recipient, found(home.vault, _account(home, recipient), machine))

    @property
    def protection(self) -> str:
        """How the key is protected, in words."""
        return self._place.words

    def put(self, content: bytes, *, kind: str, name: str) -> str:
        """Keep ``content`` and return its SHA-256; what is there already stays as it is.

        Raises ConsentError when the key was destroyed meanwhile: the person was deleted.
        """
        import pyrage

        if not _KIND.fullmatch(kind):
            raise InvalidInput(f"{kind!r} is no kind of file", hint=f"{ORIGINALS}, {REFERENCES}, {DOCUMENTS}")
        digest = hashlib.sha256(content).hexdigest()
        file = self._folder / kind / f"{digest}.age"
        if not (self._folder / RECIPIENT).is_file():
            raise ConsentError("this person was deleted; nothing is kept any more", hint="oblik persona list")
        if not file.is_file():
            recipient = pyrage.x25519.Recipient.from_str(self._recipient)
            atomic_write(file.with_suffix(".name.age"), pyrage.encrypt(name.encode(), [recipient]))
            atomic_write(file, pyrage.encrypt(content, [recipient]))
        return digest

    def get(self, sha256: str) -> bytes:
        """The file with this SHA-256. Raises NotFound, or InvalidInput when it was damaged."""
        content = self._decrypt(self._find(sha256))
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InvalidInput(f"{sha256} in the vault is not what its name says", hint="oblik persona show")
        return content

    def has(self, sha256: str) -> bool:
        """Whether a file with this SHA-256 is here; needs no key."""
        return self._place_of(sha256) is not None

    def entries(self) -> list[Entry]:
        """Everything in the vault, by kind and SHA-256."""
        found_here = []
        for file in self._files():
            name = self._decrypt(file.with_suffix(".name.age")).decode()
            found_here.append(Entry(file.parent.name, file.stem, name, file.stat().st_size))
        return found_here

    def destroy_key(self) -> bool:
        """Destroy the key: nobody can then read what is in the vault.

        False when the key could not be reached, as in a keyring that is locked. A backup of the folder that
        holds ``key.age`` still opens with the passphrase.
        """
        destroyed = self._place.destroy()
        self._secret = None
        (self._folder / RECIPIENT).unlink(missing_ok=True)
        return destroyed

    def _files(self) -> Iterator[Path]:
        return (file for file in sorted(self._folder.glob("*/*.age")) if _CONTENT.fullmatch(file.name))

    def _find(self, sha256: str) -> Path:
        file = self._place_of(sha256)
        if file is None:
            raise NotFound(f"the vault has no file {sha256}", hint="oblik persona show")
        return file

    def _place_of(self, sha256: str) -> Path | None:
        files = (kind / f"{sha256}.age" for kind in self._folder.iterdir() if kind.is_dir())
        return next((file for file in files if file.is_file()), None)

    def _decrypt(self, file: Path) -> bytes:
        import pyrage

        self._secret = self._secret or self._place.fetch()
        try:
            return bytes(pyrage.decrypt(file.read_bytes(), [pyrage.x25519.Identity.from_str(self._secret)]))
        except (pyrage.DecryptError, pyrage.IdentityError) as broken:
            raise InvalidInput(
                f"{file.name} in the vault cannot be decrypted: it was damaged, or the key is another one",
                hint="bring the folder back from a backup: oblik persona import",
            ) from broken


def _new_key() -> tuple[str, str]:
    """A private key and its public one."""
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def _account(home: PersonaHome, recipient: str) -> str:
    """The slug, and which of its vaults: a slug may live in several home folders of one account."""
    return f"{home.root.name} {recipient[-12:]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes that make the same vault at once would make two keys."""
    from filelock import FileLock

    with FileLock(private_dir(folder) / ".lock", mode=0o600):
        yield
