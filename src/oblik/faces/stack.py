"""The face stack: detect -> align -> embed, one for dataset, adapters and measurement.

In: RGB images. Out: faces with five landmarks and unit embeddings. Knows nothing of personas.
What face embeddings do *not* guarantee: a cosine is evidence of likeness, not proof of identity,
and its scale differs between stacks and groups of people; thresholds are calibrated, never assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oblik.registry import load

Image_HW3 = NDArray[np.uint8]
Points_52 = NDArray[np.float32]
Unit_D = NDArray[np.float32]


@dataclass(frozen=True)
class Face:
    """One detected face. Coordinates in pixels of the image; landmarks in the order eye on the
    left of the image, eye on the right, nose tip, mouth corner left, mouth corner right."""

    box: tuple[float, float, float, float]
    landmarks: Points_52
    score: float


class FaceStack(Protocol):
    """What every backend offers. ``name`` goes into records; embeddings of different names never meet."""

    name: str

    def detect(self, image: Image_HW3) -> list[Face]:
        """Faces of an RGB image, best first."""
        ...

    def embed(self, image: Image_HW3, face: Face) -> Unit_D:
        """The unit embedding (D,) of one face, aligned to 112x112 by its landmarks."""
        ...


BACKENDS = {"onnx": "oblik.faces.backends.onnx:OnnxStack", "dlib": "oblik.faces.backends.dlib:DlibStack"}
EXTRAS = {"dlib": "dlib"}
TOLD_COSINES = {"dlib-resnet-v1": 0.91}
"""Name of a stack -> the cosine under which its makers call two faces two people, where they say so. It
serves only where no strangers were measured. dlib: a distance of 0.6 between descriptors of length 1.4
(1.27 to 1.51 were found), so 1 - 0.6^2 / (2 * 1.4^2)."""


def open_stack(backend: str, **options: Any) -> FaceStack:
    """Open a face stack by backend name (``onnx`` takes ``folder=`` with a ``faces.json``)."""
    stack: FaceStack = load("face stack", backend, BACKENDS, EXTRAS)(**options)
    return stack
