"""Attribute probes: do generated pictures show what the caption asked for?

In: rendered images with their words. Out: a small network that reads hair colour, glasses, skin and scene
off a picture. It judges the pack in ``benchmarks/miniature.py`` and is no part of it.

B batch.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from oblik.miniature.checkpoint import cosine, draw, set_rate
from oblik.miniature.corpus import Corpus
from oblik.miniature.people import HAIRS, SKINS
from oblik.miniature.shots import SCENES
from oblik.miniature.train_vae import as_tensor
from oblik.progress import Progress

PROBE_PX = 64
QUESTIONS: dict[str, tuple[str, ...]] = {
    "hair_color": (*HAIRS, "bald"),
    "glasses": ("no", "yes"),
    "skin": tuple(SKINS),
    "scene": SCENES,
}


class Probe(nn.Module):
    """(B, 3, 64, 64) -> logits for every question."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels in ((3, 24), (24, 48), (48, 96), (96, 128)):
            layers += [nn.Conv2d(channels_in, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(128 * 16, len(q)) for name, q in QUESTIONS.items()})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.trunk(image)
        return {name: head(features) for name, head in self.heads.items()}


def answers(words: dict[str, str]) -> dict[str, int]:
    """The right answer of every question for an image with these words."""
    hair = "bald" if words["hair_style"] == "bald" else words["hair_color"]
    worn = words["accessories"].split(", ")
    told = {"hair_color": hair, "skin": words["skin"], "scene": words["scene"]}
    told["glasses"] = "yes" if "glasses" in worn or "sunglasses" in worn else "no"
    return {name: choices.index(told[name]) for name, choices in QUESTIONS.items()}


def train_probe(corpus: Corpus, progress: Progress, *, steps: int = 1200, batch: int = 64) -> Probe:
    """Cross-entropy on all questions; hair under a hat is not asked."""
    torch.manual_seed(4)
    probe = Probe()
    optimiser = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=1e-3)
    right = [answers(words) for words in corpus.descriptors]
    with progress.stage("train attribute probe", steps) as advance:
        for step in range(steps):
            rng, _ = draw(4, step)
            rows = rng.integers(0, len(right), batch)
            logits = probe(as_tensor(np.stack([small(corpus.images[i]) for i in rows])))
            set_rate(optimiser, cosine(step, steps, warmup=50))
            truth = {name: torch.tensor([right[i][name] for i in rows]) for name in QUESTIONS}
            sum(F.cross_entropy(logits[name], truth[name]) for name in QUESTIONS).backward()  # type: ignore[union-attr]
            optimiser.step()
            optimiser.zero_grad()
            advance(1)
            progress.check_cancelled()
    return probe.eval()


@torch.no_grad()
def ask(probe: Probe, images: list[NDArray[np.uint8]]) -> dict[str, NDArray[np.int64]]:
    """Answers (B,) of every question for pictures of any size."""
    logits = probe(as_tensor(np.stack([small(image) for image in images])))
    return {name: values.argmax(1).numpy() for name, values in logits.items()}


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture as the probe sees it."""
    size = (PROBE_PX, PROBE_PX)
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA), np.uint8)
