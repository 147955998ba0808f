"""SCRFD, YuNet and their embedders: decode, scale, letterbox, suppression, channel and landmark order.

The networks are those of `dot_networks`: their answers are the true landmarks. No trained file is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tests.contracts.dot_networks import embedder, scrfd, yunet
from tests.contracts.test_face_stack import FaceStackContract, picture

from oblik.errors import PackBroken
from oblik.faces.align import ARCFACE_52, align_112
from oblik.faces.anchors import Finds, suppress
from oblik.faces.backends.onnx import OnnxStack
from oblik.faces.stack import Face, Image_HW3, Points_52, open_stack

SIZE = 320
KINDS = ("scrfd", "yunet")


def write(
    folder: Path, kind: str, *, threshold: float = 0.5, mean: float = 127.5, std: float = 127.5, **dots: Any
) -> Path:
    """A folder as `oblik pack pull` leaves it, with networks of dots."""
    onnx.save((scrfd if kind == "scrfd" else yunet)(SIZE, **dots), str(folder / "detector.onnx"))
    onnx.save(embedder(8, batch="n"), str(folder / "embedder.onnx"))
    detector = {"kind": kind, "size_px": SIZE, "threshold": threshold, "same_face": 0.4}
    files = {
        "name": f"dots-{kind}",
        "detector": {"file": "detector.onnx", **detector},
        "embedder": {"file": "embedder.onnx", "mean": mean, "std": std, "dims": 8},
    }
    (folder / "faces.json").write_text(json.dumps(files), encoding="utf-8")
    return folder


class AnchoredContract(FaceStackContract):
    tolerance_px = 0.3
    kind: str

    @pytest.fixture
    def stack(self, tmp_path: Path) -> OnnxStack:
        return OnnxStack(write(tmp_path, self.kind))

    @pytest.fixture
    def portrait(self) -> tuple[Image_HW3, Points_52]:
        image, points = picture(200, 150, (100.3, 70.6, 0.9))
        return image, points[0]


class TestScrfd(AnchoredContract):
    kind = "scrfd"


class TestYunet(AnchoredContract):
    kind = "yunet"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(320, 320), (900, 300), (240, 700), (97, 131), (1600, 1200)])
def test_landmarks_are_exact_at_every_size_and_shape(
    tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    scale = max(size) / 300
    image, points = picture(*size, (size[0] * 0.47, size[1] * 0.52, scale))
    (found,) = OnnxStack(write(tmp_path, kind)).detect(image)
    assert np.abs(found.landmarks - points[0]).max() < 0.3 * max(1.0, scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_stride_is_decoded(tmp_path: Path, kind: str, level: int) -> None:
    gains = (float(level == 0), float(level == 1), float(level == 2))
    image, points = picture(SIZE, 240, (190.0, 110.0, 1.1))
    (found,) = OnnxStack(write(tmp_path, kind, gains=gains)).detect(image)
    assert np.abs(found.landmarks - points[0]).max() < 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_photo_has_each_face_once(tmp_path: Path, kind: str) -> None:
    places, folder = (
        [(110.0, 150.0, 0.8), (330.0, 120.0, 0.6), (520.0, 260.0, 0.7)],
        write(tmp_path, kind, reach_px=32),
    )
    image, points = picture(640, 400, *places)
    found = sorted(OnnxStack(folder).detect(image), key=lambda face: face.landmarks[0, 0])
    assert len(found) == 3
    for face, landmarks in zip(found, points, strict=True):
        assert np.abs(face.landmarks - landmarks).max() < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_networks_and_the_threshold_counts(tmp_path: Path, kind: str) -> None:
    """YuNet's is the root of class times objectness: the networks of dots multiply only one by the gain."""
    image, _ = picture(SIZE, 240, (190.0, 110.0, 1.1))
    nose = image[..., 2].astype(float)[image[..., 0] + image[..., 1].astype(int) < 20].max() / 255
    gains = (0.64, 0.0, 0.0)
    wanted = nose * (0.64 if kind == "scrfd" else 0.8)
    faces = OnnxStack(write(tmp_path, kind, gains=gains, threshold=wanted - 0.02)).detect(image)
    assert faces[0].score == pytest.approx(wanted, abs=0.005)
    assert OnnxStack(write(tmp_path, kind, gains=gains, threshold=wanted + 0.02)).detect(image) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_too_large_for_the_anchors_is_found_in_a_smaller_copy(tmp_path: Path, kind: str) -> None:
    stack = OnnxStack(write(tmp_path, kind, largest_px=90))
    image, points = picture(SIZE, SIZE, (160.0, 175.0, 4.2))
    (found,) = stack.detect(image)
    assert np.abs(found.landmarks - points[0]).max() < 1.0
    blind = OnnxStack(write(tmp_path, kind, largest_px=40))
    assert blind.detect(image) == []


