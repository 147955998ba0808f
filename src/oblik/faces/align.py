"""Similarity alignment of a face by its five landmarks.

In: landmarks in pixels (an integer coordinate is the centre of a pixel, as in OpenCV), an image.
Out: 2x3 affine matrices and aligned crops. Knows no detector and no embedder.

The 112x112 template is the one ArcFace (Deng et al., 2019) and most open embedders are trained with.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.errors import InvalidInput
from oblik.faces.stack import Image_HW3, Points_52

ALIGNED_PX = 112
ARCFACE_52: Points_52 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)
"""Where eyes, nose tip and mouth corners lie in the aligned 112x112 crop."""
FACE_CENTRE_12 = np.array([[56.0, 66.0]])
FACE_HALF_2 = np.array([38.0, 46.0])
"""Centre and half sides of the face in the template: brows to chin, temple to temple."""

Affine_23 = NDArray[np.float64]
Points_N2 = NDArray[np.floating]


def similarity(source: Points_N2, target: Points_N2) -> Affine_23:
    """The rotation, uniform scale and shift that takes ``source`` closest to ``target``.

    Least squares without reflection: Umeyama (1991), equations 39-43. Shapes (N, 2), N >= 2.
    Raises InvalidInput when all source points coincide.
    """
    x, y = np.asarray(source, np.float64), np.asarray(target, np.float64)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    variance = ((x - mean_x) ** 2).sum() / len(x)
    if not np.isfinite(variance) or variance < 1e-12:
        raise InvalidInput("the landmarks of this face coincide", hint="detect the face again")
    u, d, vt = np.linalg.svd((y - mean_y).T @ (x - mean_x) / len(x))
    s = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * s) @ vt
    scale = (d * s).sum() / variance
    shift = mean_y - scale * rotation @ mean_x
    return np.concatenate([scale * rotation, shift[:, None]], axis=1)


def transform(affine: Affine_23, points: Points_N2) -> Points_N2:
    """Map points (N, 2) through a 2x3 matrix."""
    return np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]


def inverse(affine: Affine_23) -> Affine_23:
    """The matrix that undoes ``affine``."""
    undone = np.linalg.inv(affine[:, :2])
    return np.concatenate([undone, -(undone @ affine[:, 2])[:, None]], axis=1)


def scale_of(affine: Affine_23) -> float:
    """The uniform scale of a similarity."""
    return float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))


def warp(image: Image_HW3, affine: Affine_23, width_px: int, height_px: int) -> Image_HW3:
    """Resample ``image`` through ``affine`` (source -> target), edge pixels repeated outside.

    Bilinear sampling alone would alias below half size, so strong reductions halve the image first.
    """
    affine = np.asarray(affine, np.float64)
    while scale_of(affine) < 0.5 and min(image.shape[:2]) >= 4:
        height, width = (side // 2 for side in image.shape[:2])
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        affine = affine @ np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
    size = (width_px, height_px)
    warped = cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def align_112(image: Image_HW3, landmarks: Points_52) -> Image_HW3:
    """The face as the embedder sees it: (112, 112, 3) uint8, upright, eyes on the template."""
    return warp(image, similarity(landmarks, ARCFACE_52), ALIGNED_PX, ALIGNED_PX)


def face_box(landmarks: Points_52) -> tuple[float, float, float, float]:
    """Brows to chin, temple to temple: (left, top, right, bottom) from the five landmarks."""
    to_image = inverse(similarity(landmarks, ARCFACE_52))
    (x, y), half = transform(to_image, FACE_CENTRE_12)[0], scale_of(to_image) * FACE_HALF_2
    return (float(x - half[0]), float(y - half[1]), float(x + half[0]), float(y + half[1]))
