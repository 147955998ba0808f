"""The noun `Record`: a plan as it really ran. One ``record.json`` beside the pictures.

Holds nothing that the plan does not need to run again, and nothing that names the person beyond
the persona's slug.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from oblik.errors import InvalidInput, NotFound
from oblik.generation.plan import Plan
from oblik.labels import Label, Labeller, Source, fingerprint
from oblik.packs.manifest import Pack
from oblik.paths import atomic_write, sha256_file

FILE_NAME = "record.json"


class Picture(BaseModel):
    """One finished image: the hash of its labelled file, that of its pixels, which a replay compares.

    ``likeness`` is None until measured; ``face_found`` tells a miss apart. ``pixels_sha256`` is None in
    records that are older than labels.
    """

    model_config = ConfigDict(extra="forbid")

    file: str
    seed: int
    sha256: str
    pixels_sha256: str | None = None
    likeness: float | None = None
    face_found: bool | None = None


Kind = Literal["rung", "degradation", "lack", "flag", "note"]
FLAG, USUAL = "collect more photos / retrain", "reliable by itself"
"""Names of steps: nothing above the threshold is left to climb to; nobody asked for the mode by its name."""


class Step(BaseModel):
    """What befell a plan, with the reason. ``rung``: it was raised for likeness; ``degradation``: something
    of it was given up; ``lack``: what could not be had; ``flag``: somebody should act; ``note``: all else.

    Steps of older records are sorted by their names. ``guards`` is what the guards found beside the likeness.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    reason: str
    kind: Kind
    likeness_before: float | None = None
    likeness_after: float | None = None
    guards: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _sorted(cls, values: Any) -> Any:
        if isinstance(values, dict) and "kind" not in values:
            rung = values.get("likeness_after") is not None
            return {**values, "kind": "rung" if rung else _kind_of(str(values.get("name", "")))}
        return values


def _kind_of(name: str) -> Kind:
    """What a step is by the names that were given before kinds were."""
    if re.match(r"\d ", name):
        return "rung"
    if name in ("pose", "edit", "reference") or name.endswith("memory plan"):
        return "note"
    return "lack" if name == "not available" else "flag" if name == FLAG else "degradation"


class Guards(BaseModel):
    """What was found beside the likeness of a batch, in words: whether pictures are too close to one training
    photo (``suspects``), and whether strangers of the same prompts look like the person. What was
    not measured says so."""

    model_config = ConfigDict(extra="forbid")

    copying: str
    suspects: list[str]
    bleed: str

    @property
    def words(self) -> str:
        return f"{self.copying}; {self.bleed}"


class Restoration(BaseModel):
    """What was done to the faces of the batch ``of``: ``weight`` of a network's face was blended in.

    Likeness is the mean over the pictures that had passed; ``dropped`` of them no longer did.
    """

    model_config = ConfigDict(extra="forbid")

    of: str
    network: str
    weights_sha256: str
    weight: float
    likeness_before: float
    likeness_after: float
    dropped: int


class Record(BaseModel):
    """What ran, with what, for how long, and how alike it came out. ``pack_sha256`` stands for every
    file of the pack (`pack_sha256`); ``machine`` names processor, card and driver; ``face_stack`` found the
    faces that references draw, and measured them. What older records do not know is None or empty there.
    ``advice`` is what to do where even the last rung was not enough."""

    model_config = ConfigDict(extra="forbid")

    plan: Plan
    asked: Plan
    started_at: datetime
    token_ids: list[int]
    prompt_ids: list[int]
    lora_sha256: str | None
    token_sha256: str | None = None
    text_encoder_sha256: str | None = None
    references_sha256: dict[str, str] = Field(default_factory=dict)
    edit_sha256: dict[str, str] = Field(default_factory=dict)
    pack_version: str
    pack_sha256: str | None = None
    libraries: dict[str, str]
    machine: dict[str, str] = Field(default_factory=dict)
    face_stack: str | None = None
    device: str
    free_vram_bytes: int | None
    seconds: dict[str, float]
    steps: list[Step] = Field(default_factory=list)
    pictures: list[Picture]
    grid: str | None = None
    threshold: float | None = None
    guards: Guards | None = None
    advice: list[str] = Field(default_factory=list)
    restoration: Restoration | None = None


def pack_sha256(pack: Pack) -> str:
    """One hash for the names and hashes of all files of a pack, as its manifest lists them."""
    files = [file for part in pack.components.values() for file in part.files]
    lines = "".join(sorted(f"{file.sha256}  {file.path}\n" for file in files))
    return hashlib.sha256(lines.encode()).hexdigest()


def keep_picture(image: Image.Image, path: Path, seed: int, plan: Plan, labels: Labeller) -> Picture:
    """Write a picture of ``plan`` with its label, and say what the record says of it."""
    pixels = fingerprint(image)
    labels.save(image, path, label_for(plan, f"{FILE_NAME}#{pixels}"))
    return Picture(file=path.name, seed=seed, sha256=sha256_file(path), pixels_sha256=pixels)


def label_for(plan: Plan, record: str = FILE_NAME) -> Label:
    """What pictures of a plan, and contact sheets of them, say of themselves."""
    return Label(source=Source.edited if plan.edit else Source.made, record=record, prompt=plan.prompt)


def write_record(record: Record, folder: Path) -> Path:
    """Write ``folder/record.json`` and return its path."""
    path = folder / FILE_NAME
    atomic_write(path, record.model_dump_json(indent=2) + "\n")
    return path


def read_record(place: Path) -> Record:
    """Read a record by its file or by its folder.

    Raises:
        NotFound: there is none.
        InvalidInput: the file is not a record.
    """
    path = place / FILE_NAME if place.is_dir() else place
    if not path.is_file():
        raise NotFound(
            f"there is no record at {path}", hint='make pictures first: oblik generate "in a park"'
        )
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as broken:
        raise InvalidInput(
            f"{path} is not a record: {broken.errors()[0]['msg']}", hint="oblik replay --help"
        ) from broken
