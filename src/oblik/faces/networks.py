"""``faces.json``: which networks a face stack has, and what they want to see.

In: the file beside the networks. Out: a `FacesFile`. Knows no runtime and opens no network.

Every detector gives five landmarks in the order of `oblik.faces.stack.Face`. InsightFace's SCRFD and OpenCV's
YuNet have that order already: YuNet calls the eye on the left of the picture the person's right one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FACES = "faces.json"


class HeatmapDetector(BaseModel):
    """``threshold`` is the smallest score of a face; ``zoom`` the width of the second look in face widths."""

    model_config = ConfigDict(extra="forbid")

    file: str
    kind: Literal["heatmap"]
    size_px: int
    threshold: float
    zoom: float = 2.2


class AnchorDetector(BaseModel):
    """``size_px`` is the side of the square input, ``same_face`` the overlap (intersection over union) from
    which two finds are one face. Defaults are those of the detectors' authors."""

    model_config = ConfigDict(extra="forbid")

    file: str
    kind: Literal["scrfd", "yunet"]
    size_px: int = Field(640, ge=64, multiple_of=32)
    threshold: float
    same_face: float


class Embedder(BaseModel):
    """The network sees RGB, (x - mean) / std, and gives ``dims`` numbers.

    ArcFace and AuraFace: 127.5 and 127.5. SFace: 0 and 1, because it scales its input itself.
    """

    model_config = ConfigDict(extra="forbid")

    file: str
    size_px: Literal[112] = 112
    mean: float = 127.5
    std: float = Field(127.5, gt=0)
    dims: int


class FacesFile(BaseModel):
    """``name`` goes into records: embeddings of stacks with different names are never compared."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    detector: Annotated[HeatmapDetector | AnchorDetector, Field(discriminator="kind")]
    embedder: Embedder
