"""Where packs lie and whether they are whole.

In: a pack's name. Out: an `OpenPack`. The miniature lies inside the package; all others under
``$OBLIK_HOME/packs``. Knows nothing of tensors and never goes online.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from oblik.errors import NotFound, PackBroken
from oblik.packs.manifest import OpenPack, Pack
from oblik.paths import Home, sha256_file

BUNDLED = Path(__file__).parent
MANIFEST = "pack.json"


def open_pack(name: str, home: Home) -> OpenPack:
    """The pack called ``name``, or the pack in the folder ``name``.

    Raises:
        NotFound: there is none; the hint lists those that are here.
    """
    for folder in (home.packs / name, BUNDLED / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return _read(folder)
    here = ", ".join(pack.manifest.name for pack in list_packs(home)) or "none"
    raise NotFound(f"there is no pack called {name!r}", hint=f"packs on this machine: {here}")


def list_packs(home: Home) -> list[OpenPack]:
    """Bundled packs and those under the home folder, by name; the home's one of two equal names."""
    found = [*BUNDLED.glob(f"*/{MANIFEST}"), *home.packs.glob(f"*/{MANIFEST}")]
    by_name = {file.parent.name: file.parent for file in found}
    return [_read(folder) for _, folder in sorted(by_name.items())]


def verify(pack: OpenPack) -> list[str]:
    """What is wrong with the pack's files, one sentence each; empty when they are as in the manifest."""
    problems = []
    for component in pack.manifest.components.values():
        for file in component.files:
            path = pack.folder / file.path
            if not path.is_file():
                problems.append(f"{file.path} is missing")
            elif path.stat().st_size != file.bytes or sha256_file(path) != file.sha256:
                problems.append(f"{file.path} differs from its hash")
    return problems


def _read(folder: Path) -> OpenPack:
    try:
        manifest = Pack.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as broken:
        problem = broken.errors()[0]["msg"]
        raise PackBroken(
            f"{folder / MANIFEST} is not a pack manifest: {problem}", hint="oblik doctor"
        ) from broken
    return OpenPack(manifest=manifest, folder=folder)
