"""Depth is read by whatever network the pack brings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from oblik.errors import PackBroken
from oblik.generation.control import open_depth
from oblik.packs.manifest import OpenPack, Pack


def pack_with_depth(folder: Path) -> OpenPack:
    """A network that calls red near: the mean over colours of (red, 0, 0)."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1.0, 0.0, 0.0])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["depth"])],
        "red",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 14, 14])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 1, 14, 14])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "depth").mkdir()
    onnx.save(model, folder / "depth" / "depth.onnx")
    fed = {"side_px": 14, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (folder / "depth" / "depth.json").write_text(json.dumps(fed))
    manifest = Pack(name="p", version="1", family="qwen_image", native_size_px=64, side_multiple_px=16)
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
