"""Where packs lie, whether they are whole, and how they go away.

In: a pack's name. Out: an `OpenPack`. The miniature lies inside the package; all others under
``$OBLIK_HOME/packs``. Knows nothing of tensors and never goes online.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from oblik.errors import Conflict, NotFound, PackBroken
from oblik.packs.lock import read_lock
from oblik.packs.manifest import OpenPack, Pack
from oblik.paths import Home, private_dir, sha256_file

BUNDLED = Path(__file__).parent
MANIFEST = "pack.json"
PART, OLD, GONE = ".part", ".old", ".gone"
"""Hidden folders beside a pack: being made, being replaced, being deleted."""


def open_pack(name: str, home: Home) -> OpenPack:
    """The pack called ``name``, or the pack in the folder ``name``.

    Raises:
        NotFound: there is none; the hint is how to pull it, or lists those that are here.
    """
    for folder in (home.packs / name, BUNDLED / name, Path(name)):
        if (folder / MANIFEST).is_file():
            pack = read_pack(folder)
            return pack.model_copy(update={"own": home.adapters / pack.manifest.name})
    here = ", ".join(pack.manifest.name for pack in list_packs(home)) or "none"
    raise NotFound(
        f"there is no pack called {name!r}",
        hint=f"oblik pack pull {name}" if _can_be_pulled(name) else f"packs on this machine: {here}",
    )


def list_packs(home: Home) -> list[OpenPack]:
    """Bundled packs and those under the home folder, by name; the home's one of two equal names."""
    found = [*BUNDLED.glob(f"*/{MANIFEST}"), *home.packs.glob(f"*/{MANIFEST}")]
    by_name = {file.parent.name: file.parent for file in found if not file.parent.name.startswith(".")}
    return [read_pack(folder) for _, folder in sorted(by_name.items())]


def read_pack(folder: Path) -> OpenPack:
    """The pack in ``folder``.

    Raises:
        PackBroken: its manifest cannot be read.
    """
    try:
        manifest = Pack.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as broken:
        problem = broken.errors()[0]["msg"]
        raise PackBroken(
            f"{folder / MANIFEST} is not a pack manifest: {problem}", hint="oblik doctor"
        ) from broken
    return OpenPack(manifest=manifest, folder=folder)


def verify(pack: OpenPack, tell: Callable[[str], None] = lambda path: None) -> list[str]:
    """What is wrong with the pack's files, one sentence each; empty when they are as they were pulled.

    A pulled pack is compared with its lock, which also names the manifest; another one with its manifest.
    ``tell`` hears of every file that has been read.
    """
    lock = read_lock(pack.folder)
    components = pack.manifest.components.values()
    expected = [(file.path, file.bytes, file.sha256) for part in components for file in part.files]
    problems = []
    if lock is not None:
        expected = [(file.path, file.bytes, file.sha256) for file in lock.files]
        if hashlib.sha256((pack.folder / MANIFEST).read_bytes()).hexdigest() != lock.manifest_sha256:
            problems.append(f"{MANIFEST} differs from its hash")
    for path, size, sha256 in expected:
        file = pack.folder / path
        if not file.is_file():
            problems.append(f"{path} is missing")
        elif file.stat().st_size != size or sha256_file(file) != sha256:
            problems.append(f"{path} differs from its hash")
        tell(path)
    return problems


def remove(name: str, home: Home) -> None:
    """Delete a pack, and what an interrupted pull of it left.

    Raises:
        Conflict: it is bundled with Oblik, or another process is at work on it.
        NotFound: there is neither.
    """
    folder = home.packs / name
    left = [path for path in (folder, *(beside(folder, end) for end in (PART, OLD, GONE))) if path.is_dir()]
    if not left or folder.parent != home.packs or name.startswith("."):
        if (BUNDLED / name / MANIFEST).is_file():
            raise Conflict(f"{name} is bundled with Oblik and stays", hint="oblik pack list")
        raise NotFound(f"no pulled pack is called {name!r}", hint="oblik pack list")
    gone = beside(folder, GONE)
    with alone(folder):
        if folder.is_dir():
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
        for path in {*left, gone} - {folder}:
            shutil.rmtree(path, ignore_errors=True)


def beside(folder: Path, end: str) -> Path:
    """The hidden neighbour ``.NAME.end`` of a pack's folder."""
    return folder.with_name(f".{folder.name}{end}")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time may change a pack."""
    from filelock import FileLock, Timeout

    private_dir(folder.parent)
    try:
        with FileLock(beside(folder, ".lock"), timeout=0, mode=0o600):
            yield
    except Timeout as taken:
        raise Conflict(
            f"another process is at work on the pack {folder.name!r}",
            hint="wait for it, then the same command",
        ) from taken


def _can_be_pulled(name: str) -> bool:
    from oblik.packs.catalogue import CATALOGUE

    return (CATALOGUE / f"{name}.json").is_file()
