"""A frame that is edited: what may change in it, how softly, and the part of it that is worked on.

In: pixels, a mask, a pack's native size. Out: an alpha map, the window around it with the size that it is
drawn at, a larger canvas. Everything here is pure. Knows nothing of faces, files and networks.

H height, W width; masks and alpha maps are uint8, 255 where everything may change, 0 where nothing may.
"""

from __future__ import annotations

import math
import re

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.errors import InvalidInput

Frame_HW3 = NDArray[np.uint8]
Mask_HW = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""
AROUND = 2.2
"""A window is so many times as long as what may change: the network sees the surroundings too."""
RIM_SHARE = 1 / 32
"""The soft rim of a hard mask, and the seam of a larger canvas, as a share of the shorter side."""
LEAST_PX = 64
"""No side is drawn smaller than a plan allows."""
MOST = 4
"""A canvas has at most so many times the frame's width and height."""
HINT = "oblik edit --help"


def alpha_map(mask_HW: Mask_HW) -> Mask_HW:
    """How much of the new picture is taken where. Zero wherever the mask is zero.

    A mask with grey levels is an alpha map already; one of black and white fades inside its outline.
    """
    levels = np.unique(mask_HW)
    if not levels.any():
        raise InvalidInput("the mask is black: nothing may change", hint=HINT)
    if len(levels) > 2 or levels.max() < 255:
        return mask_HW.copy()
    rim_px = max(1.0, min(mask_HW.shape) * RIM_SHARE)
    whole = cv2.copyMakeBorder(mask_HW, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inward_HW = cv2.distanceTransform(whole, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    if not (whole == 0).any():
        return mask_HW.copy()
    return np.asarray(np.rint(255 * np.clip(inward_HW / rim_px, 0, 1)), np.uint8)


def window(alpha_HW: Mask_HW, native_px: int, multiple_px: int) -> tuple[Box, tuple[int, int]]:
    """The part of a frame that is worked on, and the (width, height) that it is drawn at.

    A frame that is not larger than the pack's native size is worked on whole. The drawn size has about the
    area that the pack is made for, in the window's own shape.
    """
    height, width = alpha_HW.shape
    rows, columns = (np.flatnonzero(alpha_HW.any(axis=axis)) for axis in (1, 0))
    (top, bottom), (left, right) = ((int(found[0]), int(found[-1]) + 1) for found in (rows, columns))
    longest_px = max(AROUND * max(bottom - top, right - left), native_px)
    spans = [
        _span(low, high, side, longest_px)
        for low, high, side in ((left, right, width), (top, bottom, height))
    ]
    (left, right), (top, bottom) = spans
    across, down = right - left, bottom - top
    scale = native_px / math.sqrt(across * down)
    least = math.ceil(LEAST_PX / multiple_px) * multiple_px
    size = tuple(max(least, round(side * scale / multiple_px) * multiple_px) for side in (across, down))
    return (left, top, right, bottom), (size[0], size[1])


def outpainted(frame_HW3: Frame_HW3, alpha_HW: Mask_HW, asked: str) -> tuple[Frame_HW3, Mask_HW]:
    """A larger canvas with the frame on it, and its alpha map: the space around, and the frame's own map.

    ``asked`` is pixels for every side (``64``), for left, top, right, bottom (``0,0,128,0``), or an aspect
    (``16:9``). A rim of the frame belongs to the mask, so that the seam fades; the rest of it stays.
    """
    height, width = frame_HW3.shape[:2]
    left, top, right, bottom = _added(asked, width, height)
    if (
        not left + top + right + bottom
        or max((left + right + width) / width, (top + bottom + height) / height) > MOST
    ):
        raise InvalidInput(
            f"--outpaint {asked} of a frame of {width}x{height} px adds nothing, or makes a side more than "
            f"{MOST} times as long",
            hint=HINT,
        )
    canvas = cv2.copyMakeBorder(frame_HW3, top, bottom, left, right, cv2.BORDER_REPLICATE)
    rim = max(1, round(min(width, height) * RIM_SHARE))
    mask_HW = np.full(canvas.shape[:2], 255, np.uint8)
    rows = slice(top + rim * bool(top), top + height - rim * bool(bottom))
    columns = slice(left + rim * bool(left), left + width - rim * bool(right))
    mask_HW[rows, columns] = 0
    own_HW = cv2.copyMakeBorder(alpha_HW, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(canvas, np.uint8), np.maximum(alpha_map(mask_HW), own_HW)


def paste(frame_HW3: Frame_HW3, drawn_HW3: NDArray[np.floating], alpha_HW: Mask_HW, box: Box) -> Frame_HW3:
    """The frame with a drawn window (0..1, any size) in it; where alpha is 0, the frame's own bytes."""
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    drawn = np.asarray(drawn_HW3, np.float32)
    if drawn.shape[1::-1] != size:
        smaller = drawn.shape[1] > size[0]
        drawn = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    result = frame_HW3.copy()
    inside, share = result[top:bottom, left:right], alpha_HW[top:bottom, left:right, None] / 255
    mixed = inside + share * (255 * drawn.clip(0, 1) - inside)
    result[top:bottom, left:right] = np.where(share > 0, np.rint(mixed), inside).astype(np.uint8)
    return result


def cut(pixels: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A window of a frame or of an alpha map, in the (width, height) that it is drawn at."""
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    if part.shape[1::-1] == size:
        return part.copy()
    smaller = part.shape[1] > size[0]
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))


def _span(low: int, high: int, side: int, length_px: float) -> tuple[int, int]:
    """A stretch of ``length_px`` around the middle of low..high, moved into 0..side."""
    length = min(side, max(high - low, round(length_px)))
    start = round((low + high - length) / 2)
    start = min(max(0, start), side - length)
    return start, start + length


def _added(asked: str, width: int, height: int) -> tuple[int, int, int, int]:
    """Pixels on the left, above, on the right, below."""
    if aspect := re.fullmatch(r"(\d{1,3}):(\d{1,3})", asked):
        across, down = int(aspect[1]), int(aspect[2])
        if not across or not down:
            raise InvalidInput(f"{asked!r} is no aspect", hint=HINT)
        wide = max(0, round(height * across / down) - width)
        tall = max(0, round(width * down / across) - height)
        return wide // 2, tall // 2, wide - wide // 2, tall - tall // 2
    if re.fullmatch(r"\d{1,5}(,\d{1,5}){3}|\d{1,5}", asked):
        sides = [int(part) for part in asked.split(",")]
        left, top, right, bottom = sides if len(sides) == 4 else sides * 4
        return left, top, right, bottom
    raise InvalidInput(f"{asked!r} is neither pixels nor an aspect such as 16:9", hint=HINT)
