"""From landmark heatmaps to sub-pixel points.

In: logits of five heatmaps (5, H, W). Out: points in heatmap pixels (integer = centre of a cell), peaks.
Knows no network and no image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Maps_5HW = NDArray[np.float32]
RADIUS = 2
FURTHEST = 1.5
FLOOR = 1e-4

_DOWN, _ACROSS = (axis.ravel() for axis in np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(float))
_DESIGN = np.stack([np.ones_like(_ACROSS), _ACROSS, _DOWN, _ACROSS**2 + _DOWN**2], axis=1)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logistic function that does not overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64))), np.float64)


def decode(logits_5HW: Maps_5HW) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (5, 2) as x, y in heatmap pixels, and the peak probability (5,) of each map."""
    found = [peak(map_HW) for map_HW in sigmoid(logits_5HW)]
    return np.array([(x, y) for x, y, _ in found]), np.array([height for _, _, height in found])


def peak(map_HW: NDArray[np.float64]) -> tuple[float, float, float]:
    """The highest place of one map, to a fraction of a pixel: (x, y, height of the highest pixel).

    In a 5x5 window the logarithm of a round Gaussian is a paraboloid: a + b x + c y + d (x^2 + y^2), fitted
    with weights p^2 (Guo, "A simple algorithm for fitting a Gaussian function", 2011); the top is at
    -b/2d, -c/2d. Unlike the window's centre of mass this is unbiased for wide peaks. Where the map has
    no top there (d >= 0) the centre of mass is taken.
    """
    row, column = np.unravel_index(int(np.argmax(map_HW)), map_HW.shape)
    padded = np.pad(map_HW, RADIUS)
    window = padded[row : row + 2 * RADIUS + 1, column : column + 2 * RADIUS + 1].ravel()
    across, down = _top(window)
    return float(column + across), float(row + down), float(map_HW[row, column])


def _top(window: NDArray[np.float64]) -> tuple[float, float]:
    weighted = _DESIGN * (window**2)[:, None]
    normal, right = weighted.T @ _DESIGN, weighted.T @ np.log(np.maximum(window, FLOOR))
    _, b, c, d = np.linalg.lstsq(normal, right, rcond=None)[0]
    if d < -1e-6:
        across, down = -b / (2 * d), -c / (2 * d)
    else:
        mass = max(float(window.sum()), 1e-12)
        across, down = window @ _ACROSS / mass, window @ _DOWN / mass
    return float(np.clip(across, -FURTHEST, FURTHEST)), float(np.clip(down, -FURTHEST, FURTHEST))
