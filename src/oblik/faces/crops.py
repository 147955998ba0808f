"""What an editing network is shown of a face: the head of a reference photo, and a frame without its face.

In: an image, five landmarks or a mask. Out: images. Both are made here so that training and drawing show the
same. Knows nothing of networks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oblik.faces.align import ARCFACE_52, similarity, warp
from oblik.faces.stack import Image_HW3, Points_52

HEAD_CENTRE_2 = np.array([56.0, 62.0])
HEAD_SIDE = 128.0
"""The square around a head, in pixels of the 112x112 template: hairline to below the chin."""
GREY = 128


def head_crop(image_HW3: Image_HW3, landmarks: Points_52, side_px: int) -> Image_HW3:
    """The head, upright, as a square of ``side_px``."""
    affine = similarity(landmarks, ARCFACE_52)
    affine[:, 2] -= HEAD_CENTRE_2 - HEAD_SIDE / 2
    return warp(image_HW3, affine * (side_px / HEAD_SIDE), side_px, side_px)


def hide(image_HW3: Image_HW3, mask_HW: NDArray[np.uint8]) -> Image_HW3:
    """The image, grey wherever the mask is not empty: nobody's features are left under it."""
    return np.where(mask_HW[..., None] > 0, np.uint8(GREY), image_HW3)
