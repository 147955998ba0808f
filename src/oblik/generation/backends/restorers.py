"""GFPGAN and CodeFormer from weights that a person has, read by spandrel.

In: a file of weights, faces (512, 512, 3). Out: restored faces. spandrel brings torchvision along, which is
why this is an extra: it must fit the installed torch.

Both networks take and give values from -1 to 1; spandrel's own call would cut them at 0, so its network is
called directly. GFPGAN draws noise: it is seeded, and the caller's random state is left as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import spandrel
import spandrel_extra_arches
import torch

from oblik.diffusion.device import pick_device
from oblik.errors import InvalidInput
from oblik.faces.stack import Image_HW3

ARCHITECTURES = {"gfpgan": "GFPGAN", "codeformer": "CodeFormer"}


class SpandrelRestorer:
    """One network on one device. Raises InvalidInput when the file does not hold the network ``name``."""

    def __init__(self, name: str, weights: Path, device: str = "auto") -> None:
        spandrel_extra_arches.install(ignore_duplicates=True)
        self._device = pick_device(device)
        found = spandrel.ModelLoader(device=self._device).load_from_file(str(weights))
        if found.architecture.id != ARCHITECTURES[name]:
            raise InvalidInput(f"{weights.name} holds {found.architecture.id}, not {name}", hint="--network")
        self._network: Any = found.model.eval()

    @torch.inference_mode()
    def __call__(self, face_HW3: Image_HW3, /) -> Image_HW3:
        face_CHW = torch.from_numpy(face_HW3.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            drawn_BCHW = self._network(face_CHW[None].to(self._device))[0]
        pixels_HW3 = drawn_BCHW[0].float().clamp(-1, 1).permute(1, 2, 0).cpu().numpy()
        return np.asarray(np.rint((pixels_HW3 + 1) * 127.5), np.uint8)
