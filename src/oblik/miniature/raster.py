"""Camera and rasteriser: where points land and which of them stay visible.

In: grids or lists of points and a `Shot`'s pose and framing.  Out: pixels of
points, and for each pixel the index of its nearest point.  It does not know
what the points belong to, nor colours or light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.miniature.shots import Shot

F32 = NDArray[np.float32]
Arr = NDArray[Any]

CAMERA = 15.0  # distance of the camera from the head
PIVOT = np.array([0.0, -0.80, -0.20], np.float32)
FRAME = {"close-up": (0.305, 0.46), "head and shoulders": (0.262, 0.44), "half length": (0.165, 0.36)}


def enlarge(grid: F32, factor: float) -> F32:
    """A grid with more points."""
    if factor == 1.0:
        return grid
    size = (round(grid.shape[1] * factor), round(grid.shape[0] * factor))
    out: F32 = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    return out


def rotation(yaw: float, pitch: float, roll: float) -> F32:
    """Turn to the image's right, then up, then lean."""
    y, x, z = np.radians([yaw, -pitch, -roll])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(rz @ rx @ ry, np.float32)


def turned(points: F32, turn: F32, pivot: F32) -> F32:
    """Points (n, 3) rotated about a pivot."""
    if not len(points):
        return points
    matrix = np.hstack([turn, (pivot - turn @ pivot)[:, None]]).astype(np.float32)
    out: F32 = cv2.transform(np.ascontiguousarray(points).reshape(-1, 1, 3), matrix).reshape(-1, 3)
    return out


@dataclass(frozen=True)
class View:
    """Where everything lands in the picture."""

    turn_head: F32
    turn_body: F32
    scale: float
    cx: float
    cy: float

    def place(self, pos: F32, follow: F32 | float) -> F32:
        """Turned points."""
        if isinstance(follow, float) and follow in (0.0, 1.0):
            return turned(pos, self.turn_head if follow else self.turn_body, PIVOT)
        body, with_head = turned(pos, self.turn_body, PIVOT), turned(pos, self.turn_head, PIVOT)
        return (
            body + (with_head - body) * np.float32(follow)
            if isinstance(follow, float)
            else body + (with_head - body) * follow
        )

    def project(self, pos: F32) -> tuple[F32, F32]:
        """Pixels of turned points."""
        s = self.scale * CAMERA / (CAMERA - pos[:, 2])
        return self.cx + s * pos[:, 0], self.cy - s * pos[:, 1]


def view(shot: Shot, width: int, height: int) -> View:
    """The camera of a shot."""
    rng = np.random.default_rng([shot.seed, 31])
    size, level = FRAME[shot.framing]
    unit = min(width, height * 0.85) if height > width else min(height, width)
    scale = size * unit * float(rng.uniform(0.94, 1.06))
    jitter = rng.uniform(-1, 1, 2) * np.array([0.05, 0.025])
    centre = PIVOT + np.array([0, 0.65, 0.25])
    head_turn = rotation(shot.yaw_deg, shot.pitch_deg, shot.roll_deg)
    middle = head_turn @ (centre - PIVOT) + PIVOT
    cx = width * (0.5 + jitter[0]) - 0.85 * scale * middle[0]
    lean = float(np.clip(shot.yaw_deg * 0.45, -35, 35))
    return View(
        head_turn,
        rotation(lean, 0, 0.12 * shot.roll_deg),
        scale,
        float(cx),
        float(height * (level + jitter[1]) + scale * middle[1]),
    )


def splat(px: F32, py: F32, z: F32, width: int, height: int) -> Arr:
    """The nearest point's index per pixel, -1 where there is none."""
    ix, iy = np.floor(px - 0.5).astype(np.int32), np.floor(py - 0.5).astype(np.int32)
    fine = np.clip((z + 2.5) * (65535 / 5.0), 0, 65535).astype(np.uint16)
    order = np.argsort(fine, kind="stable")
    at = (iy[order] + 1) * (width + 2) + ix[order] + 1
    buffer = np.full((height + 2) * (width + 2), -1, np.int32)
    spots = (at[:, None] + np.array([0, 1, width + 2, width + 3], np.int32)).reshape(-1)
    buffer[spots] = np.repeat(order.astype(np.int32), 4)
    return buffer.reshape(height + 2, width + 2)[1:-1, 1:-1]


def fill(index: Arr) -> Arr:
    """Close pinholes with a neighbour's point."""
    closed = cv2.morphologyEx((index >= 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        hole = (closed > 0) & (index < 0)
        if not hole.any():
            break
        index = np.where(hole, np.roll(index, (dy, dx), (0, 1)), index)
    return index
