"""The noun `Record`: a plan as it really ran. One ``record.json`` beside the pictures.

Holds nothing that the plan does not need to run again, and nothing that names the person beyond
the persona's slug.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oblik.errors import InvalidInput, NotFound
from oblik.generation.plan import Plan
from oblik.paths import atomic_write

FILE_NAME = "record.json"


class Picture(BaseModel):
    """One finished image. ``likeness`` is None until measured; ``face_found`` tells a miss apart."""

    model_config = ConfigDict(extra="forbid")

    file: str
    seed: int
    sha256: str
    likeness: float | None = None
    face_found: bool | None = None


class Step(BaseModel):
    """A rung or degradation that changed the plan, with the reason."""

    model_config = ConfigDict(extra="forbid")

    name: str
    reason: str
    likeness_before: float | None = None
    likeness_after: float | None = None


class Record(BaseModel):
    """What ran, with what, for how long, and how alike it came out."""

    model_config = ConfigDict(extra="forbid")

    plan: Plan
    asked: Plan
    started_at: datetime
    token_ids: list[int]
    prompt_ids: list[int]
    lora_sha256: str | None
    references_sha256: dict[str, str] = Field(default_factory=dict)
    edit_sha256: dict[str, str] = Field(default_factory=dict)
    pack_version: str
    libraries: dict[str, str]
    device: str
    free_vram_bytes: int | None
    seconds: dict[str, float]
    steps: list[Step] = Field(default_factory=list)
    pictures: list[Picture]
    grid: str | None = None
    threshold: float | None = None


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
