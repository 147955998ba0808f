"""Tiny ONNX networks with the inputs and outputs of SCRFD and YuNet, which see faces of five coloured dots.

At every cell where there is some of the nose's colour, a network reports the mean places of the five colours
round that cell: the true landmarks. The box reaches one eye distance from the nose to all sides. What each
stride answers is multiplied by a gain. Written from the published formats, without the decoders under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

COLOURS_53 = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [-1, 1, 1]], np.float32)
STRIDES, GAINS = (8, 16, 32), (1.0, 0.98, 0.96)
REACH_PX, LARGEST_PX = 96, 1e4
"""Half side of the neighbourhood in which a cell looks for the five colours; the widest eyes it sees."""
NOWHERE = -500.0


class Graph:
    """Nodes and constants; every method returns the name of what it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: object, kind: type[np.generic] = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        name = to or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def model(self, image: str, shape: Sequence[int | str], outputs: dict[str, list[int]]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "dots",
            [helper.make_tensor_value_info(image, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def colours(graph: Graph, image: str, scale: float, shift: float, bgr: bool) -> str:
    """(1, 5, S, S): how much of each colour a pixel has, 0 to 1. ``scale * x + shift`` is 0 to 255."""
    weights_53 = 2 * scale / 255 * COLOURS_53 / 2
    offsets_5 = COLOURS_53.sum(axis=1) * (2 * shift / 255 - 1) / 2 - 0.5
    weights_53 = weights_53[:, ::-1] if bgr else weights_53
    weights, bias = graph.constant(weights_53.reshape(5, 3, 1, 1)), graph.constant(offsets_5)
    return graph.add("Relu", graph.add("Conv", image, weights, bias, kernel_shape=[1, 1]))


def places(
    graph: Graph, seen: str, size_px: int, stride: int, reach_px: int, largest_px: float
) -> tuple[str, str]:
    """(1, 10, H, W) x and y of the five dots near each cell, in pixels; (1, 1, H, W) height of the nose's,
    where all five are near."""
    pool: dict[str, Any] = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
    radius = reach_px // stride
    wide: dict[str, Any] = {"kernel_shape": [2 * radius + 1] * 2, "strides": [1, 1], "pads": [radius] * 4}
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32)

    def near(maps: str) -> str:
        cells = graph.add("AveragePool", maps, **pool)
        return graph.add("AveragePool", cells, count_include_pad=1, **wide)

    mass = graph.add("Add", near(seen), graph.constant(np.full((1, 1, 1, 1), 1e-9)))
    means = [
        graph.add("Div", near(graph.add("Mul", seen, graph.constant(axis[None, None]))), mass)
        for axis in (x, y)
    ]
    order = [axis * 5 + point for point in range(5) for axis in (0, 1)]
    both = graph.add("Concat", *means, axis=1)
    points = graph.add("Conv", both, graph.constant(np.eye(10)[order][..., None, None]), kernel_shape=[1, 1])
    nose = graph.constant(np.eye(5)[2].reshape(1, 5, 1, 1))
    height = graph.add("MaxPool", graph.add("Conv", seen, nose, kernel_shape=[1, 1]), **pool)
    least = graph.add("Mul", graph.add("ReduceMin", mass, axes=[1], keepdims=1), graph.constant(1e4))
    all_five = graph.add("Clip", least, graph.constant(0.0), graph.constant(1.0))
    eyes = mix(graph, points, [[-1, 0, 1, 0, 0, 0, 0, 0, 0, 0]])
    room = graph.add("Sub", graph.constant(np.full((1, 1, 1, 1), largest_px)), eyes)
    small_enough = graph.add("Clip", room, graph.constant(0.0), graph.constant(1.0))
    return points, graph.add("Mul", graph.add("Mul", height, all_five), small_enough)


def mix(graph: Graph, points: str, rows: Sequence[Sequence[float]]) -> str:
    """Linear combinations of the ten coordinates."""
    weights = np.asarray(rows, np.float32)[..., None, None]
    return graph.add("Conv", points, graph.constant(weights), kernel_shape=[1, 1])


def anchors(size_px: int, stride: int) -> NDArray[np.float32]:
    """(1, 2, H, W): x and y of the corner of each cell, in pixels."""
    rows, columns = np.mgrid[: size_px // stride, : size_px // stride]
    return np.stack([columns, rows])[None].astype(np.float32) * stride


def rows_of(graph: Graph, maps: str, count: int, to: str, batch: bool) -> str:
    """(1, K, H, W) as (H W, K), with a leading 1 where ``batch``."""
    last = graph.add("Transpose", maps, perm=[0, 2, 3, 1])
    shape = [1, -1, count] if batch else [-1, count]
    return graph.add("Reshape", last, graph.constant(shape, np.int64), to=to)


EDGES = [
    [1, 0, -1, 0, 1, 0, 0, 0, 0, 0], [1, 0, -1, 0, 0, 1, 0, 0, 0, 0],
    [-1, 0, 1, 0, 1, 0, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 1, 0, 0, 0, 0],
]  # fmt: skip
"""Left, top, right, bottom of the box: the nose, less or more one eye distance."""


def scrfd(
    size_px: int,
    gains: Sequence[float] = GAINS,
    reach_px: int = REACH_PX,
    largest_px: float = LARGEST_PX,
    open_sides: bool = True,
) -> onnx.ModelProto:
    """Input RGB (x - 127.5) / 128. The first of two anchors in a cell is a decoy far away with no score."""
    graph = Graph()
    seen = colours(graph, "input.1", 128, 127.5, bgr=False)
    names: dict[str, list[list[int]]] = {"score": [], "bbox": [], "kps": []}
    for stride, gain in zip(STRIDES, gains, strict=True):
        points, nose = places(graph, seen, size_px, stride, reach_px, largest_px)
        grid, count = anchors(size_px, stride), 2 * (size_px // stride) ** 2
        signs = graph.constant(np.array([-1, -1, 1, 1], np.float32).reshape(1, 4, 1, 1) / stride)
        edges = graph.add("Sub", mix(graph, points, EDGES), graph.constant(np.tile(grid, (1, 2, 1, 1))))
        offsets = graph.add("Sub", points, graph.constant(np.tile(grid, (1, 5, 1, 1))))
        parts = {
            "score": (graph.add("Mul", nose, graph.constant(np.full((1, 1, 1, 1), gain))), 0.0, 1),
            "bbox": (graph.add("Mul", edges, signs), NOWHERE, 4),
            "kps": (graph.add("Div", offsets, graph.constant(np.full((1, 1, 1, 1), stride))), NOWHERE, 10),
        }
        for name, (maps, decoy, width) in parts.items():
            fake = graph.constant(np.full((1, width, size_px // stride, size_px // stride), decoy))
            pair = graph.add("Concat", fake, maps, axis=1)
            rows_of(graph, pair, width, f"{name}_{stride}", batch=False)
            names[name].append([count, width])
    outputs = {
        f"{name}_{stride}": shape
        for name, shapes in names.items()
        for stride, shape in zip(STRIDES, shapes, strict=True)
    }
    sides: list[int | str] = ["h", "w"] if open_sides else [size_px, size_px]
    return graph.model("input.1", [1, 3, *sides], outputs)


def yunet(
    size_px: int,
    gains: Sequence[float] = GAINS,
    reach_px: int = REACH_PX,
    largest_px: float = LARGEST_PX,
) -> onnx.ModelProto:
    """Input BGR, 0 to 255. Class and objectness are the gain and the nose's height."""
    graph = Graph()
    seen = colours(graph, "input", 1, 0, bgr=True)
    names: dict[str, list[list[int]]] = {"cls": [], "obj": [], "bbox": [], "kps": []}
    for stride, gain in zip(STRIDES, gains, strict=True):
        points, nose = places(graph, seen, size_px, stride, reach_px, largest_px)
        grid, count = anchors(size_px, stride), (size_px // stride) ** 2
        step = graph.constant(np.full((1, 1, 1, 1), stride))
        centre = graph.add("Sub", mix(graph, points, np.eye(10)[[4, 5]].tolist()), graph.constant(grid))
        eyes = mix(graph, points, [[-2, 0, 2, 0, 0, 0, 0, 0, 0, 0]] * 2)
        sides = graph.add("Clip", eyes, graph.constant(4.0), graph.constant(4.0 * size_px))
        offsets = graph.add("Sub", points, graph.constant(np.tile(grid, (1, 5, 1, 1))))
        box = [
            graph.add("Div", centre, step),
            graph.add("Log", graph.add("Div", sides, step)),
        ]
        class_ = graph.add("Clip", nose, graph.constant(0.0), graph.constant(1.0))
        parts = {
            "cls": (graph.add("Mul", class_, graph.constant(np.full((1, 1, 1, 1), gain))), 1),
            "obj": (class_, 1),
            "bbox": (graph.add("Concat", *box, axis=1), 4),
            "kps": (graph.add("Div", offsets, step), 10),
        }
        for name, (maps, width) in parts.items():
            rows_of(graph, maps, width, f"{name}_{stride}", batch=True)
            names[name].append([1, count, width])
    outputs = {
        f"{name}_{stride}": shape
        for name, shapes in names.items()
        for stride, shape in zip(STRIDES, shapes, strict=True)
    }
    return graph.model("input", [1, 3, size_px, size_px], outputs)


def embedder(dims: int, batch: int | str) -> onnx.ModelProto:
    """A linear map of the face averaged over 16 px blocks, under names that no backend knows."""
    graph = Graph()
    weights = np.random.default_rng(5).normal(size=(147, dims))
    small = graph.add("AveragePool", "data", kernel_shape=[16, 16], strides=[16, 16])
    graph.add("MatMul", graph.add("Flatten", small), graph.constant(weights), to="fc1")
    made = graph.model("data", [batch, 3, 112, 112], {"fc1": [1, dims]})
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "faces"
    return made
