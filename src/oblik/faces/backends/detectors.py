"""The three detectors that ``faces.json`` can name: ``heatmap``, ``scrfd`` and ``yunet``.

In: RGB images. Out: faces, best first. Each is built from (folder, its settings, threads) and has ``detect``.

- `heatmap`, the miniature's: input ``image`` (1, 3, S, S) RGB in [-1, 1]; outputs ``presence`` (1, 1) and
  ``heatmaps`` (1, 5, S/2, S/2), both logits. Cell i of a heatmap is centred on input pixel 2 i + 0.5.
- `scrfd`, InsightFace's (Guo et al., 2022): input (1, 3, S, S) RGB, (x - 127.5) / 128; nine outputs as in
  `oblik.faces.anchors`.
- `yunet`, OpenCV's (Wu et al., 2023), run and decoded by `cv2.FaceDetectorYN`, which takes BGR.

A picture is shrunk or enlarged to fit the input, in its upper left corner, the rest black.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from oblik.errors import PackBroken
from oblik.faces.align import face_box, inverse, transform, warp
from oblik.faces.anchors import Finds, decode_scrfd, scrfd_shapes, suppress
from oblik.faces.backends.sessions import REPAIR, fits, open_session, unfit
from oblik.faces.heatmaps import decode, sigmoid
from oblik.faces.networks import AnchorDetector, HeatmapDetector
from oblik.faces.stack import Face, Image_HW3
from oblik.faces.windows import (
    Window,
    around,
    corner,
    distinct,
    plausible,
    scan,
    spread,
    to_input,
    whole,
)  # fmt: skip

MOST_FACES = 16
SILENT = 0
FILLS = 1 / 3
"""A face this large, as a part of the short side, is taken for the subject: no search for more."""
LOOKS = (1.0, 0.5)
"""Parts of the input that the picture fills. Anchors end at some 400 px: a face that fills the picture is
seen in a smaller copy only, which is tried when there was none."""


class Detector(Protocol):
    """What finds faces for the stack."""

    def detect(self, image: Image_HW3) -> list[Face]: ...


class Heatmap:
    """The score of a face is the probability that one is there times the mean height of its five peaks.

    One look at the whole picture; unless a face fills a third of it, more looks through overlapping windows
    at three scales; a second look at each face refines it. Of two faces in one window the better one is seen.
    """

    def __init__(self, folder: Path, settings: HeatmapDetector, threads: int) -> None:
        self.settings = settings
        path = folder / settings.file
        self._net = open_session(path, threads)
        inputs, outputs = self._net.get_inputs(), self._net.get_outputs()
        if {i.name for i in inputs} != {"image"} or not {"heatmaps", "presence"} <= {o.name for o in outputs}:
            raise unfit(path, self._net, "image and heatmaps, presence")

    def detect(self, image: Image_HW3) -> list[Face]:
        height_px, width_px = image.shape[:2]
        first = self._look(image, whole(width_px, height_px))
        refined = self._refine(image, [first] if first else [])
        if not any(self._fills(face, min(width_px, height_px)) for face in refined):
            windows = scan(width_px, height_px, self.settings.size_px / 2)
            finds = [face for window in windows if (face := self._look(image, window)) is not None]
            refined = distinct(refined + self._refine(image, distinct(finds)[:MOST_FACES]))
        return [face for face in refined if face.score >= self.settings.threshold]

    def _look(self, image: Image_HW3, window: Window) -> Face | None:
        size_px = self.settings.size_px
        affine = to_input(window, size_px)
        pixels_HW3 = warp(image, affine, size_px, size_px)
        image_13HW = np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1)[None], np.float32) / 127.5 - 1
        logits_15HW, presence_11 = self._net.run(["heatmaps", "presence"], {"image": image_13HW})
        cells_52, peaks_5 = decode(logits_15HW[0])
        landmarks = transform(inverse(affine), 2 * cells_52 + 0.5).astype(np.float32)
        if not plausible(landmarks):
            return None
        score = float(sigmoid(presence_11).item() * peaks_5.mean())
        return Face(face_box(landmarks), landmarks, score)

    def _refine(self, image: Image_HW3, faces: list[Face]) -> list[Face]:
        """Look again at each face, close up, and keep the look with the better score."""
        again = [self._look(image, around(face.box, self.settings.zoom)) for face in faces]
        pairs = zip(faces, again, strict=True)
        return distinct([near if near and near.score >= far.score else far for far, near in pairs])

    def _fills(self, face: Face, short_side_px: int) -> bool:
        large = face.box[3] - face.box[1] >= FILLS * short_side_px
        return large and face.score >= self.settings.threshold


class _Anchored:
    """Looks at the whole picture, and at a smaller copy of it when nothing was found."""

    def __init__(self, settings: AnchorDetector) -> None:
        self.settings = settings

    def detect(self, image: Image_HW3) -> list[Face]:
        size_px = self.settings.size_px
        for part in LOOKS:
            affine, width_px, height_px = corner(image.shape[1], image.shape[0], part * size_px)
            canvas = np.zeros((size_px, size_px, 3), np.uint8)
            canvas[:height_px, :width_px] = warp(image, affine, width_px, height_px)
            finds = self.look(canvas)
            points_N52 = transform(inverse(affine), finds.landmarks_N52.reshape(-1, 2)).reshape(-1, 5, 2)
            pairs = zip(points_N52.astype(np.float32), finds.scores_N, strict=True)
            faces = [Face(face_box(p), p, float(score)) for p, score in pairs if spread(p)]
            if faces:
                return faces
        return []

    def look(self, canvas: Image_HW3) -> Finds:
        """Finds in the pixels of a square input, suppressed, best first."""
        raise NotImplementedError


class Scrfd(_Anchored):
    """``det_10g.onnx``, ``scrfd_*_bnkps.onnx``: outputs go by their order, their names are numbers."""

    def __init__(self, folder: Path, settings: AnchorDetector, threads: int) -> None:
        super().__init__(settings)
        self._path = folder / settings.file
        self._net = open_session(self._path, threads)
        size_px, inputs = settings.size_px, self._net.get_inputs()
        fit = len(inputs) == 1 and fits(inputs[0].shape, [1, 3, size_px, size_px])
        if not fit or len(self._net.get_outputs()) != 9:
            raise unfit(self._path, self._net, f"one image of {size_px} px and nine outputs")
        self._input = inputs[0].name

    def look(self, canvas: Image_HW3) -> Finds:
        settings = self.settings
        image_13HW = (canvas.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 128
        raw = self._net.run(None, {self._input: np.ascontiguousarray(image_13HW)})
        outputs = [array.reshape(-1, array.shape[-1]) for array in raw]
        if [array.shape for array in outputs] != scrfd_shapes(settings.size_px):
            raise unfit(self._path, self._net, f"outputs of {scrfd_shapes(settings.size_px)}")
        finds = decode_scrfd(outputs, settings.size_px, settings.threshold)
        return suppress(finds, settings.same_face)


class Yunet(_Anchored):
    """``face_detection_yunet_2023mar.onnx``. The score is the root of class times objectness."""

    def __init__(self, folder: Path, settings: AnchorDetector, threads: int) -> None:
        super().__init__(settings)
        self._path, size = folder / settings.file, (settings.size_px, settings.size_px)
        set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # OpenCV 4, 5
        level = set_log_level(SILENT)
        try:
            self._net: Any = cv2.FaceDetectorYN.create(
                str(self._path), "", size, settings.threshold, settings.same_face
            )
        except cv2.error as error:
            raise PackBroken(f"cannot open the face network {self._path}: {error}", hint=REPAIR) from error
        finally:
            set_log_level(level)
        self.look(np.zeros((*size, 3), np.uint8))

    def look(self, canvas: Image_HW3) -> Finds:
        try:
            _, rows = self._net.detect(np.ascontiguousarray(canvas[..., ::-1]))
        except cv2.error as error:
            raise PackBroken(f"{self._path} is not a YuNet of 2023: {error}", hint=REPAIR) from error
        rows_N15 = np.zeros((0, 15)) if rows is None else np.asarray(rows, np.float64)
        rows_N15 = rows_N15[np.argsort(-rows_N15[:, 14], kind="stable")]
        boxes_N4 = np.concatenate([rows_N15[:, :2], rows_N15[:, :2] + rows_N15[:, 2:4]], axis=1)
        return Finds(boxes_N4, rows_N15[:, 4:14].reshape(-1, 5, 2), rows_N15[:, 14])


def open_detector(folder: Path, settings: HeatmapDetector | AnchorDetector, threads: int) -> Detector:
    """The detector of ``settings.kind``. Raises PackBroken when its file is missing or unfit."""
    if isinstance(settings, HeatmapDetector):
        return Heatmap(folder, settings, threads)
    return (Scrfd if settings.kind == "scrfd" else Yunet)(folder, settings, threads)
