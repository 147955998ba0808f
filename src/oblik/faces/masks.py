"""Soft masks of a face from its five landmarks.

In: landmarks, image size. Out: (H, W) uint8, 255 on the face, feathered to 0.
Knows nothing of skin, hair or occlusion: a mask is an ellipse, turned and scaled with the face, and moved
towards the near cheek as the head turns away.
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
NOSE_AHEAD = 0.51
"""How far the tip of the nose lies before the eyes, in distances between them: measured on rendered heads."""
SHIFT_PX, NARROWING = 26.0, 0.8
"""Of a head turned by a: the centre moves by SHIFT_PX sin a in the template, the width loses
NARROWING (1 - cos a). Chosen on rendered heads for the overlap with the skin of the face that is seen."""
MOST_TURNED = np.pi / 4
"""What is turned further gets the mask of this angle."""


def face_mask(
    landmarks: Points_52, width_px: int, height_px: int, *, grow: float = 1.0, feather: float = 0.15
) -> Mask_HW:
    """An ellipse from hairline to chin. ``grow`` scales it; ``feather`` is the width of the soft rim
    as a part of the ellipse's radius (0 is a hard edge). 255 inside, 0 outside, half on the outline."""
    to_template, yaw = similarity(landmarks, ARCFACE_52), yaw_of(landmarks)
    radii_2 = grow * ELLIPSE_RADII_2 * (1 - NARROWING * (1 - np.cos(yaw)), 1)
    turn_22 = to_template[:, :2] / radii_2[:, None]
    shift_2 = (to_template[:, 2] - ELLIPSE_CENTRE_2 + (SHIFT_PX * np.sin(yaw), 0)) / radii_2
    columns_1W, rows_H1 = np.arange(width_px)[None, :], np.arange(height_px)[:, None]
    across_HW = turn_22[0, 0] * columns_1W + turn_22[0, 1] * rows_H1 + shift_2[0]
    down_HW = turn_22[1, 0] * columns_1W + turn_22[1, 1] * rows_H1 + shift_2[1]
    radius_HW = np.hypot(across_HW, down_HW)
    rim = max(feather, 1e-9)
    t = np.clip((1.0 + rim / 2 - radius_HW) / rim, 0.0, 1.0)
    return np.asarray(np.rint(255 * t * t * (3 - 2 * t)), np.uint8)


def yaw_of(landmarks: Points_52) -> float:
    """How far the head is turned to the picture's right, in radians, up to `MOST_TURNED`: from where the nose
    stands between the eyes, across the line from the middle of the eyes to the middle of the mouth."""
    left_2, right_2, nose_2, *mouth = np.asarray(landmarks, np.float64)
    eyes_2 = (left_2 + right_2) / 2
    down_2 = (mouth[0] + mouth[1]) / 2 - eyes_2
    off, apart = (float(down_2[1] * x - down_2[0] * y) for x, y in (nose_2 - eyes_2, right_2 - left_2))
    return float(np.clip(np.arctan2(off, NOSE_AHEAD * max(apart, 0.0)), -MOST_TURNED, MOST_TURNED))
