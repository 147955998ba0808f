"""The noun `Dataset`: one immutable, versioned preparation of a persona's photos.

What is written to ``personas/<slug>/datasets/<version>/dataset.json``. Every field that was added later has
a default, so that an old manifest is still read. Knows nothing of training.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oblik.errors import InvalidInput, NotFound
from oblik.photos.asymmetry import Asymmetry

MANIFEST = "dataset.json"
NOTE = "note"
"""The attribute that holds what a person should know about a photo; never a word of a caption."""


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


class Kind(str, Enum):
    """What a picture beside the photos is for: it stands for the noun, contrasts, or varies a photo."""

    class_image = "class"
    negative = "negative"
    augmented = "augmented"


class Augmentation(BaseModel):
    """How training photos are varied. ``copies`` of each; amounts are the largest deviation, drawn evenly.

    ``color`` changes brightness, contrast and warmth by that share, ``noise`` is a standard deviation in
    0..1, ``crop`` the share of the picture's side that may be cut away, ``shift`` the share it may move.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    copies: int = Field(0, ge=0, le=8)
    seed: int = 0
    color: float = Field(0.06, ge=0, le=0.2)
    noise: float = Field(0.012, ge=0, le=0.05)
    crop: float = Field(0.05, ge=0, le=0.15)
    shift: float = Field(0.04, ge=0, le=0.1)
    flip: bool = False


class Extra(BaseModel):
    """One picture beside the photos. ``origin`` is a file name, a pack and prompt, or the hash of the photo
    that it varies; ``seed`` is what it was drawn from."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    path: str
    sha256: str
    width_px: int
    height_px: int
    bucket: str
    caption: str
    origin: str
    seed: int | None = None
    mask: str | None = None


class Photo(BaseModel):
    """One source file. ``path``, ``bucket``... are set only for accepted photos.

    ``decision`` is what the user said about it, ``edited`` whether the caption is the user's own; ``thumb``
    is a small picture of one that is not in the dataset.
    """

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
    edited: bool = False
    decision: str = ""
    thumb: str | None = None
    group: int | None = None
    landmarks: list[tuple[float, float]] | None = None
    attributes: dict[str, str] = Field(default_factory=dict)
    flags: dict[str, float] = Field(default_factory=dict)


class Dataset(BaseModel):
    """All photos of one version. ``embeddings`` names an .npz: source_sha256 -> (D,) unit vector.

    ``files`` is the hash of every file of the version but this one. ``asymmetry`` says whether the face may
    be mirrored. ``synthetic``: the face stack knows only rendered people.
    """

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
    extras: list[Extra] = Field(default_factory=list)
    augmentation: Augmentation = Augmentation()
    asymmetry: Asymmetry | None = None
    caption_source: str = "words"
    synthetic: bool = False
    files: dict[str, str] = Field(default_factory=dict)

    def extra(self, kind: Kind) -> list[Extra]:
        """The pictures of one kind beside the photos, in order."""
        return [extra for extra in self.extras if extra.kind is kind]

    def accepted(self, *splits: Split) -> list[Photo]:
        """Accepted photos of the given splits (of all splits when none is given), in order."""
        wanted = set(splits or Split)
        return [p for p in self.photos if p.status is Status.accepted and p.split in wanted]


def read_dataset(folder: Path) -> Dataset:
    """Read ``folder/dataset.json``.

    Raises:
        NotFound: there is none.
        InvalidInput: it is damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise NotFound(f"there is no dataset in {folder}", hint="oblik dataset list")
    try:
        return Dataset.model_validate_json(file.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as broken:
        raise InvalidInput(f"{file} is damaged", hint="oblik dataset verify") from broken


def face_vectors(folder: Path, dataset: Dataset, *splits: Split) -> NDArray[np.float32]:
    """Unit face vectors (N, D) of the accepted photos of the given splits, in order; misses left out."""
    with np.load(folder / dataset.embeddings, allow_pickle=False) as arrays:
        known = {name: arrays[name] for name in arrays.files}
    found = [known[p.source_sha256] for p in dataset.accepted(*splits) if p.source_sha256 in known]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, 0), np.float32)
