"""Aspect-ratio buckets and face-centred crops.

In: a pack's native size, side multiple and bucket names; the landmarks of a face. Out: the bucket that a
photo goes to, and the similarity that cuts the head out of the photo at the bucket's size. One scale for
both axes, always: faces are never stretched. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oblik.errors import InvalidInput
from oblik.faces.stack import Points_52
from oblik.photos.quality import face_unit, yaw_deg

RATIOS = {
    "1:1": (1, 1), "3:4": (3, 4), "2:3": (2, 3), "9:16": (9, 16),
    "4:3": (4, 3), "3:2": (3, 2), "16:9": (16, 9),
}  # fmt: skip
HEAD_HEIGHT, HEAD_WIDTH, MARGIN = 3.6, 2.6, 1.4
EYES_AT = 0.42
TURNED_BACK = 1.1
"""Head sizes in units of `face_unit`; a head turned to profile reaches 1.1 units behind its eyes."""

Affine_23 = NDArray[np.float64]


@dataclass(frozen=True)
class Bucket:
    """A size that training batches are made of."""

    name: str
    width_px: int
    height_px: int

    @property
    def ratio(self) -> float:
        return self.width_px / self.height_px


@dataclass(frozen=True)
class Crop:
    """A rectangle of the photo, in its pixels; ``scale`` is bucket pixels per photo pixel."""

    left: float
    top: float
    width: float
    height: float
    scale: float

    def affine(self) -> Affine_23:
        """Photo -> bucket; an integer coordinate is the centre of a pixel."""
        s = self.scale
        return np.array([[s, 0.0, s * (0.5 - self.left) - 0.5], [0.0, s, s * (0.5 - self.top) - 0.5]])


def buckets_of(native_px: int, multiple_px: int, names: Sequence[str] = tuple(RATIOS)) -> list[Bucket]:
    """The buckets by name: short side about ``native_px``, both sides multiples of ``multiple_px``.

    Raises InvalidInput for a name that is not a ratio.
    """
    found = []
    for name in names:
        if name not in RATIOS:
            raise InvalidInput(f"no bucket is called {name!r}", hint=f"known: {', '.join(RATIOS)}")
        across, down = RATIOS[name]
        short = min(across, down)
        sides = [
            max(1, round(native_px * side / short / multiple_px)) * multiple_px for side in (across, down)
        ]
        found.append(Bucket(name, *sides))
    return found


def choose_bucket(width_px: int, height_px: int, buckets: Sequence[Bucket]) -> Bucket:
    """The bucket whose ratio is nearest to the photo's, on a logarithmic scale."""
    ratio = math.log(width_px / height_px)
    return min(buckets, key=lambda bucket: (abs(math.log(bucket.ratio) - ratio), bucket.name))


def crop_head(landmarks: Points_52, width_px: int, height_px: int, bucket: Bucket) -> Crop:
    """The head with a 40 % margin, eyes 42 % from the top; shifted, then shrunk, to stay in the photo."""
    unit = face_unit(landmarks)
    eyes = landmarks[:2].mean(axis=0)
    middle = float(eyes[0]) - TURNED_BACK * unit * math.sin(math.radians(yaw_deg(landmarks)))
    height = max(HEAD_HEIGHT, HEAD_WIDTH / bucket.ratio) * MARGIN * unit
    height = min(height, height_px, width_px / bucket.ratio)
    width = height * bucket.ratio
    left = min(max(middle - width / 2, 0.0), width_px - width)
    top = min(max(float(eyes[1]) - EYES_AT * height, 0.0), height_px - height)
    return Crop(left, top, width, height, bucket.height_px / height)
