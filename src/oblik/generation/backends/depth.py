"""Reads depth from a photo with a network that the pack brings as ``depth/depth.onnx``.

In: an RGB photo. Out: nearness. ``depth/depth.json`` says how the network is fed: ``side_px`` and, for values
0..1, ``mean`` and ``std`` of each colour. The network has one input (1, 3, side, side) and its first output
is (1, side, side) or (1, 1, side, side), larger where nearer: disparity, as MiDaS and Depth Anything give it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from oblik.errors import PackBroken
from oblik.faces.backends.sessions import REPAIR, open_session


class DepthFile(BaseModel):
    """``depth.json``."""

    model_config = ConfigDict(extra="forbid")

    side_px: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class OnnxDepth:
    """An `oblik.generation.control.DepthReader`. Raises PackBroken when a file is unfit."""

    def __init__(self, folder: Path) -> None:
        try:
            self._fed = DepthFile.model_validate_json((folder / "depth.json").read_bytes())
        except (OSError, ValidationError) as broken:
            raise PackBroken(f"{folder / 'depth.json'}: {broken}", hint=REPAIR) from broken
        self._session = open_session(folder / "depth.onnx", 1)

    def nearness(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        height_px, width_px = image_HW3.shape[:2]
        side = (self._fed.side_px, self._fed.side_px)
        small = cv2.resize(image_HW3, side, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        fed = (small - np.float32(self._fed.mean)) / np.float32(self._fed.std)
        name = self._session.get_inputs()[0].name
        found = np.asarray(self._session.run(None, {name: fed.transpose(2, 0, 1)[None]})[0], np.float32)
        near_HW = cv2.resize(found.reshape(found.shape[-2:]), (width_px, height_px))
        return np.asarray(near_HW - min(0.0, float(near_HW.min())), np.float32)
