"""Small networks that read plain words off a picture.

In: rendered images with their words. Out: a network with an answer to each of a few questions. One judges the
pack in ``benchmarks/miniature.py`` (does a generated picture show what the caption asked for?) and is no part
of it; the other is the pack's caption network: it says what changes from photo to photo.

B batch, Q answers of all questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from oblik.miniature.checkpoint import cosine, draw, set_rate
from oblik.miniature.corpus import Corpus
from oblik.miniature.people import HAIRS, SKINS
from oblik.miniature.shots import CLOTHES, EXPRESSIONS, LIGHTS, SCENES
from oblik.miniature.train_vae import as_tensor
from oblik.progress import Progress

Questions = Mapping[str, tuple[str, ...]]
JUDGED: Questions = {
    "hair_color": (*HAIRS, "bald"),
    "glasses": ("no", "yes"),
    "skin": tuple(SKINS),
    "scene": SCENES,
}
TOLD: Questions = {
    "eyes": ("none", "glasses", "sunglasses"),
    **{worn: ("none", worn) for worn in ("scarf", "hat", "mask", "hand")},
    "clothing": tuple(CLOTHES),
    "expression": EXPRESSIONS,
    "scene": SCENES,
    "light": LIGHTS,
}
"""What the caption network is asked: nothing that belongs to the person."""
SURE = 0.6
WORDS_FILE = "words.json"


class Probe(nn.Module):
    """(B, 3, S, S) RGB in [-1, 1] -> logits (B, Q), the questions' answers side by side."""

    def __init__(self, questions: Questions, side_px: int) -> None:
        super().__init__()
        self.questions, self.side_px = questions, side_px
        layers: list[nn.Module] = []
        for channels_in, channels in ((3, 24), (24, 48), (48, 96), (96, 128)):
            layers += [nn.Conv2d(channels_in, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        features = 128 * (side_px // 16) ** 2
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(features, sum(map(len, questions.values())))
        )

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image)
        return logits

    def split(self, logits: Tensor) -> dict[str, Tensor]:
        """The logits of each question."""
        parts = logits.split([len(choices) for choices in self.questions.values()], 1)
        return dict(zip(self.questions, parts, strict=True))


def answers(words: Mapping[str, str], questions: Questions) -> dict[str, int]:
    """The right answer of every question for an image with these words."""
    worn = words["accessories"].split(", ")
    eyes = next((name for name in ("sunglasses", "glasses") if name in worn), "none")
    told = {
        **words,
        "hair_color": "bald" if words["hair_style"] == "bald" else words["hair_color"],
        "glasses": "no" if eyes == "none" else "yes",
        "eyes": eyes,
        **{name: name if name in worn else "none" for name in ("scarf", "hat", "mask", "hand")},
    }
    return {name: choices.index(told[name]) for name, choices in questions.items()}


@dataclass(frozen=True)
class ProbeRecipe:
    """``cut`` shows the network crops around the face, as a dataset cuts them, instead of whole pictures."""

    questions: Questions
    side_px: int
    cut: bool
    steps: int = 1200
    batch: int = 64
    seed: int = 4


JUDGE = ProbeRecipe(JUDGED, 64, cut=False)
TELLER = ProbeRecipe(TOLD, 64, cut=True, steps=1500, seed=5)


def train_probe(corpora: Sequence[Corpus], recipe: ProbeRecipe, progress: Progress) -> Probe:
    """Cross-entropy on all questions."""
    torch.manual_seed(recipe.seed)
    probe = Probe(recipe.questions, recipe.side_px)
    photos = [(corpus, row) for corpus in corpora for row in range(len(corpus.images))]
    forward = torch.compile(probe, dynamic=False)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=1e-3)
    with progress.stage("train words", recipe.steps) as advance:
        for step in range(recipe.steps):
            rng, _ = draw(recipe.seed, step)
            drawn = [photos[int(i)] for i in rng.integers(0, len(photos), recipe.batch)]
            images = [
                _crop(corpus.images[row], corpus.landmarks[row], rng) if recipe.cut else corpus.images[row]
                for corpus, row in drawn
            ]
            right = [answers(corpus.descriptors[row], probe.questions) for corpus, row in drawn]
            seen = as_tensor(np.stack([small(image, probe.side_px) for image in images]))
            with torch.autocast("cpu", torch.bfloat16):
                logits = forward(seen)
            parts = probe.split(logits.float())
            set_rate(optimiser, cosine(step, recipe.steps, warmup=50))
            losses = [
                F.cross_entropy(part, torch.tensor([r[name] for r in right])) for name, part in parts.items()
            ]
            loss = torch.stack(losses).sum()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            advance(1, f"loss {float(loss.detach()) / len(parts):.3f}" if step % 50 == 0 else "")
            progress.check_cancelled()
    return probe.eval()


@torch.no_grad()
def ask(probe: Probe, images: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.int64]]:
    """Answers (B,) of every question for pictures of any size."""
    logits = probe(as_tensor(np.stack([small(image, probe.side_px) for image in images])))
    return {name: part.argmax(1).numpy() for name, part in probe.split(logits).items()}


def small(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The picture as the probe sees it."""
    smaller = cv2.resize(np.ascontiguousarray(image), (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, np.uint8)


def write_teller(folder: Path, probe: Probe) -> None:
    """``words.onnx`` and ``words.json``: the pack's caption network."""
    folder.mkdir(parents=True, exist_ok=True)
    image = torch.zeros(1, 3, probe.side_px, probe.side_px)
    torch.onnx.export(
        probe.eval(), (image,), str(folder / "words.onnx"), input_names=["image"], output_names=["logits"],
        dynamo=False,
    )  # fmt: skip
    settings = {"size_px": probe.side_px, "sure": SURE, "questions": probe.questions}
    (folder / WORDS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _crop(
    image: NDArray[np.uint8], landmarks_52: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A square with the face about where a dataset's crop has it; less where the picture ends."""
    side = float(np.ptp(landmarks_52, axis=0).max() * rng.uniform(3.8, 5.4))
    centre = landmarks_52.mean(0) + rng.normal(0, 0.04 * side, 2)
    high = np.array(image.shape[1::-1])
    side = min(side, float(high.min()))
    left, top = np.clip(centre - side / 2, 0, high - side).round().astype(int)
    span = max(8, round(side))
    return np.asarray(image[top : top + span, left : left + span])
