"""From the outputs of an anchor-based detector to finds, and from many finds to one for each face.

In: arrays of scores, distances and offsets. Out: boxes, landmarks, scores in pixels of the network's input.
Knows no network and no image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

STRIDES = (8, 16, 32)
ANCHORS = 2
"""SCRFD has two equal anchors in every cell."""


@dataclass(frozen=True)
class Finds:
    """Boxes (N, 4) as left, top, right, bottom, landmarks (N, 5, 2) and scores (N,)."""

    boxes_N4: NDArray[np.float64]
    landmarks_N52: NDArray[np.float64]
    scores_N: NDArray[np.float64]


def scrfd_shapes(size_px: int) -> list[tuple[int, int]]:
    """Shapes (anchors, numbers) of SCRFD's nine outputs: three of scores, of boxes, of landmarks."""
    return [(ANCHORS * (size_px // s) ** 2, numbers) for numbers in (1, 4, 10) for s in STRIDES]


def decode_scrfd(outputs: Sequence[NDArray[np.float32]], size_px: int, threshold: float) -> Finds:
    """Finds with a score of at least ``threshold`` in outputs of `scrfd_shapes`.

    Guo et al., "Sample and Computation Redistribution for Efficient Face Detection" (2022): an anchor stands
    at the corner (stride * column, stride * row) of its cell. In strides, its box is given by the distances
    to the left, top, right and bottom edge, its landmarks by their offsets. Scores are probabilities.
    """
    boxes, landmarks, scores = [], [], []
    for level, stride in enumerate(STRIDES):
        score_N = outputs[level].reshape(-1).astype(np.float64)
        (hits,) = np.nonzero(score_N >= threshold)
        rows, columns = np.divmod(hits // ANCHORS, size_px // stride)
        anchors_N2 = stride * np.stack([columns, rows], axis=1).astype(np.float64)
        edges_N4 = stride * outputs[level + 3][hits].astype(np.float64)
        offsets_N52 = stride * outputs[level + 6][hits].reshape(-1, 5, 2).astype(np.float64)
        boxes.append(np.concatenate([anchors_N2 - edges_N4[:, :2], anchors_N2 + edges_N4[:, 2:]], axis=1))
        landmarks.append(anchors_N2[:, None] + offsets_N52)
        scores.append(score_N[hits])
    return Finds(np.concatenate(boxes), np.concatenate(landmarks), np.concatenate(scores))


def suppress(finds: Finds, same_face: float) -> Finds:
    """Non-maximum suppression: of finds that overlap by more than ``same_face`` the best; best first."""
    if not len(finds.scores_N):
        return finds
    sides_N4 = np.concatenate([finds.boxes_N4[:, :2], finds.boxes_N4[:, 2:] - finds.boxes_N4[:, :2]], axis=1)
    kept = np.asarray(cv2.dnn.NMSBoxes(sides_N4.tolist(), finds.scores_N.tolist(), 0.0, same_face), np.intp)
    return Finds(finds.boxes_N4[kept], finds.landmarks_N52[kept], finds.scores_N[kept])
