"""What is said about an identity adapter: how it is trained, and the manifest of a finished one.

In: settings, people. Out: nouns. The adapter itself is a small network that reads a face vector as a word
(`oblik.diffusion.identity`). Knows nothing of tensors and of where photos come from.

N pictures, D face vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from oblik.faces.stack import Points_52

MANIFEST = "adapter.json"
WORD = "<|oblik_reference|>"
"""What stands in a caption where the face's word will."""


class AdapterConfig(BaseModel):
    """Settings of a run. ``name_noise`` blurs the face vectors, whose length is 1; image tokens on the face
    count ``face_weight`` times as much; ``hidden`` 0 is the width of the text encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    steps: int = Field(2000, ge=1)
    batch: int = Field(8, ge=1, le=256)
    learning_rate: float = Field(1e-3, gt=0)
    hidden: int = Field(0, ge=0)
    name_noise: float = Field(0.04, ge=0)
    face_weight: float = Field(3.0, ge=1)
    checkpoint_every: int = Field(50, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Portrait:
    """A picture of somebody's face, what it shows beside the person (`WORD` in the person's place), and the
    mean face vector of the same person's *other* pictures."""

    pixels_HW3: NDArray[np.uint8]
    landmarks: Points_52
    caption: str
    vector_D: NDArray[np.float32]


class AdapterManifest(BaseModel):
    """``adapter.json`` beside the weights: what they are, and what they were made from."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["identity-tokens"] = "identity-tokens"
    pack: str
    pack_version: str
    face_stack: str
    file: str
    sha256: str
    source: str
    people: int
    pictures: int
    config: AdapterConfig
    losses: dict[int, float]
    created_at: datetime
