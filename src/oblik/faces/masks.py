"""Soft masks of a face from its five landmarks.

In: landmarks, image size. Out: (H, W) uint8, 255 on the face, feathered to 0.
Knows nothing of skin, hair or occlusion: a mask is an ellipse, turned and scaled with the face.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oblik.faces.align import ARCFACE_52, similarity
from oblik.faces.stack import Points_52

Mask_HW = NDArray[np.uint8]
ELLIPSE_CENTRE_2 = np.array([56.0, 66.0])
ELLIPSE_RADII_2 = np.array([44.0, 54.0])
"""Hairline to chin and ear to ear, in pixels of the 112x112 template."""
OUTLINE = 1.15
"""Grown by this the ellipse reaches the outline of the face; a dataset's mask stays a little inside of it."""


def face_mask(
    landmarks: Points_52, width_px: int, height_px: int, *, grow: float = 1.0, feather: float = 0.15
) -> Mask_HW:
    """An ellipse from hairline to chin. ``grow`` scales it; ``feather`` is the width of the soft rim
    as a part of the ellipse's radius (0 is a hard edge). 255 inside, 0 outside, half on the outline."""
    to_template = similarity(landmarks, ARCFACE_52)
    turn_22 = to_template[:, :2] / (ELLIPSE_RADII_2 * grow)[:, None]
    shift_2 = (to_template[:, 2] - ELLIPSE_CENTRE_2) / (ELLIPSE_RADII_2 * grow)
    columns_1W, rows_H1 = np.arange(width_px)[None, :], np.arange(height_px)[:, None]
    across_HW = turn_22[0, 0] * columns_1W + turn_22[0, 1] * rows_H1 + shift_2[0]
    down_HW = turn_22[1, 0] * columns_1W + turn_22[1, 1] * rows_H1 + shift_2[1]
    radius_HW = np.hypot(across_HW, down_HW)
    rim = max(feather, 1e-9)
    t = np.clip((1.0 + rim / 2 - radius_HW) / rim, 0.0, 1.0)
    return np.asarray(np.rint(255 * t * t * (3 - 2 * t)), np.uint8)
