"""Face stack for real photographs from dlib: HOG detector, 68 landmarks, 128-d residual network.

In: RGB images. Out: faces and unit embeddings. Opens no connection: networks lie inside the package
``face_recognition_models``.

What to know about it (King, "Dlib-ml", 2009; davisking/dlib-models):
- Its descriptors were trained for Euclidean distance (0.6 for the same person, 0.99 on LFW) and are not of
  unit length. Oblik normalises them and compares cosines; they crowd near 1 (unrelated people about 0.8
  to 0.9), so thresholds lie much higher than those of ArcFace-kind stacks. Calibrate, never compare.
- The HOG detector finds faces of 40 px and more that look towards the camera; profiles and covered
  faces are often missed.
- The landmark model was trained on iBUG 300-W, whose licence excludes commercial use.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from oblik.errors import BackendUnavailable
from oblik.faces.stack import Face, Image_HW3, Points_52, Unit_D

try:
    import dlib
except ImportError as missing:
    raise BackendUnavailable(
        f"the dlib face stack cannot be loaded: {missing}", hint="pip install 'oblik[dlib]'"
    ) from missing

LANDMARKS = "shape_predictor_68_face_landmarks.dat"
EMBEDDER = "dlib_face_recognition_resnet_model_v1.dat"
LARGEST_PX = 1600
"""Longer pictures are searched in a reduced copy; landmarks are placed in the picture itself."""
FIVE_OF_68 = ((36, 42), (42, 48), (30, 31), (48, 49), (54, 55))
"""Ranges of the 68 points whose mean is an eye, the nose tip or a mouth corner."""


class DlibStack:
    """``DlibStack()``; ``upsample`` doublings find faces from 40 px (1) or 20 px (2) instead of 80 px (0).

    Detections with a margin under ``threshold`` are dropped: at dlib's own 0 folds of cloth pass for faces.
    """

    name = "dlib-resnet-v1"

    def __init__(self, *, upsample: int = 1, threshold: float = 0.2) -> None:
        folder = _models()
        self.upsample = upsample
        self.threshold = threshold
        self._detector: Any = dlib.get_frontal_face_detector()
        self._landmarks: Any = dlib.shape_predictor(str(folder / LANDMARKS))
        self._embedder: Any = dlib.face_recognition_model_v1(str(folder / EMBEDDER))

    def detect(self, image: Image_HW3) -> list[Face]:
        """Faces, best first. The score is the detector's margin, not a probability."""
        pixels = np.ascontiguousarray(image)
        shrink = max(1.0, max(image.shape[:2]) / LARGEST_PX)
        size = (round(image.shape[1] / shrink), round(image.shape[0] / shrink))
        small = pixels if shrink == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        boxes, scores, _ = self._detector.run(small, self.upsample, self.threshold)
        grown = [dlib.rectangle(*(round(shrink * side) for side in _box(box))) for box in boxes]
        faces = [
            Face(_box(box), self._five(pixels, box), float(score))
            for box, score in zip(grown, scores, strict=True)
        ]
        return sorted(faces, key=lambda face: -face.score)

    def embed(self, image: Image_HW3, face: Face) -> Unit_D:
        """The descriptor of the face in ``face.box``, normalised. dlib aligns it with its own 68 points."""
        pixels = np.ascontiguousarray(image)
        shape = self._landmarks(pixels, dlib.rectangle(*(round(side) for side in face.box)))
        descriptor = np.array(self._embedder.compute_face_descriptor(pixels, shape), np.float64)
        unit_D: Unit_D = np.asarray(descriptor / np.linalg.norm(descriptor), np.float32)
        return unit_D

    def _five(self, pixels: Image_HW3, box: Any) -> Points_52:
        parts = self._landmarks(pixels, box).parts()
        points = np.array([(p.x, p.y) for p in parts], np.float32)
        return np.stack([points[first:end].mean(axis=0) for first, end in FIVE_OF_68])


def _box(rectangle: Any) -> tuple[float, float, float, float]:
    left, top, right, bottom = rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()
    return (float(left), float(top), float(right), float(bottom))


def _models() -> Path:
    """The folder of the networks. The package is found, not imported: it needs the removed pkg_resources."""
    spec = find_spec("face_recognition_models")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "models"
        if (folder / LANDMARKS).is_file() and (folder / EMBEDDER).is_file():
            return folder
    raise BackendUnavailable(
        "the dlib face stack needs the package face_recognition_models", hint="pip install 'oblik[dlib]'"
    )
