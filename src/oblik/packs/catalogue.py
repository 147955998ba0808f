"""What can be pulled: for every pack its repositories, files, revisions, licences, hashes.

In: the JSON files in ``catalogue/``, or one that a person wrote. Out: an `Entry`, and the parts of it that
a choice of variant and options names. ``seen`` says where a name was read; what could not be confirmed has
``confirmed: false`` and a note. Knows nothing of hubs and never goes online.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from oblik.errors import InvalidInput, NotFound, PackBroken
from oblik.faces.networks import FacesFile
from oblik.packs.manifest import InnerPath, Pack

CATALOGUE = Path(__file__).parent / "catalogue"


class EntryFile(BaseModel):
    """One file: its name in the repository, its place in the pack, and what is known of it beforehand.

    ``about_bytes`` is a size to show, not one to check by.
    """

    model_config = ConfigDict(extra="forbid")

    file: InnerPath
    path: InnerPath
    bytes: int | None = None
    about_bytes: int | None = None
    sha256: str | None = None
    confirmed: bool = True
    note: str = ""


class Part(BaseModel):
    """Files of one repository that belong to one component.

    A part with a ``variant`` or an ``option`` is pulled only when that is chosen. Several parts may fill
    one component; the first names its source, format and licence. ``settings`` become JSON files of the pack,
    by their paths: what reads the part is told by them how.
    """

    model_config = ConfigDict(extra="forbid")

    component: str
    variant: str | None = None
    option: str | None = None
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = None
    format: str
    licence: str = Field(pattern=r"^\S+$")
    licence_url: str
    commercial_use: bool
    seen: list[str]
    files: list[EntryFile]
    settings: dict[InnerPath, dict[str, Any]] = Field(default_factory=dict)

    @property
    def about_bytes(self) -> int:
        """Its size as far as it is known; the small files rarely are."""
        return sum(file.bytes or file.about_bytes or 0 for file in self.files)


class Entry(BaseModel):
    """A pack that can be pulled. The first variant is the default; options are left out unless asked for.

    ``faces`` becomes ``faces/faces.json``: how the face networks of the pack are run.
    """

    model_config = ConfigDict(extra="forbid")

    pack: Pack
    variants: dict[str, str] = Field(default_factory=dict)
    options: dict[str, str] = Field(default_factory=dict)
    faces: FacesFile | None = None
    parts: list[Part]

    @field_validator("pack")
    @classmethod
    def _plain_name(cls, pack: Pack) -> Pack:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", pack.name):
            raise ValueError(f"{pack.name!r} cannot be the name of a folder")
        return pack

    @property
    def name(self) -> str:
        return self.pack.name

    def variant(self, asked: str | None) -> str | None:
        """The variant ``asked`` for, else the default one.

        Raises:
            InvalidInput: there is no such variant.
        """
        if asked is not None and asked not in self.variants:
            raise InvalidInput(
                f"{self.name} has no variant {asked!r}",
                hint="variants: " + (", ".join(self.variants) or "none, leave out --variant"),
            )
        return asked or next(iter(self.variants), None)

    def select(self, variant: str | None, options: Iterable[str]) -> list[Part]:
        """The parts of one variant and these options.

        Raises:
            InvalidInput: a variant or an option that this pack does not have.
        """
        chosen, wanted = self.variant(variant), set(options)
        for unknown in sorted(wanted - self.options.keys()):
            raise InvalidInput(
                f"{self.name} has no option {unknown!r}",
                hint="options: " + (", ".join(self.options) or "none, leave out --with"),
            )
        return [
            part
            for part in self.parts
            if part.variant in (None, chosen) and (part.option is None or part.option in wanted)
        ]


def catalogue() -> dict[str, Entry]:
    """Every pack that can be pulled, by name."""
    entries = [_read(file) for file in sorted(CATALOGUE.glob("*.json"))]
    return {entry.name: entry for entry in entries}


def find_entry(name: str) -> Entry:
    """The entry called ``name``, or the one in the file ``name``.

    Raises:
        NotFound: there is none; the hint lists those that there are.
        PackBroken: the file is not a catalogue entry.
    """
    if name.endswith(".json") and Path(name).is_file():
        return _read(Path(name))
    known = catalogue()
    if name not in known:
        raise NotFound(f"no pack called {name!r} can be pulled", hint="can be pulled: " + ", ".join(known))
    return known[name]


def _read(file: Path) -> Entry:
    try:
        return Entry.model_validate_json(file.read_bytes())
    except ValidationError as broken:
        first = broken.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PackBroken(
            f"{file} is not a catalogue entry: {place}: {first['msg']}",
            hint="oblik pack info NAME --json prints one that is",
        ) from broken
