"""Pretraining of the miniature's face networks.

In: a `Corpus` with exact landmarks. Out: trained `Embedder` and `Landmarks`. The embedder learns
people by an additive angular margin; the landmark network learns heatmaps on randomly moved,
scaled and turned images, and presence from patches without a face.

B batch, K people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from oblik.faces.align import ARCFACE_52, align_112, similarity, transform
from oblik.miniature.architecture import IMAGE_PX
from oblik.miniature.checkpoint import cosine, draw, resume, save, set_rate
from oblik.miniature.corpus import Corpus
from oblik.miniature.face_networks import EMBEDDING, Embedder, Landmarks
from oblik.miniature.train_vae import as_tensor
from oblik.progress import Progress

HEATMAP_PX = 64
SIGMA_PX = 1.3


@dataclass(frozen=True)
class FaceRecipe:
    """Settings of both runs."""

    seed: int = 2
    embedder_steps: int = 5000
    landmark_steps: int = 2000
    batch: int = 64
    landmark_batch: int = 32
    learning_rate: float = 0.1
    margin: float = 0.35
    scale: float = 28.0
    checkpoint_every: int = 250


def train_embedder(
    corpora: Sequence[Corpus],
    folder: Path,
    recipe: FaceRecipe,
    progress: Progress,
    start_from: Embedder | None,
) -> Embedder:
    """Additive angular margin loss (Deng et al. 2019, eq. 3), the margin ramped over the first third.

    ``start_from`` is a network that knows faces already: its weights, and people's mean vectors as the
    classes to begin with, at the full margin and a lower rate.
    """
    torch.manual_seed(recipe.seed)
    photos = [(corpus, row) for corpus in corpora for row in range(len(corpus.people))]
    _, labels = np.unique(np.concatenate([corpus.people for corpus in corpora]), return_inverse=True)
    net = start_from or Embedder()
    head = nn.Linear(EMBEDDING, int(labels.max()) + 1, bias=False)
    both = nn.ModuleList([net, head])
    peak = recipe.learning_rate if start_from is None else recipe.learning_rate / 2
    optimiser = torch.optim.SGD(both.parameters(), lr=peak, momentum=0.9, weight_decay=5e-4)
    state = {"net": both, "optimiser": optimiser}
    start = resume(folder / "embedder.pt", state)
    if start_from is not None and start == 0:
        vectors = np.concatenate([embed_corpus(start_from, corpus, progress) for corpus in corpora])
        _mean_classes(head.weight, torch.from_numpy(vectors), torch.from_numpy(labels))
    forward = torch.compile(net.train(), dynamic=False)
    with progress.stage("train embedder", recipe.embedder_steps) as advance:
        advance(start)
        for step in range(start, recipe.embedder_steps):
            rng, _ = draw(recipe.seed, step)
            rows = rng.integers(0, len(labels), recipe.batch)
            faces = as_tensor(np.stack([_augmented_face(*photos[int(i)], rng) for i in rows]))
            set_rate(optimiser, cosine(step, recipe.embedder_steps, warmup=100, floor=0.0))
            ramp = 1.0 if start_from is not None else min(1.0, 3 * step / recipe.embedder_steps)
            with torch.autocast("cpu", torch.bfloat16):
                embedding = forward(faces)
            loss = _arcface(
                embedding.float(),
                head.weight,
                torch.from_numpy(labels[rows]),
                recipe.margin * ramp,
                recipe.scale,
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(both.parameters(), 5.0)
            optimiser.step()
            optimiser.zero_grad()
            advance(1, f"loss {float(loss.detach()):.2f}" if step % 50 == 0 else "")
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.embedder_steps:
                save(folder / "embedder.pt", step + 1, state)
            progress.check_cancelled()
    return net.eval()


@torch.no_grad()
def embed_corpus(net: Embedder, corpus: Corpus, progress: Progress) -> NDArray[np.float32]:
    """Unit face vectors (N, 128) of every image, aligned by its exact landmarks."""
    vectors = []
    net.eval()
    with progress.stage("embed corpus", len(corpus.images)) as advance:
        for start in range(0, len(corpus.images), 128):
            rows = range(start, min(start + 128, len(corpus.images)))
            aligned = np.stack([align_112(corpus.images[i], corpus.landmarks[i]) for i in rows])
            vectors.append(F.normalize(net(as_tensor(aligned))).numpy())
            advance(len(rows))
    return np.concatenate(vectors)


@torch.no_grad()
def _mean_classes(weight_KD: Tensor, vectors_ND: Tensor, labels_N: Tensor) -> None:
    """Set every class to the mean direction of its photos, as long as a fresh class would be."""
    length = weight_KD.norm(dim=1).mean()
    weight_KD.zero_().index_add_(0, labels_N, vectors_ND)
    weight_KD.copy_(F.normalize(weight_KD) * length)


def train_landmarks(corpus: Corpus, folder: Path, recipe: FaceRecipe, progress: Progress) -> Landmarks:
    """Binary cross-entropy on Gaussian heatmaps, and on the presence of a face."""
    torch.manual_seed(recipe.seed + 1)
    net = Landmarks()
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    state = {"net": net, "optimiser": optimiser}
    start = resume(folder / "landmarks.pt", state)
    forward = torch.compile(net, dynamic=False)
    with progress.stage("train landmarks", recipe.landmark_steps) as advance:
        advance(start)
        for step in range(start, recipe.landmark_steps):
            rng, _ = draw(recipe.seed + 1, step)
            rows = rng.integers(0, len(corpus.people), recipe.landmark_batch)
            samples = [_moved(corpus, int(i), rng) for i in rows]
            images = as_tensor(np.stack([s[0] for s in samples]))
            target = torch.from_numpy(np.stack([s[1] for s in samples]))
            present = torch.tensor([[float(s[2])] for s in samples])
            set_rate(optimiser, cosine(step, recipe.landmark_steps, warmup=50))
            with torch.autocast("cpu", torch.bfloat16):
                heatmaps, presence = forward(images)
            loss = _heatmap_loss(heatmaps.float(), target) + 0.2 * F.binary_cross_entropy_with_logits(
                presence.float(), present
            )
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            advance(1, f"loss {float(loss.detach()):.3f}" if step % 50 == 0 else "")
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.landmark_steps:
                save(folder / "landmarks.pt", step + 1, state)
            progress.check_cancelled()
    return net.eval()


def _arcface(embedding: Tensor, weight: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    cosine_BK = F.linear(F.normalize(embedding), F.normalize(weight)).clamp(-1 + 1e-6, 1 - 1e-6)
    own = cosine_BK.gather(1, labels[:, None])
    with_margin = torch.cos((torch.acos(own) + margin).clamp(max=torch.pi))
    return F.cross_entropy(scale * cosine_BK.scatter(1, labels[:, None], with_margin), labels)


def _augmented_face(corpus: Corpus, row: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """An aligned face as a detector with small errors would give it, sometimes blurred or covered."""
    jitter = rng.normal(0, 1.0, (5, 2)) + rng.normal(0, 0.8, 2)
    face = align_112(corpus.images[row], (corpus.landmarks[row] + jitter).astype(np.float32))
    if rng.random() < 0.5:
        face = face[:, ::-1]
    if rng.random() < 0.4:
        small = int(rng.integers(40, 90))
        face = cv2.resize(cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA), (112, 112))
    if rng.random() < 0.4:
        gain = rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)
        face = np.clip(face * gain + rng.uniform(-15, 15), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        face = np.ascontiguousarray(face)
        h, w = rng.integers(15, 50, 2)
        y, x = rng.integers(0, 112 - h), rng.integers(0, 112 - w)
        face[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.ascontiguousarray(face)


def _moved(
    corpus: Corpus, row: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32], bool]:
    """An image under a random similarity, its heatmaps (5, 64, 64), and whether a face is in it."""
    image, points = np.ascontiguousarray(corpus.images[row]), corpus.landmarks[row]
    if rng.random() < 0.15:
        return _faceless(image, points, rng), np.zeros((5, HEATMAP_PX, HEATMAP_PX), np.float32), False
    template = (ARCFACE_52 - 56.0) * (rng.uniform(0.25, 1.05)) + IMAGE_PX / 2
    affine = similarity(points, template + rng.normal(0, 9, 2))
    angle = np.deg2rad(rng.normal(0, 12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.full(2, IMAGE_PX / 2)
    affine = np.concatenate([turn @ affine[:, :2], (turn @ (affine[:, 2] - centre) + centre)[:, None]], 1)
    border = [cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT][int(rng.integers(3))]
    value = [int(v) for v in rng.integers(0, 256, 3)]
    moved = cv2.warpAffine(image, affine, (IMAGE_PX, IMAGE_PX), borderMode=border, borderValue=value)
    where = transform(affine, points)
    if rng.random() < 0.5:
        moved, where = moved[:, ::-1], (where * [-1, 1] + [IMAGE_PX - 1, 0])[[1, 0, 2, 4, 3]]
    if rng.random() < 0.3:
        small = int(rng.integers(48, 110))
        moved = cv2.resize(cv2.resize(np.ascontiguousarray(moved), (small, small)), (IMAGE_PX, IMAGE_PX))
    return np.ascontiguousarray(moved), _heatmaps(where), True


def _faceless(
    image: NDArray[np.uint8], points: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A patch of the image beside the face, stretched over the frame, or the image upside down."""
    if rng.random() < 0.3:
        return np.ascontiguousarray(image[::-1])
    left, right = float(points[:, 0].min()), float(points[:, 0].max())
    wide = int(max(left, IMAGE_PX - right) - 8)
    if wide < 12:
        return np.ascontiguousarray(np.roll(rng.permutation(image.reshape(-1, 3)).reshape(image.shape), 1))
    strip = image[:, :wide] if left > IMAGE_PX - right else image[:, -wide:]
    top = int(rng.integers(0, IMAGE_PX - wide + 1))
    return np.asarray(
        cv2.resize(np.ascontiguousarray(strip[top : top + wide]), (IMAGE_PX, IMAGE_PX)), np.uint8
    )


def _heatmaps(points: NDArray[np.floating]) -> NDArray[np.float32]:
    grid = np.arange(HEATMAP_PX)
    at = (points + 0.5) * HEATMAP_PX / IMAGE_PX - 0.5
    dx = np.exp(-((grid[None] - at[:, :1]) ** 2) / (2 * SIGMA_PX**2))
    dy = np.exp(-((grid[None] - at[:, 1:]) ** 2) / (2 * SIGMA_PX**2))
    return np.asarray(dy[:, :, None] * dx[:, None, :], np.float32)


def _heatmap_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in which the few pixels of a peak weigh as much as the many without one."""
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * (1 + 30 * target)).mean() * 10