def test_suppression_keeps_neighbours_and_drops_doubles() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [6, 0, 16, 10.0]]) + 100
    landmarks = np.zeros((3, 5, 2)) + np.arange(3)[:, None, None]
    kept = suppress(Finds(boxes, landmarks, np.array([0.8, 0.9, 0.7])), 0.4)
    np.testing.assert_array_equal(kept.scores_N, [0.9, 0.7])
    np.testing.assert_array_equal(kept.landmarks_N52[:, 0, 0], [1, 2])


def test_wrong_files_are_broken_packs(tmp_path: Path) -> None:
    write(tmp_path, "scrfd")
    detector = tmp_path / "detector.onnx"
    onnx.save(scrfd(640, open_sides=False), str(detector))
    with pytest.raises(PackBroken, match="320 px"):
        open_stack("onnx", folder=tmp_path)
    onnx.save(yunet(SIZE), str(detector))
    with pytest.raises(PackBroken, match="nine outputs"):
        open_stack("onnx", folder=tmp_path)
    write(tmp_path, "yunet")
    onnx.save(scrfd(SIZE), str(detector))
    with pytest.raises(PackBroken, match=r"YuNet|cannot open"):  # OpenCV 5, 4
        open_stack("onnx", folder=tmp_path)
    detector.unlink()
    with pytest.raises(PackBroken, match="cannot open"):
        open_stack("onnx", folder=tmp_path)
    write(tmp_path, "yunet")
    onnx.save(embedder(16, batch="n"), str(tmp_path / "embedder.onnx"))
    with pytest.raises(PackBroken, match="embeddings of 8"):
        open_stack("onnx", folder=tmp_path)


def reference(crop: Image_HW3, net: Path, scale: float, mean: float) -> NDArray[np.float32]:
    """The embedder through OpenCV's own blob: channels swapped from BGR, (x - mean) * scale."""
    bgr = np.ascontiguousarray(crop[..., ::-1])
    blob = cv2.dnn.blobFromImage(bgr, scale, (112, 112), (mean, mean, mean), swapRB=True)
    network = cv2.dnn.readNet(str(net))
    network.setInput(blob)
    return np.asarray(network.forward(), np.float32)


def test_arcface_sees_rgb_about_zero(tmp_path: Path) -> None:
    image, points = picture(200, 150, (100.3, 70.6, 0.9))
    stack, crop = OnnxStack(write(tmp_path, "scrfd")), align_112(image, points[0])
    both = sum(reference(c, tmp_path / "embedder.onnx", 1 / 127.5, 127.5)[0] for c in (crop, crop[:, ::-1]))
    found = stack.embed(image, Face((0, 0, 1, 1), points[0], 1.0))
    np.testing.assert_allclose(found, both / np.linalg.norm(both), atol=1e-4)


def test_sface_is_fed_as_opencv_feeds_it(tmp_path: Path) -> None:
    """`cv2.FaceRecognizerSF` is the yardstick: crop and numbers. The real file takes one face at a time."""
    write(tmp_path, "yunet", mean=0, std=1)
    net = tmp_path / "embedder.onnx"
    onnx.save(embedder(8, batch=1), str(net))
    stack = OnnxStack(tmp_path)
    image, points = picture(200, 150, (100.3, 70.6, 1.0))
    recognizer = cv2.FaceRecognizerSF.create(str(net), "")
    row = np.concatenate([[0, 0, 1, 1], points[0].ravel(), [1]]).astype(np.float32)[None]
    crop = recognizer.alignCrop(np.ascontiguousarray(image[..., ::-1]), row)
    inner = (slice(20, 100), slice(20, 92))
    ours = align_112(image, points[0])[..., ::-1]
    assert np.abs(crop[inner].astype(int) - ours[inner].astype(int)).max() <= 3
    both = sum(recognizer.feature(np.ascontiguousarray(c))[0].copy() for c in (ours, ours[:, ::-1]))
    found = stack.embed(image, Face((0, 0, 1, 1), points[0], 1.0))
    np.testing.assert_allclose(found, both / np.linalg.norm(both), atol=1e-4)
    faces = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3)).astype(np.uint8)
    np.testing.assert_allclose(stack.embed_aligned(faces)[2:], stack.embed_aligned(faces[2:]), atol=1e-6)


def test_the_first_landmark_is_the_eye_on_the_left_of_the_picture() -> None:
    """The template both embedders were trained with says so, and OpenCV's aligner agrees (above)."""
    assert ARCFACE_52[0, 0] < ARCFACE_52[2, 0] < ARCFACE_52[1, 0]
    assert ARCFACE_52[3, 0] < ARCFACE_52[4, 0]
