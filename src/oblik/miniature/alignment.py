"""Representation alignment: an early block of the transformer learns to see what the landmark network sees.

In: the corpus and the landmark network; while training, image states inside the transformer. Out: a loss.
A network that must draw a face learns sooner when it is told where the face's parts are (REPA, Yu et al.
2024, eq. 8). The head is thrown away after training.

B batch, T image tokens, C transformer width, F channels of the landmark network's 8x8 maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import QwenImageTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from oblik.miniature.face_networks import Landmarks
from oblik.miniature.train_vae import as_tensor
from oblik.progress import Progress

SEEN = 96 + 4 * 48
"""Channels of the deepest map and of the next one, four of whose pixels make a token."""


class Alignment(nn.Module):
    """Reads the image states after ``block`` and says how far they are from the landmark network's."""

    def __init__(self, transformer: QwenImageTransformer2DModel, block: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        width = transformer.inner_dim
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, SEEN))
        self._states_BTC: Tensor | None = None
        transformer.transformer_blocks[block].register_forward_hook(self._keep)

    def forward(self, seen_BTF: Tensor, weight_BT: Tensor) -> Tensor:
        """One minus the weighted mean cosine of the head's output and ``seen``, for the last forward pass."""
        assert self._states_BTC is not None
        cosine_BT = F.cosine_similarity(self.head(self._states_BTC).float(), seen_BTF, dim=-1)
        self._states_BTC = None
        return torch.as_tensor(1 - (weight_BT * cosine_BT).sum() / weight_BT.sum())

    def _keep(self, _block: nn.Module, _inputs: Any, states: tuple[Tensor, Tensor]) -> None:
        self._states_BTC = states[1]


@torch.no_grad()
def see_corpus(net: Landmarks, images: NDArray[np.uint8], progress: Progress) -> NDArray[np.float16]:
    """What the landmark network sees at each of 64 tokens, every channel standardised. (N, 64, F)."""
    parts = []
    with progress.stage("see corpus", len(images)) as advance:
        for start in range(0, len(images), 128):
            maps = net.maps(as_tensor(images[start : start + 128]))
            tokens = [F.pixel_unshuffle(part, part.shape[-1] // 8).flatten(2).mT for part in maps]
            parts.append(torch.cat(tokens, -1).half())
            advance(len(parts[-1]))
    seen_NTF = torch.cat(parts)
    flat = seen_NTF[:: max(1, len(seen_NTF) // 4000)].float().flatten(0, 1)
    return np.asarray(((seen_NTF - flat.mean(0).half()) / flat.std(0).clamp(min=1e-3).half()).numpy())
