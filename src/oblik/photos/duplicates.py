"""Which photos are the same moment, and which show somebody else.

In: a `Look` at every photo with a face (perceptual hash, capture time, sharpness, embeddings). Out: groups
of near-duplicates and bursts with the one to keep, and the face in each photo that is the persona's.
Knows nothing of files or datasets; cosines are compared within one face stack only.
Not guaranteed: a twin is the persona, and in a folder that shows two people equally often the larger
cluster wins by a hair; the report shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_BITS_APART = 8
SAME_SMALL = 0.93
SAME_FACE = 0.85
BURST_S = 3.0
BURST_FACE = 0.6
SMALL_PX = 24
MIN_IMPOSTORS = 100
STRANGER_FMR = 0.05


@dataclass(frozen=True)
class Look:
    """What one photo looks like. ``small`` is a grey thumbnail, zero mean and unit length."""

    hash_64: int
    small: NDArray[np.float32]
    captured_at: datetime | None
    sharpness: float
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Kept:
    """What grouping decided for one photo: its group, and, unless it is kept, by which one it was beaten."""

    group: int
    beaten_by: int | None = None
    kind: str = ""


def appearance(image: Image.Image) -> tuple[int, NDArray[np.float32]]:
    """The 64-bit DCT hash and the normalised thumbnail of a picture."""
    import imagehash

    bits = imagehash.phash(image, hash_size=8).hash.ravel()
    reduced = image.convert("L").resize((SMALL_PX, SMALL_PX), Image.Resampling.BOX)
    small = np.asarray(reduced, dtype=np.float32).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2), _unit(small - small.mean())


def group_photos(looks: Sequence[Look]) -> list[Kept]:
    """Group the same pictures and the bursts; in each group the sharpest stays (the first of equals)."""
    parent = list(range(len(looks)))
    kinds: dict[int, str] = {}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j, kind in _pairs(looks):
        low, high = sorted((root(i), root(j)))
        parent[high] = low
        for member in (i, j):
            kinds[member] = "duplicate" if "duplicate" in (kind, kinds.get(member)) else kind
    roots = [root(i) for i in range(len(looks))]
    numbers = {r: n for n, r in enumerate(sorted(set(roots)))}
    best = {r: max((i for i in range(len(looks)) if roots[i] == r), key=lambda i: (looks[i].sharpness, -i))
            for r in numbers}  # fmt: skip
    return [
        Kept(numbers[r]) if best[r] == i else Kept(numbers[r], best[r], kinds.get(i, "duplicate"))
        for i, r in enumerate(roots)
    ]


def _pairs(looks: Sequence[Look]) -> list[tuple[int, int, str]]:
    found = []
    for i, first in enumerate(looks):
        for j in range(i + 1, len(looks)):
            kind = _relation(first, looks[j])
            if kind:
                found.append((i, j, kind))
    return found


def _relation(a: Look, b: Look) -> str:
    cosine = float(a.embedding @ b.embedding)
    alike = (a.hash_64 ^ b.hash_64).bit_count() <= HASH_BITS_APART and float(a.small @ b.small) >= SAME_SMALL
    if alike and cosine >= SAME_FACE:
        return "duplicate"
    if a.captured_at is None or b.captured_at is None or cosine < BURST_FACE:
        return ""
    return "burst" if abs((a.captured_at - b.captured_at).total_seconds()) <= BURST_S else ""


@dataclass(frozen=True)
class Identity:
    """Who the folder is about: the centroid, the face chosen in each photo with its cosine to the
    centroid, and the cosine below which a face is somebody else's (with where that number is from)."""

    centroid_D: NDArray[np.float32]
    face_of: tuple[int, ...]
    cosines: tuple[float, ...]
    threshold: float
    source: str

    def is_stranger(self, photo: int) -> bool:
        """Whether no face of this photo is the persona's."""
        return self.cosines[photo] < self.threshold


def find_identity(
    faces: Sequence[NDArray[np.float32]], impostors_MD: NDArray[np.float32] | None = None
) -> Identity:
    """Find the largest cluster among the faces of each photo, an array (K, D) with K >= 1, best first.

    Starts from the medoid of the half of the photos that agree best, then alternates choosing the face
    nearest to the centroid and re-estimating the centroid from the inliers.
    """
    centroid = _medoid(np.stack([photo[0] for photo in faces]))
    threshold, source = 0.0, ""
    chosen: list[int] = []
    cosines = np.zeros(len(faces))
    for _ in range(6):
        chosen = [int(np.argmax(photo @ centroid)) for photo in faces]
        best = np.stack([photo[k] for photo, k in zip(faces, chosen, strict=True)])
        cosines = best @ centroid
        threshold, source = _threshold(cosines, centroid, impostors_MD)
        core = cosines >= max(threshold, float(np.quantile(cosines, 0.3)))
        centroid = _unit(best[core].mean(axis=0))
    cosines = np.array([float(photo[k] @ centroid) for photo, k in zip(faces, chosen, strict=True)])
    return Identity(centroid, tuple(chosen), tuple(float(c) for c in cosines), threshold, source)


def _medoid(faces_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    similar = np.sort(faces_ND @ faces_ND.T, axis=1)
    agreement = similar[:, len(faces_ND) // 2 :].mean(axis=1)
    core = np.argsort(-(faces_ND @ faces_ND[int(np.argmax(agreement))]), kind="stable")
    return _unit(faces_ND[core[: max(1, len(faces_ND) // 2)]].mean(axis=0))


def _threshold(
    cosines: NDArray[np.float64], centroid: NDArray[np.float32], impostors_MD: NDArray[np.float32] | None
) -> tuple[float, str]:
    if impostors_MD is not None and len(impostors_MD) >= MIN_IMPOSTORS:
        place = float(np.quantile(impostors_MD @ centroid, 1 - STRANGER_FMR))
        return place, f"impostors at FMR {STRANGER_FMR:.0%}"
    return _gap(cosines), "largest gap in this folder"


def _gap(cosines: NDArray[np.float64]) -> float:
    """The middle of the widest gap below the median, when it is wide for this folder; otherwise -1."""
    ordered = np.sort(cosines)
    half = len(ordered) // 2
    if half < 2:
        return -1.0
    gaps = np.diff(ordered[: half + 1])
    at = int(np.argmax(gaps))
    inside = ordered[at + 1 :]
    wide = max(0.15, 2.0 * float(inside.max() - np.median(inside)))
    return float(ordered[at : at + 2].mean()) if gaps[at] > wide else -1.0


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float32)
