"""Face stack from two ONNX networks and a ``faces.json``: the miniature's, or one that a pack brings.

In: RGB images. Out: faces and unit embeddings. Knows no pack beyond its folder of files.

Detector, kind ``heatmap``: input ``image`` (1, 3, S, S) RGB in [-1, 1]; outputs ``heatmaps`` (1, 5, S/2, S/2)
and ``presence`` (1, 1), both logits. Cell i of a heatmap is centred on input pixel 2 i + 0.5.
Embedder: input ``face`` (N, 3, 112, 112) RGB, (x - mean) / std; output ``embedding`` (N, D), any length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from oblik.errors import PackBroken
from oblik.faces.align import ALIGNED_PX, align_112, face_box, inverse, transform, warp
from oblik.faces.heatmaps import decode, sigmoid
from oblik.faces.stack import Face, Image_HW3, Unit_D
from oblik.faces.windows import Window, around, distinct, plausible, scan, to_input, whole

BATCH = 64
MOST_FACES = 16
FILLS = 1 / 3
"""A face this large, as a part of the short side, is taken for the subject: no search for more."""


class Detector(BaseModel):
    """``threshold`` is the smallest score of a face; ``zoom`` the width of the second look in face widths."""

    model_config = ConfigDict(extra="forbid")

    file: str
    kind: Literal["heatmap"]
    size_px: int
    threshold: float
    zoom: float = 2.2


class Embedder(BaseModel):
    """Input normalisation and output size."""

    model_config = ConfigDict(extra="forbid")

    file: str
    size_px: Literal[112] = 112
    mean: float = 127.5
    std: float = 127.5
    dims: int


class FacesFile(BaseModel):
    """``faces.json``."""

    model_config = ConfigDict(extra="forbid")

    name: str
    detector: Detector
    embedder: Embedder


class OnnxStack:
    """``OnnxStack(folder)`` reads ``folder/faces.json``. Raises PackBroken when a file is missing or unfit.

    The score of a face is the probability that one is there times the mean height of its five peaks.
    """

    def __init__(self, folder: Path | str, *, threads: int = 1) -> None:
        self.folder = Path(folder)
        try:
            text = (self.folder / "faces.json").read_text(encoding="utf-8")
            self.files = FacesFile.model_validate_json(text)
        except (OSError, ValidationError) as error:
            raise PackBroken(f"{self.folder / 'faces.json'}: {error}", hint="oblik pack verify") from error
        self.name = self.files.name
        self._detector = self._open(self.files.detector.file, {"image"}, {"heatmaps", "presence"}, threads)
        self._embedder = self._open(self.files.embedder.file, {"face"}, {"embedding"}, threads)

    def detect(self, image: Image_HW3) -> list[Face]:
        """Faces, best first; landmarks refined by a second look at each face.

        One look at the whole picture; unless a face fills a third of it, more looks through overlapping
        windows at three scales. Of two faces in one window the better one is seen.
        """
        height_px, width_px = image.shape[:2]
        detector = self.files.detector
        first = self._look(image, whole(width_px, height_px))
        refined = self._refine(image, [first] if first else [])
        if not any(self._fills(face, min(width_px, height_px)) for face in refined):
            windows = scan(width_px, height_px, detector.size_px / 2)
            finds = [face for window in windows if (face := self._look(image, window)) is not None]
            refined = distinct(refined + self._refine(image, distinct(finds)[:MOST_FACES]))
        return [face for face in refined if face.score >= detector.threshold]

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
        starts = range(0, len(aligned_NHW3), BATCH)
        sums_ND = np.concatenate([self._both_ways(aligned_NHW3[i : i + BATCH]) for i in starts])
        return np.asarray(sums_ND / np.maximum(np.linalg.norm(sums_ND, axis=1, keepdims=True), 1e-12))

    def _both_ways(self, aligned_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        embedder = self.files.embedder
        faces_N3HW = (aligned_NHW3.transpose(0, 3, 1, 2).astype(np.float32) - embedder.mean) / embedder.std
        plain_ND, mirrored_ND = (
            self._embedder.run(["embedding"], {"face": np.ascontiguousarray(faces)})[0]
            for faces in (faces_N3HW, faces_N3HW[..., ::-1])
        )
        return np.asarray(plain_ND + mirrored_ND, np.float32)

    def _look(self, image: Image_HW3, window: Window) -> Face | None:
        size_px = self.files.detector.size_px
        affine = to_input(window, size_px)
        pixels_HW3 = warp(image, affine, size_px, size_px)
        image_13HW = np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1)[None], np.float32) / 127.5 - 1
        logits_15HW, presence_11 = self._detector.run(["heatmaps", "presence"], {"image": image_13HW})
        cells_52, peaks_5 = decode(logits_15HW[0])
        landmarks = transform(inverse(affine), 2 * cells_52 + 0.5).astype(np.float32)
        if not plausible(landmarks):
            return None
        score = float(sigmoid(presence_11).item() * peaks_5.mean())
        return Face(face_box(landmarks), landmarks, score)

    def _refine(self, image: Image_HW3, faces: list[Face]) -> list[Face]:
        """Look again at each face, close up, and keep the look with the better score."""
        again = [self._look(image, around(face.box, self.files.detector.zoom)) for face in faces]
        pairs = zip(faces, again, strict=True)
        return distinct([near if near and near.score >= far.score else far for far, near in pairs])

    def _fills(self, face: Face, short_side_px: int) -> bool:
        large = face.box[3] - face.box[1] >= FILLS * short_side_px
        return large and face.score >= self.files.detector.threshold

    def _open(self, file: str, inputs: set[str], outputs: set[str], threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = self.folder / file
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception types are private
            raise PackBroken(
                f"cannot open the face network {path}: {error}", hint="oblik pack verify"
            ) from error
        has = ({i.name for i in session.get_inputs()}, {o.name for o in session.get_outputs()})
        if not (has[0] == inputs and outputs <= has[1]):
            raise PackBroken(
                f"{path} has inputs {sorted(has[0])} and outputs {sorted(has[1])}, not {sorted(inputs)} and "
                f"{sorted(outputs)}",
                hint="oblik pack verify",
            )
        return session
