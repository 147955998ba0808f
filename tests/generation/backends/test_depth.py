"""Depth is read by whatever network the pack brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from oblik.errors import BackendUnavailable, PackBroken
from oblik.generation.backends.depth import DepthFile
from oblik.generation.control import DEPTH, open_depth
from oblik.packs.catalogue import catalogue
from oblik.packs.manifest import OpenPack, Pack

FED = {"side_px": 14, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def pack_with_depth(
    folder: Path, ends: tuple[str, str] = ("image", "depth"),
    sizes: tuple[Any, Any] = ([1, 3, 14, 14], [1, 1, 14, 14]),
    fed: dict[str, Any] = FED, name: str = "p",
) -> OpenPack:  # fmt: skip
    """A network that calls red near: the mean over colours of (red, 0, 0)."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1.0, 0.0, 0.0])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Conv", [ends[0], "w"], [ends[1] if len(sizes[1]) == 4 else "map"])]
    if len(sizes[1]) == 3:
        nodes.append(helper.make_node("Squeeze", ["map", "axes"], [ends[1]]))
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info(ends[0], TensorProto.FLOAT, sizes[0])],
        [helper.make_tensor_value_info(ends[1], TensorProto.FLOAT, sizes[1])],
        [weight, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "depth").mkdir(parents=True)
    onnx.save(model, folder / "depth" / "depth.onnx")
    (folder / "depth" / "depth.json").write_text(json.dumps(fed))
    return bare(folder, name)


def bare(folder: Path, name: str) -> OpenPack:
    manifest = Pack(name=name, version="1", family="qwen_image", native_size_px=64, side_multiple_px=16)
    return OpenPack(manifest=manifest, folder=folder)


def test_what_the_network_calls_near_is_near_at_the_photos_size(tmp_path: Path) -> None:
    photo = np.zeros((20, 40, 3), np.uint8)
    photo[:, 20:, 0] = 255
    near = open_depth(pack_with_depth(tmp_path)).nearness(photo)
    assert near.shape == (20, 40)
    assert near.min() == 0.0
    assert near[:, :15].max() < 0.1
    assert near[:, 25:].min() == pytest.approx(4.0, abs=0.1)


def test_a_pack_whose_depth_is_not_described_is_broken(tmp_path: Path) -> None:
    pack = pack_with_depth(tmp_path)
    (tmp_path / "depth" / "depth.json").unlink()
    with pytest.raises(PackBroken):
        open_depth(pack)


OFFERS = [name for name, entry in catalogue().items() if DEPTH in entry.options]


@pytest.mark.parametrize("name", OFFERS)
def test_what_the_catalogue_brings_is_fed_and_read(name: str, tmp_path: Path) -> None:
    """By the ends of its network, which leaves every size open, and by the settings written for it."""
    part = next(part for part in catalogue()[name].parts if part.option == DEPTH)
    assert [file.path for file in part.files] == ["depth/depth.onnx"]
    fed = part.settings["depth/depth.json"]
    assert DepthFile.model_validate(fed).side_px == 518
    shapes = (["batch_size", 3, "height", "width"], ["batch_size", "height", "width"])
    pack = pack_with_depth(tmp_path, ("pixel_values", "predicted_depth"), shapes, fed)
    photo = np.zeros((30, 20, 3), np.uint8)
    photo[:15, :, 0] = 255
    near = open_depth(pack).nearness(photo)
    assert near.shape == (30, 20)
    assert near[:12].min() == pytest.approx(1 / 0.229, abs=0.1)
    assert near[18:].max() < 0.1


def test_the_next_command_brings_depth_where_the_catalogue_has_it(tmp_path: Path) -> None:
    assert {"qwen-image-16gb", "qwen-image-fp8", "sdxl", "sd15"} == set(OFFERS)
    for name, hint in (("sdxl", "oblik pack pull sdxl --with depth"), ("p", "give a finished depth image")):
        with pytest.raises(BackendUnavailable, match="depth is not read") as refused:
            open_depth(bare(tmp_path, name))
        assert refused.value.hint.startswith(hint)
