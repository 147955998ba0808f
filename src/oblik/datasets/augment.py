"""Small variations of training photos: light colour jitter, noise, crop and shift.

In: a picture, its face mask, an `Augmentation`, the hash of the photo and the number of the copy. Out: the
varied picture and mask, the same ones every time. One scale for both axes. A flip is refused unless a face
was measured to be symmetric: a mole or a parting on the wrong side is another person. Knows nothing of
files.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.datasets.manifest import Augmentation
from oblik.errors import InvalidInput
from oblik.photos.asymmetry import Asymmetry

Image_HW3 = NDArray[np.uint8]
Mask_HW = NDArray[np.uint8]
MOST = 0.3
"""Share of the side that crop and shift together may take."""


@dataclass(frozen=True)
class Variation:
    """One draw: the window (share of the side, centre's shift as a share) and the colours."""

    window: float
    shift_x: float
    shift_y: float
    brightness: float
    contrast: float
    warmth: float
    flip: bool

    def affine(self, width_px: int, height_px: int) -> NDArray[np.float64]:
        """Picture -> varied picture, 2x3, of the same size; one scale, turned by nothing."""
        s = 1.0 / self.window
        centre_x = (0.5 + self.shift_x) * width_px - 0.5
        centre_y = (0.5 + self.shift_y) * height_px - 0.5
        return np.array(
            [
                [s, 0.0, (width_px - 1) / 2 - s * centre_x],
                [0.0, s, (height_px - 1) / 2 - s * centre_y],
            ]
        )


def refuse_flips(settings: Augmentation, asymmetry: Asymmetry) -> None:
    """Raise InvalidInput when flips are asked for a face that was not measured to be symmetric."""
    if settings.flip and not asymmetry.flips_allowed:
        raise InvalidInput(asymmetry.sentence(), hint="leave --flip out: oblik dataset build PHOTOS")


def draw(settings: Augmentation, sha256: str, number: int) -> tuple[Variation, np.random.Generator]:
    """What copy ``number`` of a photo gets, and the generator that its noise comes from."""
    rng = np.random.default_rng([settings.seed, int(sha256[:12] or "0", 16), number])
    crop = float(rng.uniform(0, settings.crop))
    shift_x, shift_y = (float(value) for value in rng.uniform(-settings.shift, settings.shift, 2))
    window = 1.0 - min(MOST, max(crop, 2 * abs(shift_x), 2 * abs(shift_y)))
    brightness, contrast, warmth = (float(v) for v in rng.uniform(-settings.color, settings.color, 3))
    flip = bool(rng.random() < 0.5) and settings.flip
    return Variation(window, shift_x, shift_y, brightness, contrast, warmth, flip), rng


def vary(
    image: Image_HW3, mask: Mask_HW, settings: Augmentation, sha256: str, number: int
) -> tuple[Image_HW3, Mask_HW]:
    """Copy ``number`` of a picture and of its mask."""
    drawn, rng = draw(settings, sha256, number)
    height_px, width_px = image.shape[:2]
    affine = drawn.affine(width_px, height_px)
    moved, face = (
        cv2.warpAffine(
            layer, affine, (width_px, height_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        for layer in (image, mask)
    )
    pixels = moved.astype(np.float64) / 255.0
    middle = pixels.mean()
    pixels = (middle + (pixels - middle) * (1 + drawn.contrast)) * (1 + drawn.brightness)
    pixels = pixels * (1 + drawn.warmth * np.array([1.0, 0.0, -1.0]))
    pixels += rng.normal(0.0, settings.noise, pixels.shape)
    varied = np.asarray(np.rint(255 * np.clip(pixels, 0, 1)), np.uint8)
    face = np.asarray(face, np.uint8)
    return (varied[:, ::-1].copy(), face[:, ::-1].copy()) if drawn.flip else (varied, face)
