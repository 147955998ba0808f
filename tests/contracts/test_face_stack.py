"""One suite for every face stack, and what each backend promises beyond it.

The ONNX stack runs two small networks made here: a detector whose five heatmaps light up on dots of five
colours, so that the true landmarks are known exactly, and a linear embedder.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.contracts.dot_networks import COLOURS_53

from oblik.errors import BackendUnavailable, PackBroken
from oblik.faces.align import ARCFACE_52, align_112, transform
from oblik.faces.backends.onnx import OnnxStack
from oblik.faces.stack import Face, FaceStack, Image_HW3, Points_52, open_stack

SIZE = 128


class FaceStackContract:
    """What every backend keeps. Subclasses give ``stack`` and ``portrait``: a picture of one face, whose
    landmarks are known to within ``tolerance_px``."""

    tolerance_px = 1.0

    @pytest.fixture
    def stack(self) -> FaceStack:
        raise NotImplementedError

    @pytest.fixture
    def portrait(self) -> tuple[Image_HW3, Points_52]:
        raise NotImplementedError

    def test_it_has_a_name(self, stack: FaceStack) -> None:
        assert isinstance(stack.name, str)
        assert stack.name

    def test_a_face_is_found_where_it_is(
        self, stack: FaceStack, portrait: tuple[Image_HW3, Points_52]
    ) -> None:
        image, landmarks = portrait
        face = stack.detect(image)[0]
        assert face.landmarks.shape == (5, 2)
        assert face.landmarks.dtype == np.float32
        assert np.abs(face.landmarks - landmarks).max() < self.tolerance_px
        left, top, right, bottom = face.box
        assert left < face.landmarks[:, 0].min() < face.landmarks[:, 0].max() < right
        assert top < face.landmarks[:, 1].min() < face.landmarks[:, 1].max() < bottom

    def test_faces_come_best_first(self, stack: FaceStack, portrait: tuple[Image_HW3, Points_52]) -> None:
        scores = [face.score for face in stack.detect(portrait[0])]
        assert scores == sorted(scores, reverse=True)

    def test_no_face_is_an_empty_list(self, stack: FaceStack) -> None:
        assert stack.detect(np.full((120, 160, 3), 40, np.uint8)) == []

    def test_the_embedding_is_a_unit_vector(
        self, stack: FaceStack, portrait: tuple[Image_HW3, Points_52]
    ) -> None:
        image, _ = portrait
        embedding = stack.embed(image, stack.detect(image)[0])
        assert embedding.ndim == 1
        assert embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)

    def test_the_same_twice(self, stack: FaceStack, portrait: tuple[Image_HW3, Points_52]) -> None:
        image, _ = portrait
        first, second = (stack.embed(image, stack.detect(image)[0]) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_the_picture_is_left_alone(self, stack: FaceStack, portrait: tuple[Image_HW3, Points_52]) -> None:
        image = portrait[0].copy()
        image.setflags(write=False)
        stack.embed(image, stack.detect(image)[0])
        np.testing.assert_array_equal(image, portrait[0])

    def test_a_shifted_picture_has_a_shifted_face(
        self, stack: FaceStack, portrait: tuple[Image_HW3, Points_52]
    ) -> None:
        image, _ = portrait
        moved = np.pad(image, ((16, 0), (24, 0), (0, 0)), mode="edge")
        shift = stack.detect(moved)[0].landmarks - stack.detect(image)[0].landmarks
        np.testing.assert_allclose(shift, np.tile([24, 16], (5, 1)), atol=2 * self.tolerance_px)


def draw(image: NDArray[np.float64], landmarks: Points_52, sigma_px: float) -> None:
    """Add five coloured dots to an image in 0..1, in place."""
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    for (x, y), colour in zip(landmarks, COLOURS_53, strict=True):
        dot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma_px**2))
        image += dot[..., None] * (colour > 0)


def picture(
    width: int, height: int, *faces: tuple[float, float, float], turn: float = 0.1
) -> tuple[Image_HW3, list[Points_52]]:
    """A black picture with faces at (x, y, scale); scale 1 is the size of the 112 px template."""
    image = np.zeros((height, width, 3))
    points = []
    for x, y, scale in faces:
        c, s = scale * np.cos(turn), scale * np.sin(turn)
        centred = ARCFACE_52 - np.array([56, 72], np.float32)
        points.append(transform(np.array([[c, -s, x], [s, c, y]]), centred).astype(np.float32))
        draw(image, points[-1], 5.0 * scale)
    return (255 * image.clip(0, 1)).round().astype(np.uint8), points


def write_networks(folder: Path, threshold: float = 0.5) -> Path:
    onnx.save(detector(), str(folder / "detector.onnx"))
    onnx.save(embedder(), str(folder / "embedder.onnx"))
    faces = {
        "name": "dots",
        "detector": {"file": "detector.onnx", "kind": "heatmap", "size_px": SIZE, "threshold": threshold},
        "embedder": {"file": "embedder.onnx", "size_px": 112, "mean": 127.5, "std": 127.5, "dims": 8},
    }
    (folder / "faces.json").write_text(json.dumps(faces), encoding="utf-8")
    return folder


def detector() -> onnx.ModelProto:
    """p = relu(colour . rgb - 1) / 2, halved by averaging; logit(p); presence from the mean of the peaks."""
    constants = {
        "colours": COLOURS_53.reshape(5, 3, 1, 1) / 2,
        "bias": np.full(5, -0.5, np.float32),
        "low": np.array(1e-4, np.float32),
        "high": np.array(1 - 1e-4, np.float32),
        "one": np.array(1.0, np.float32),
        "steep": np.array(30.0, np.float32),
        "middle": np.array(0.5, np.float32),
        "axes": np.array([1], np.int64),
        "flat": np.array([1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "colours", "bias"], ["matched"]),
        helper.make_node("Relu", ["matched"], ["bright"]),
        helper.make_node("AveragePool", ["bright"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Clip", ["p", "low", "high"], ["inside"]),
        helper.make_node("Sub", ["one", "inside"], ["rest"]),
        helper.make_node("Div", ["inside", "rest"], ["odds"]),
        helper.make_node("Log", ["odds"], ["heatmaps"]),
        helper.make_node("GlobalMaxPool", ["p"], ["peaks"]),
        helper.make_node("ReduceMean", ["peaks", "axes"], ["mean"]),
        helper.make_node("Sub", ["mean", "middle"], ["over"]),
        helper.make_node("Mul", ["over", "steep"], ["logit"]),
        helper.make_node("Reshape", ["logit", "flat"], ["presence"]),
    ]
    half = SIZE // 2
    outputs = {"heatmaps": [1, 5, half, half], "presence": [1, 1]}
    return network(nodes, constants, {"image": [1, 3, SIZE, SIZE]}, outputs)


def embedder() -> onnx.ModelProto:
    constants = {"weights": WEIGHTS_147_8}
    nodes = [
        helper.make_node("AveragePool", ["face"], ["small"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["small"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["embedding"]),
    ]
    return network(nodes, constants, {"face": ["n", 3, 112, 112]}, {"embedding": ["n", 8]})


WEIGHTS_147_8 = np.random.default_rng(5).normal(size=(147, 8)).astype(np.float32)


def network(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, object],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


class TestOnnxStack(FaceStackContract):
    tolerance_px = 0.3

    @pytest.fixture
    def stack(self, tmp_path: Path) -> OnnxStack:
        return OnnxStack(write_networks(tmp_path))

    @pytest.fixture
    def portrait(self) -> tuple[Image_HW3, Points_52]:
        image, points = picture(200, 150, (100.3, 70.6, 0.9))
        return image, points[0]

    def test_the_table_opens_it(self, tmp_path: Path) -> None:
        assert open_stack("onnx", folder=write_networks(tmp_path)).name == "dots"

    @pytest.mark.parametrize("size", [(128, 128), (96, 128), (640, 480), (300, 700)])
    def test_landmarks_are_exact_at_every_size_and_shape(
        self, stack: OnnxStack, size: tuple[int, int]
    ) -> None:
        scale = min(size) / 150
        image, points = picture(*size, (size[0] * 0.47, size[1] * 0.52, scale))
        (found,) = stack.detect(image)
        assert np.abs(found.landmarks - points[0]).max() < 0.3 * max(1.0, scale)

    def test_a_second_look_makes_a_small_face_exact(self, tmp_path: Path) -> None:
        """At 128 px this face has peaks of a third of their height; the threshold passes only close up."""
        stack = OnnxStack(write_networks(tmp_path, threshold=0.8))
        image, points = picture(640, 480, (410.4, 180.7, 0.8))
        (found,) = stack.detect(image)
        assert found.score > 0.8
        assert np.abs(found.landmarks - points[0]).max() < 0.3

    def test_a_group_photo(self, stack: OnnxStack) -> None:
        places = [(110.0, 150.0, 0.8), (330.0, 120.0, 0.6), (520.0, 260.0, 0.7)]
        image, points = picture(640, 400, *places)
        found = sorted(stack.detect(image), key=lambda face: face.landmarks[0, 0])
        assert len(found) == 3
        for face, landmarks in zip(found, points, strict=True):
            assert np.abs(face.landmarks - landmarks).max() < 0.5

    def test_half_a_face_is_none(self, stack: OnnxStack) -> None:
        image, _ = picture(128, 128, (128.0, 64.0, 0.8))
        assert stack.detect(image) == []

    def test_the_embedding_is_flip_averaged(
        self, stack: OnnxStack, portrait: tuple[Image_HW3, Points_52]
    ) -> None:
        image, landmarks = portrait
        aligned = align_112(image, landmarks)

        def plain(face: Image_HW3) -> NDArray[np.float64]:
            blocks = ((face.astype(float) - 127.5) / 127.5).reshape(7, 16, 7, 16, 3).mean(axis=(1, 3))
            return np.asarray(blocks.transpose(2, 0, 1).ravel() @ WEIGHTS_147_8)

        wanted = plain(aligned) + plain(aligned[:, ::-1])
        found = stack.embed(image, Face((0, 0, 1, 1), landmarks, 1.0))
        np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)
        mirrored = landmarks[[1, 0, 2, 4, 3]] * np.array([-1, 1]) + np.array([image.shape[1] - 1, 0])
        other = stack.embed(
            np.ascontiguousarray(image[:, ::-1]), Face((0, 0, 1, 1), mirrored.astype(np.float32), 1.0)
        )
        assert found @ other > 0.9999

    def test_many_aligned_faces_at_once(self, stack: OnnxStack) -> None:
        faces = np.random.default_rng(0).integers(0, 255, (70, 112, 112, 3)).astype(np.uint8)
        together = stack.embed_aligned(faces)
        assert together.shape == (70, 8)
        np.testing.assert_allclose(together[69:], stack.embed_aligned(faces[69:]), atol=1e-6)
        assert stack.embed_aligned(faces[:0]).shape == (0, 8)

    def test_a_missing_or_wrong_network_is_a_broken_pack(self, tmp_path: Path) -> None:
        with pytest.raises(PackBroken):
            OnnxStack(tmp_path)
        write_networks(tmp_path)
        (tmp_path / "detector.onnx").write_bytes((tmp_path / "embedder.onnx").read_bytes())
        with pytest.raises(PackBroken, match="inputs"):
            OnnxStack(tmp_path)
        (tmp_path / "detector.onnx").unlink()
        with pytest.raises(PackBroken, match="cannot open"):
            OnnxStack(tmp_path)


def missing(*packages: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in packages)


class TestDlibStack(FaceStackContract):
    """On a portrait in the public domain, where the packages are installed."""

    tolerance_px = 6.0

    @pytest.fixture
    def stack(self) -> FaceStack:
        if missing("dlib", "face_recognition_models"):
            pytest.skip("needs pip install 'oblik[dlib]'")
        return open_stack("dlib")

    @pytest.fixture
    def portrait(self) -> tuple[Image_HW3, Points_52]:
        data = pytest.importorskip("skimage.data", reason="needs scikit-image for its portrait")
        marks = np.array([[203, 101], [247, 104], [226, 125], [202, 140], [246, 141]], np.float32)
        return np.asarray(data.astronaut(), np.uint8), marks

    def test_the_same_face_smaller_and_mirrored_is_alike(
        self, stack: FaceStack, portrait: tuple[Image_HW3, Points_52]
    ) -> None:
        image, _ = portrait
        others = [np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(image[20:, 30:])]
        first = stack.embed(image, stack.detect(image)[0])
        for other in others:
            assert first @ stack.embed(other, stack.detect(other)[0]) > 0.95


@pytest.mark.skipif(not missing("dlib"), reason="dlib is installed here")
def test_without_dlib_the_install_command_is_named() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        open_stack("dlib")
    assert caught.value.hint == "pip install 'oblik[dlib]'"
