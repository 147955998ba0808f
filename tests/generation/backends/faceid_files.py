"""A FaceID for a tiny U-Net: random numbers under the names of the published files; and eyes for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oblik.faces.stack import Face

LORA_RANK, TOKENS, DIMS = 2, 4, 8
STACK, SIDE = "two-dots", 64
MARKS = np.array([[26, 26], [38, 26], [32, 32], [27, 38], [37, 38]], np.float32)


class TwoDots:
    """A stack that sees the same face in everything, in photos of different colours different people, and in
    each picture somebody more like them than in the one before."""

    name = STACK

    def __init__(self) -> None:
        self._looks = 0

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        return [Face((20, 20, 44, 44), MARKS * (image.shape[0] / SIDE), 1.0)]

    def embed(self, image: NDArray[np.uint8], face: Face) -> NDArray[np.float32]:
        vector = np.append(np.ones(DIMS - 1, np.float32), 0)
        if len(image) == SIDE:
            self._looks += 1
            vector[-1] = 1 / self._looks  # photos have nothing there
        else:
            vector[:-1] += 0.8 * np.cos(
                np.arange(DIMS - 1) * (1 + image[0, 0].astype(np.float32).sum() / 100)
            )
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


def faceid_weights(unet: Any) -> dict[str, dict[str, Tensor]]:
    """``image_proj`` is two layers and a norm. ``ip_adapter`` counts every attention of the U-Net: each has a
    LoRA of its four projections, each second one (over the text) keys and values for the face besides."""
    draw = torch.Generator().manual_seed(3)

    def new(*shape: int, std: float = 0.3) -> Tensor:
        return torch.randn(shape, generator=draw) * std

    width = unet.config.cross_attention_dim
    projection = {
        "proj.0.weight": new(2 * DIMS, DIMS), "proj.0.bias": new(2 * DIMS),
        "proj.2.weight": new(TOKENS * width, 2 * DIMS), "proj.2.bias": new(TOKENS * width),
        "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
    }  # fmt: skip
    layers = {}
    for place, name in enumerate(unet.attn_processors):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for kind in ("to_q", "to_k", "to_v", "to_out"):
            linear = attention.to_out[0] if kind == "to_out" else getattr(attention, kind)
            layers[f"{place}.{kind}_lora.down.weight"] = new(LORA_RANK, linear.in_features)
            layers[f"{place}.{kind}_lora.up.weight"] = new(linear.out_features, LORA_RANK)
        if ".attn2." in name:
            assert place % 2 == 1
            for kind in ("to_k_ip", "to_v_ip"):
                layers[f"{place}.{kind}.weight"] = new(attention.to_k.out_features, width)
    return {"image_proj": projection, "ip_adapter": layers}


def write_faceid(folder: Path, weights: Any, stack: str = STACK) -> None:
    """``faceid/`` of a pack in ``folder``, as a pull leaves it."""
    (folder / "faceid").mkdir(exist_ok=True)
    torch.save(weights, folder / "faceid" / "weights.bin")
    told = {"face_stack": stack, "weights": "weights.bin"}
    (folder / "faceid" / "faceid.json").write_text(json.dumps(told))
