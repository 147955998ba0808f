"""Face stack from two ONNX networks and a ``faces.json``: the miniature's, or those that a pack brings.

In: RGB images. Out: faces and unit embeddings. Knows no pack beyond its folder of files; detectors lie beside
it. The embedder has one input (N, 3, 112, 112), N free or 1, and its first output is (N, D), of any length.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from oblik.errors import PackBroken
from oblik.faces.align import ALIGNED_PX, align_112
from oblik.faces.backends.detectors import open_detector
from oblik.faces.backends.sessions import REPAIR, fits, open_session, unfit
from oblik.faces.networks import FACES, FacesFile
from oblik.faces.stack import Face, Image_HW3, Unit_D

BATCH = 64


class OnnxStack:
    """``OnnxStack(folder)`` reads ``folder/faces.json``. Raises PackBroken when a file is unfit."""

    def __init__(self, folder: Path | str, *, threads: int = 1) -> None:
        self.folder = Path(folder)
        try:
            text = (self.folder / FACES).read_text(encoding="utf-8")
            self.files = FacesFile.model_validate_json(text)
        except (OSError, ValidationError) as error:
            raise PackBroken(f"{self.folder / FACES}: {error}", hint=REPAIR) from error
        self.name = self.files.name
        self._detector = open_detector(self.folder, self.files.detector, threads)
        path, dims = self.folder / self.files.embedder.file, self.files.embedder.dims
        self._embedder = open_session(path, threads)
        inputs, outputs = self._embedder.get_inputs(), self._embedder.get_outputs()
        if not (
            len(inputs) == 1
            and fits(inputs[0].shape[1:], [3, ALIGNED_PX, ALIGNED_PX])
            and fits(outputs[0].shape[1:], [dims])
        ):
            raise unfit(path, self._embedder, f"faces of 112 px and embeddings of {dims}")
        self._ends = (inputs[0].name, outputs[0].name)
        self._batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else BATCH

    def detect(self, image: Image_HW3) -> list[Face]:
        """Faces, best first."""
        return self._detector.detect(image)

    def embed(self, image: Image_HW3, face: Face) -> Unit_D:
        """Unit embedding: the aligned face and its mirror image, summed and normalised."""
        unit_D: Unit_D = self.embed_aligned(align_112(image, face.landmarks)[None])[0]
        return unit_D

    def embed_aligned(self, aligned_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit embeddings (N, D) of faces already aligned to 112x112."""
        if aligned_NHW3.shape[1:] != (ALIGNED_PX, ALIGNED_PX, 3):
            raise ValueError(f"aligned faces are (N, 112, 112, 3), not {aligned_NHW3.shape}")
        if not len(aligned_NHW3):
            return np.empty((0, self.files.embedder.dims), np.float32)
        starts = range(0, len(aligned_NHW3), self._batch)
        sums_ND = np.concatenate([self._both_ways(aligned_NHW3[i : i + self._batch]) for i in starts])
        return np.asarray(sums_ND / np.maximum(np.linalg.norm(sums_ND, axis=1, keepdims=True), 1e-12))

    def _both_ways(self, aligned_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        embedder, (face, embedding) = self.files.embedder, self._ends
        faces_N3HW = (aligned_NHW3.transpose(0, 3, 1, 2).astype(np.float32) - embedder.mean) / embedder.std
        plain_ND, mirrored_ND = (
            self._embedder.run([embedding], {face: np.ascontiguousarray(faces)})[0]
            for faces in (faces_N3HW, faces_N3HW[..., ::-1])
        )
        return np.asarray(plain_ND + mirrored_ND, np.float32)
