"""Aspect-ratio buckets and face-centred crops.

In: a pack's native size, side multiple and bucket names; the landmarks of a face. Out: the bucket that a
photo goes to, and the similarity that cuts the head out of the photo at the bucket's size. One scale for
both axes, always: faces are never stretched, not even by the rounding of a photo that was decoded at a
reduced size (see `through`). Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """A size that training batches are made of: ``3:4``, or ``3:4@512`` beside a larger one of its kind."""

    name: str
    width_px: int
    height_px: int

    @property
    def ratio(self) -> float:
        return self.width_px / self.height_px

    @property
    def short_px(self) -> int:
        return min(self.width_px, self.height_px)

    @property
    def folder(self) -> str:
        """The name as part of a path."""
        return self.name.replace(":", "x").replace("@", "-")


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

    A name may carry a short side of its own: ``3:4@512``. Raises InvalidInput for a name that is not a ratio.
    """
    found = []
    for name in names:
        ratio, _, own = name.partition("@")
        if ratio not in RATIOS or not ((own.isdecimal() and int(own)) or not own):
            raise InvalidInput(f"no bucket is called {name!r}", hint=f"known: {', '.join(RATIOS)}")
        across, down = RATIOS[ratio]
        short, short_px = min(across, down), int(own or native_px)
        sides = [
            max(1, round(short_px * side / short / multiple_px)) * multiple_px for side in (across, down)
        ]
        found.append(Bucket(name, *sides))
    return found


def buckets_of_training(native_px: int, multiple_px: int, training: Mapping[str, Any]) -> list[Bucket]:
    """The buckets of a pack's ``training`` table: its ``buckets`` (all ratios when it names none), at the
    native size and at each of its smaller ``resolutions_px``."""
    names = list(training.get("buckets", RATIOS))
    smaller = [px for px in training.get("resolutions_px", ()) if px < native_px]
    return buckets_of(native_px, multiple_px, names + [f"{name}@{px}" for px in smaller for name in names])


def choose_bucket(width_px: int, height_px: int, buckets: Sequence[Bucket]) -> Bucket:
    """The bucket whose ratio is nearest to the photo's, on a logarithmic scale; of twins the smallest."""
    ratio = math.log(width_px / height_px)

    def distance(bucket: Bucket) -> tuple[float, int, str]:
        across, down = RATIOS[bucket.name.partition("@")[0]]
        return abs(math.log(across / down) - ratio), bucket.short_px, bucket.name

    return min(buckets, key=distance)


def fit(
    landmarks: Points_52, width_px: int, height_px: int, chosen: Bucket, buckets: Sequence[Bucket]
) -> tuple[Bucket, Crop]:
    """The largest bucket of ``chosen``'s ratio that the head fills without being enlarged, and its crop;
    ``chosen`` itself when there is none."""
    ratio = chosen.name.partition("@")[0]
    twins = [bucket for bucket in buckets if bucket.name.partition("@")[0] == ratio]
    for bucket in sorted(twins, key=lambda bucket: -bucket.short_px):
        crop = crop_head(landmarks, width_px, height_px, bucket)
        if crop.scale <= 1.0:
            return bucket, crop
    return chosen, crop_head(landmarks, width_px, height_px, chosen)


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


def crop_middle(width_px: int, height_px: int, bucket: Bucket) -> Crop:
    """The largest crop of a picture without a face, in its middle."""
    height = min(float(height_px), width_px / bucket.ratio)
    width = height * bucket.ratio
    return Crop((width_px - width) / 2, (height_px - height) / 2, width, height, bucket.height_px / height)


def through(crop: Crop, photo_px: tuple[int, int], reduced_px: tuple[int, int]) -> Affine_23:
    """``crop.affine()`` for a copy of the photo that was decoded smaller: reduced copy -> bucket.

    Whole pixels make the copy's two scales differ a little; this matrix takes that back, so the way from
    the photo to the bucket has one scale.
    """
    across, down = (full / reduced for full, reduced in zip(photo_px, reduced_px, strict=True))
    enlarge_33 = np.array([[across, 0.0, (across - 1) / 2], [0.0, down, (down - 1) / 2], [0.0, 0.0, 1.0]])
    return np.asarray(crop.affine() @ enlarge_33)
