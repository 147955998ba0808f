"""Whose face is in these latents: a small network that measures identity while the miniature learns to edit.

In: packed latents, and the mean face vector of each person's other photos. Out: a network whose answer a
trainer may ask for gradients. It reads the latents themselves, blurred by noise as a half-way prediction is,
so nothing is decoded at a step. It stands in for the embedder only here: likeness is always measured on
pixels. A loss on identity beside the diffusion loss is PuLID's idea (Guo et al. 2024).

N images, B batch, T tokens, C packed channels, D face vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from oblik.miniature.architecture import LATENT_CHANNELS
from oblik.miniature.checkpoint import draw, resume, save, set_rate
from oblik.miniature.face_networks import EMBEDDING
from oblik.progress import Progress

SIDE = 8
"""Tokens along a side."""


@dataclass(frozen=True)
class ReaderRecipe:
    """Settings of the run. Up to ``blur`` of what is read is noise; ``contrast`` weighs how much closer a
    face is to its own person than to the others of the batch."""

    seed: int = 6
    steps: int = 800
    batch: int = 128
    width: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    blur: float = 0.5
    contrast: float = 0.1
    checkpoint_every: int = 100


class FaceReader(nn.Module):
    """Packed latents (B, T, C) -> unit face vectors (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = LATENT_CHANNELS
        for channels, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1)):
            layers += [nn.Conv2d(before, channels * width, 3, stride, 1)]
            layers += [nn.GroupNorm(8, channels * width), nn.SiLU()]
            before = channels * width
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3))
        self.vector = nn.Linear(before * (SIDE // 2) ** 2, EMBEDDING)

    def forward(self, latents_BTC: Tensor) -> Tensor:
        """Unit vectors."""
        patches = latents_BTC.unflatten(1, (SIDE, SIDE)).unflatten(-1, (LATENT_CHANNELS, 2, 2))
        map_BCHW = patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return F.normalize(self.vector(self.trunk(map_BCHW)), dim=-1)


def train_reader(
    latents: NDArray[np.float16], faces_ND: NDArray[np.float32], rows: NDArray[np.int64], folder: Path,
    recipe: ReaderRecipe, progress: Progress,
) -> FaceReader:  # fmt: skip
    """Train on the images ``rows``, or go on from ``folder/reader.pt``; the network, frozen."""
    torch.manual_seed(recipe.seed)
    net = FaceReader(recipe.width)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    state = {"net": net, "adamw": optimiser}
    start = resume(folder / "reader.pt", state)
    with progress.stage("train face reader", recipe.steps) as advance:
        advance(start)
        for step in range(start, recipe.steps):
            rng, noise = draw(recipe.seed, step)
            torch.manual_seed(step)  # dropout's
            chosen = rng.choice(rows, recipe.batch)
            loss = _loss(net, _tensor(latents[chosen]), torch.from_numpy(faces_ND[chosen]), recipe, noise)
            loss.backward()
            set_rate(optimiser, min(1.0, (step + 1) / 100, (recipe.steps - step) / (0.7 * recipe.steps)))
            optimiser.step()
            optimiser.zero_grad()
            advance(1, f"loss {float(loss.detach()):.3f}" if step % 20 == 0 else "")
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                save(folder / "reader.pt", step + 1, state)
            progress.check_cancelled()
    return net.eval().requires_grad_(False)


@torch.no_grad()
def read_well(
    net: FaceReader, latents: NDArray[np.float16], faces_ND: NDArray[np.float32], rows: NDArray[np.int64]
) -> float:
    """Mean cosine of what is read in the images ``rows`` to what it should be."""
    read_ND = net(_tensor(latents[rows])).numpy()
    return float((read_ND * faces_ND[rows]).sum(-1).mean())


def _loss(
    net: FaceReader, latents_BTC: Tensor, faces_BD: Tensor, recipe: ReaderRecipe, noise: torch.Generator
) -> Tensor:
    share_B11 = recipe.blur * torch.rand(len(latents_BTC), 1, 1, generator=noise)
    blurred = torch.lerp(latents_BTC, torch.randn(latents_BTC.shape, generator=noise), share_B11)
    with torch.autocast("cpu", torch.bfloat16):
        read_BD = net(blurred)
    read_BD = read_BD.float()
    cosine = (read_BD * faces_BD).sum(-1).mean()
    apart = F.cross_entropy(15 * read_BD @ faces_BD.T, torch.arange(len(faces_BD)))
    loss: Tensor = 1 - cosine + recipe.contrast * apart
    return loss


def _tensor(latents: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(latents)).float()
