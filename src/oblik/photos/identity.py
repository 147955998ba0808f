"""Whom a folder is about, and which photos show somebody else.

In: the embeddings of all faces of each photo, from one face stack; strangers of the same stack when there are
any, or what its makers say. Out: the face in each photo that is the persona's, and the cosine below which a
face is somebody else's. Knows nothing of files, and no number of any face stack: thresholds come from
impostors, else from the makers, else from this folder.
Not guaranteed: a twin is the persona, and in a folder that shows two people equally often the larger
cluster wins by a hair; the report shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_IMPOSTORS = 100
STRANGER_FMR = 0.05
SAME_PERSON_FMR = 0.01
MAX_PAIRED = 1500


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
    faces: Sequence[NDArray[np.float32]],
    impostors_MD: NDArray[np.float32] | None = None,
    told: float | None = None,
) -> Identity:
    """Find the largest cluster among the faces of each photo, an array (K, D) with K >= 1, best first.

    ``told`` is the cosine under which the makers of the face stack see two people, for want of impostors.

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
        threshold, source = _threshold(cosines, centroid, impostors_MD, told)
        core = cosines >= max(threshold, float(np.quantile(cosines, 0.3)))
        centroid = _unit(best[core].mean(axis=0))
    cosines = np.array([float(photo[k] @ centroid) for photo, k in zip(faces, chosen, strict=True)])
    return Identity(centroid, tuple(chosen), tuple(float(c) for c in cosines), threshold, source)


def same_person(impostors_MD: NDArray[np.float32] | None) -> float:
    """The cosine that pairs of strangers reach at FMR 1 %; -1 (everybody passes) without enough of them.

    Impostor sets hold several photos of each person, side by side: rows are compared half a set apart.
    """
    if impostors_MD is None or len(impostors_MD) < MIN_IMPOSTORS:
        return -1.0
    some = impostors_MD[:: max(1, len(impostors_MD) // MAX_PAIRED)]
    half = len(some) // 2
    return float(np.quantile(some[:half] @ some[half : 2 * half].T, 1 - SAME_PERSON_FMR))


def _medoid(faces_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    similar = np.sort(faces_ND @ faces_ND.T, axis=1)
    agreement = similar[:, len(faces_ND) // 2 :].mean(axis=1)
    core = np.argsort(-(faces_ND @ faces_ND[int(np.argmax(agreement))]), kind="stable")
    return _unit(faces_ND[core[: max(1, len(faces_ND) // 2)]].mean(axis=0))


def _threshold(
    cosines: NDArray[np.float64], centroid: NDArray[np.float32], impostors_MD: NDArray[np.float32] | None,
    told: float | None,
) -> tuple[float, str]:  # fmt: skip
    if impostors_MD is not None and len(impostors_MD) >= MIN_IMPOSTORS:
        place = float(np.quantile(impostors_MD @ centroid, 1 - STRANGER_FMR))
        return place, f"impostors at FMR {STRANGER_FMR:.0%}"
    if told is not None:
        return told, "what the makers of the face networks say"
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
