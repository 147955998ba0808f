"""Whether a face differs from its mirror image: a mole on one cheek, a parting, a crooked brow.

In: near-frontal photos of one person with landmarks. Out: one number per persona, and a sentence about
flips. Knows nothing of what the difference is.

Faces are brought to one place; light that falls from one side is taken out by dividing by a broad blur.
Light, turn and background differ from photo to photo and fall out; what belongs to the person stays:
- the strongest small dark spot on cheeks and forehead, over what is usual there, that seven of ten photos
  show within a few pixels (landmarks are never exact) and whose mirror place shows none;
- the difference of the hair: of the part that changes sign in the mirror, (I - mirror I) / 2, the median
  over the photos.
Not guaranteed: a mole that is small, pale, or under hair or make-up is missed, and so is a parting in hair of
one even tone; some freckles pass for a mole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.faces.align import ARCFACE_52, similarity, warp
from oblik.faces.stack import Image_HW3, Points_52

WIDE_PX, HIGH_PX, ABOVE_PX = 128, 152, 32
WITHIN_PX, UNSEEN = 2, 0.3
MIN_PHOTOS, MAX_PHOTOS = 8, 60
TURNED_DEG, FEWEST_PX = 14.0, 28.0
EVEN_PX, SPOT_PX, AROUND_PX, LOCK_PX = 9.0, 0.8, 2.5, 3.0
LEAST = 0.002
SPOT_LIMIT, HAIR_LIMIT = 2.5, 0.08
"""Of 28 rendered people with a mole anywhere on the face 18 come above, of the same people without it 9 (ten
photos each, landmarks off by half a pixel); half of them were not looked at when the limit was chosen."""
CHEEK, FOREHEAD, HAIR = (42, 107, 11, 13), (58, 66, 16, 7), (64, 44, 44, 34)
"""Ellipses in the aligned face: middle across, middle down, half width, half height."""

Face_HW = NDArray[np.float16]


@dataclass(frozen=True)
class Asymmetry:
    """``spot`` is the strongest one-sided spot on the skin over the usual, ``hair`` the difference between
    the sides of the hair in log brightness; both None when there are too few near-frontal photos to say."""

    spot: float | None
    hair: float | None
    photos: int

    @property
    def flips_allowed(self) -> bool:
        """Never without a measurement."""
        measured = self.spot is not None and self.hair is not None
        return measured and (self.spot or 0) < SPOT_LIMIT and (self.hair or 0) < HAIR_LIMIT

    def sentence(self) -> str:
        """For a report."""
        if self.spot is None or self.hair is None:
            return (
                f"Mirrored copies are off: {self.photos} near-frontal photos are too few ({MIN_PHOTOS} are"
                " needed) to tell whether both sides of the face are alike."
            )
        measured = (
            f"spot {self.spot:.1f}, limit {SPOT_LIMIT:.1f}; hair {self.hair:.2f}, limit {HAIR_LIMIT:.2f}; "
            f"{self.photos} photos"
        )
        if self.flips_allowed:
            return (
                f"Both sides of the face look alike ({measured}). Mirrored copies stay off unless asked for."
            )
        return f"The two sides of the face differ ({measured}): mirrored copies are not possible."


def compared(image: Image_HW3, landmarks: Points_52, yaw_deg: float) -> Face_HW | None:
    """`aligned`, or None for a head that is turned or whose eyes are nearer than FEWEST_PX to each other."""
    near = float(np.linalg.norm(landmarks[1] - landmarks[0])) < FEWEST_PX
    return None if near or abs(yaw_deg) > TURNED_DEG else aligned(image, landmarks)


def aligned(image: Image_HW3, landmarks: Points_52) -> Face_HW:
    """The face and the hair above it, eyes level and in the middle, light evened out: HIGH_PX x WIDE_PX."""
    level = ARCFACE_52 - (56.0, 0.0)
    place = (level + level[[1, 0, 2, 4, 3]] * (-1, 1)) / 2 + (WIDE_PX / 2 - 0.5, ABOVE_PX)
    face = warp(image, similarity(landmarks, place), WIDE_PX, HIGH_PX)
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0 + 0.05
    return np.asarray(np.log(grey / cv2.GaussianBlur(grey, (0, 0), EVEN_PX)), np.float16)


def measure_asymmetry(faces: Sequence[Face_HW]) -> Asymmetry:
    """Compare near-frontal faces of one person, MAX_PHOTOS of them at most, with their mirror images."""
    if len(faces) < MIN_PHOTOS:
        return Asymmetry(None, None, len(faces))
    some = [face.astype(np.float32) for face in faces[:: -(-len(faces) // MAX_PHOTOS)]]
    odd_NHW = np.stack([(face - face[:, ::-1]) / 2 for face in some])
    locks = np.median([_blur(odd, LOCK_PX) for odd in odd_NHW], axis=0)
    hair = float(np.quantile(np.abs(locks[_left_of(HAIR)]), 0.95))
    return Asymmetry(round(_spot(some), 2), round(hair, 3), len(some))


def _spot(faces: Sequence[NDArray[np.float32]]) -> float:
    """The strongest dark spot without a partner on the other side, over the usual darkness of spots."""
    near = np.ones((2 * WITHIN_PX + 1, 2 * WITHIN_PX + 1), np.uint8)
    seen = [cv2.dilate(_blur(face, AROUND_PX) - _blur(face, SPOT_PX), near) for face in faces]
    stays = np.maximum(np.quantile(seen, UNSEEN, axis=0), 0).astype(np.float32)
    alone = stays - cv2.dilate(stays, near)[:, ::-1]
    left = _left_of(CHEEK) | _left_of(FOREHEAD)
    skin = left | left[:, ::-1]
    return float(max(alone[skin].max(), 0) / (np.median(stays[skin]) + LEAST))


def _blur(values: NDArray[np.float32], px: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), px), np.float32)


def _left_of(ellipse: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """One side of an ellipse, clear of the middle line; the other side is its mirror image."""
    x, y, across, down = ellipse
    rows, columns = np.mgrid[:HIGH_PX, :WIDE_PX]
    inside = ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 < 1
    return np.asarray(inside & (columns < WIDE_PX // 2 - 2), np.bool_)
