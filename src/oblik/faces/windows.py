"""Where to look for faces in a picture, and which finds are the same face.

In: image sizes, boxes. Out: square windows, affine maps from a window to a network's input, kept finds.
Knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oblik.faces.align import ARCFACE_52, Affine_23, similarity, transform
from oblik.faces.stack import Face, Points_52

Window = tuple[float, float, float]
"""Centre x, centre y and side, in pixels of the image."""

SCAN_SCALES = (1.0, 0.6, 0.36)
SAME_FACE = 0.5
MOST_DISTORTED_PX = 18.0


def whole(width_px: int, height_px: int) -> Window:
    """The square round the whole picture: letterboxing."""
    return ((width_px - 1) / 2, (height_px - 1) / 2, float(max(width_px, height_px)))


def around(box: tuple[float, float, float, float], zoom: float) -> Window:
    """The square round a face, ``zoom`` times as wide as its box."""
    left, top, right, bottom = box
    return ((left + right) / 2, (top + bottom) / 2, zoom * (right - left))


def to_input(window: Window, size_px: int) -> Affine_23:
    """The map from image pixels to the pixels of a square input that shows just the window."""
    x, y, side = window
    scale, middle = size_px / side, (size_px - 1) / 2
    return np.array([[scale, 0.0, middle - scale * x], [0.0, scale, middle - scale * y]])


def corner(width_px: int, height_px: int, fit_px: float) -> tuple[Affine_23, int, int]:
    """The map that makes the long side of a picture ``fit_px``, and the sides of what comes out."""
    scale = fit_px / max(width_px, height_px)
    sides = (max(1, round(scale * width_px)), max(1, round(scale * height_px)))
    shift = (scale - 1) / 2
    return np.array([[scale, 0.0, shift], [0.0, scale, shift]]), *sides


def scan(width_px: int, height_px: int, smallest_px: float) -> list[Window]:
    """Overlapping windows at three scales of the short side, of at least ``smallest_px``, large first."""
    windows: list[Window] = []
    for scale in SCAN_SCALES:
        side = scale * min(width_px, height_px)
        if side < smallest_px:
            break
        windows += [(x, y, side) for y in _centres(height_px, side) for x in _centres(width_px, side)]
    return windows


def distinct(faces: Sequence[Face]) -> list[Face]:
    """Non-maximum suppression: of faces that overlap, the one with the best score; best first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(overlap(face.box, other.box) < SAME_FACE for other in kept):
            kept.append(face)
    return kept


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over the smaller box: 1 when one lies in the other, as points mixed from two faces do."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return shared / max(smaller, 1e-9)


def spread(landmarks: Points_52) -> bool:
    """Whether the points are numbers and do not lie on one spot."""
    return bool(np.isfinite(landmarks).all() and np.ptp(landmarks, axis=0).max() >= 1.0)


def plausible(landmarks: Points_52) -> bool:
    """Whether five points can be one face: not too far from the template after alignment.

    A full profile is 16 to 18 px away, random or mirrored points mostly further; the rest is up to the score.
    """
    if not spread(landmarks):
        return False
    off = transform(similarity(landmarks, ARCFACE_52), landmarks) - ARCFACE_52
    return float(np.sqrt((off**2).sum(axis=1).mean())) < MOST_DISTORTED_PX


def _centres(length_px: int, side: float) -> list[float]:
    steps = int(np.ceil((length_px - side) / (side / 2) - 1e-9)) + 1
    ends = ((side - 1) / 2, length_px - 1 - (side - 1) / 2)
    return [float(c) for c in (np.linspace(*ends, steps) if steps > 1 else [(length_px - 1) / 2])]
