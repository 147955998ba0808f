"""The noun `Dataset`: one immutable, versioned preparation of a persona's photos.

What is written to ``personas/<slug>/datasets/<version>/dataset.json``. Knows nothing of training.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Status(str, Enum):
    """What became of a file: in the dataset, kept out with a reason, or unreadable."""

    accepted = "accepted"
    set_aside = "set_aside"
    refused = "refused"


class Split(str, Enum):
    """``train`` teaches, ``validation`` chooses, ``stress`` and ``validation`` measure likeness."""

    train = "train"
    validation = "validation"
    stress = "stress"


class Photo(BaseModel):
    """One source file. ``path``, ``bucket``... are set only for accepted photos."""

    model_config = ConfigDict(extra="forbid")

    source: str
    source_sha256: str
    status: Status
    reason: str = ""
    path: str | None = None
    sha256: str | None = None
    mask: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    bucket: str | None = None
    split: Split | None = None
    caption: str = ""
    group: int | None = None
    landmarks: list[tuple[float, float]] | None = None
    attributes: dict[str, str] = Field(default_factory=dict)
    flags: dict[str, float] = Field(default_factory=dict)


class Dataset(BaseModel):
    """All photos of one version. ``embeddings`` names an .npz: source_sha256 -> (D,) unit vector."""

    model_config = ConfigDict(extra="forbid")

    persona: str
    version: str
    trigger: str
    class_noun: str
    created_at: datetime
    consent_sha256: str
    face_stack: str
    short_side_px: int
    embeddings: str
    photos: list[Photo]
    tools: dict[str, str] = Field(default_factory=dict)

    def accepted(self, *splits: Split) -> list[Photo]:
        """Accepted photos of the given splits (of all splits when none is given), in order."""
        wanted = set(splits or Split)
        return [p for p in self.photos if p.status is Status.accepted and p.split in wanted]


def read_dataset(folder: Path) -> Dataset:
    """Read ``folder/dataset.json``."""
    return Dataset.model_validate_json((folder / "dataset.json").read_text(encoding="utf-8"))


def face_vectors(folder: Path, dataset: Dataset, *splits: Split) -> NDArray[np.float32]:
    """Unit face vectors (N, D) of the accepted photos of the given splits, in order; misses left out."""
    with np.load(folder / dataset.embeddings, allow_pickle=False) as arrays:
        known = {name: arrays[name] for name in arrays.files}
    found = [known[p.source_sha256] for p in dataset.accepted(*splits) if p.source_sha256 in known]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, 0), np.float32)
