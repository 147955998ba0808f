"""Which photos have the same place behind the head.

In: an image and a face. Out: a `Backdrop`, a few mean colours of what is beside and above the head; and, for
many of them, a number each: equal numbers look alike. Knows nothing of what a place is called.
Not guaranteed: two white walls are one place, and one room under two lights is two.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.faces.stack import Face, Image_HW3

Backdrop = NDArray[np.float32]
CELLS = 6
NEAR = 14.0
"""Mean distance in CIE Lab at which two places still pass for one; 2.3 is a just noticeable difference."""


def backdrop_of(image: Image_HW3, face: Face) -> Backdrop:
    """Mean Lab colours of CELLS x 2 cells left and right of the head, and of the strip above: (13, 3)."""
    small = cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    left, _, right, bottom = face.box
    wide = (right - left) * 0.35
    across, down = 96 / image.shape[1], 96 / image.shape[0]
    first = int(np.clip((left - wide) * across, 4, 92))
    last = int(np.clip((right + wide) * across, first + 1, 92))
    under = int(np.clip(bottom * down, 12, 96))
    rows = np.array_split(np.arange(under), CELLS)
    cells = [
        side[rows_in].reshape(-1, 3).mean(axis=0)
        for side in (lab[:, :first], lab[:, last:])
        for rows_in in rows
    ]
    return np.stack([*cells, lab[:4].reshape(-1, 3).mean(axis=0)]).astype(np.float32)


def same_backdrops(backdrops: Sequence[Backdrop]) -> list[int]:
    """A number for each: that of the first one that looks alike."""
    leaders_LC3 = np.empty((len(backdrops), 2 * CELLS + 1, 3), np.float32)
    numbers: list[int] = []
    known = 0
    for backdrop in backdrops:
        apart_L = np.linalg.norm(leaders_LC3[:known] - backdrop, axis=2).mean(axis=1)
        nearest = int(np.argmin(apart_L)) if known else -1
        if nearest < 0 or apart_L[nearest] > NEAR:
            leaders_LC3[known] = backdrop
            nearest, known = known, known + 1
        numbers.append(nearest)
    return numbers
