"""Scores of one kind: a face against a persona's held-out references.

In: unit embeddings. Out: cosines. Knows no threshold and no verdict.

One score, everywhere. The likeness of a picture is the cosine of its embedding and the persona's
centroid, the normalised mean of the *held-out* reference embeddings. Genuine photos, impostors and
generated pictures all get exactly this score, so a threshold found on impostors means the same for a
picture. Beside it stands the cosine to the nearest single reference, calibrated in the same way.
A picture in which no face is found is a miss: it keeps its place in every count.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oblik.datasets.manifest import Dataset, Split
from oblik.errors import InvalidInput, NotFound
from oblik.faces.stack import FaceStack, Unit_D
from oblik.paths import atomic_write

Embeddings_ND = NDArray[np.float32]
Scores_N = NDArray[np.float64]


@dataclass(frozen=True)
class Impostors:
    """Faces of other people: ``embeddings_MD`` (M, D) unit vectors, ``identity_M`` (M,) whose each is."""

    embeddings_MD: Embeddings_ND
    identity_M: NDArray[np.int64]
    stack: str = ""
    source: str = ""

    @classmethod
    def load(cls, path: Path) -> Impostors:
        """Read an ``impostors.npz`` with ``embeddings``, ``identity`` and, if it says, ``stack``, ``source``.

        Raises NotFound when there is no such file, InvalidInput when its arrays do not fit together.
        """
        if not path.is_file():
            raise NotFound(f"no impostor embeddings at {path}", hint="oblik pack verify")
        with np.load(path, allow_pickle=False) as arrays:
            if not {"embeddings", "identity"} <= set(arrays.files):
                raise InvalidInput(f"{path} lacks 'embeddings' or 'identity'", hint="oblik pack verify")
            embeddings_MD, identity_M = arrays["embeddings"], arrays["identity"]
            stack, source = (str(arrays[key]) if key in arrays.files else "" for key in ("stack", "source"))
        if embeddings_MD.ndim != 2 or identity_M.shape != embeddings_MD.shape[:1]:
            raise InvalidInput(
                f"{path}: embeddings and identities do not fit together", hint="oblik pack verify"
            )
        _, identity_M = np.unique(identity_M, return_inverse=True)
        return cls(unit(embeddings_MD), identity_M.astype(np.int64), stack, source or path.name)

    def save(self, path: Path) -> None:
        """Write what `load` reads; half precision keeps cosines to about 0.0005."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            embeddings=self.embeddings_MD.astype(np.float16),
            identity=self.identity_M.astype(np.int32),
            stack=np.array(self.stack),
            source=np.array(self.source),
        )
        atomic_write(path, buffer.getvalue())

    @property
    def identities(self) -> int:
        """How many different people."""
        return len(np.unique(self.identity_M))


@dataclass(frozen=True)
class References:
    """A persona's own photos as embeddings: ``heldout_ND`` never taught, ``train_ND`` did.

    ``stress_ND`` are the hard photos (profile, glasses, shade); ``stress_misses`` had no face.
    """

    heldout_ND: Embeddings_ND
    train_ND: Embeddings_ND
    stress_ND: Embeddings_ND
    stress_misses: int = 0
    stack: str = ""

    @classmethod
    def load(cls, dataset: Dataset, folder: Path) -> References:
        """Read the embeddings of a built dataset: validation photos are the held-out references.

        Raises InvalidInput when no photo was held out.
        """
        with np.load(folder / dataset.embeddings, allow_pickle=False) as arrays:
            known = {key: np.asarray(arrays[key], np.float32) for key in arrays.files}
        heldout, train, stress = (
            [known.get(photo.source_sha256) for photo in dataset.accepted(split)]
            for split in (Split.validation, Split.train, Split.stress)
        )
        if not any(e is not None for e in heldout):
            raise InvalidInput(
                f"dataset {dataset.version} of {dataset.persona!r} holds out no photo with a face",
                hint="add photos, then: oblik dataset build",
            )
        return cls(
            _stack(heldout), _stack(train), _stack(stress), sum(e is None for e in stress), dataset.face_stack
        )


@dataclass(frozen=True)
class Score:
    """One picture. ``centroid`` and ``nearest`` are cosines, None for a miss."""

    centroid: float | None
    nearest: float | None
    faces: int
    embedding: Unit_D | None = None

    @property
    def found(self) -> bool:
        """Whether a face was found."""
        return self.embedding is not None


def centroid(references_ND: Embeddings_ND) -> Unit_D:
    """The normalised mean of unit embeddings (N, D) -> (D,)."""
    return unit(references_ND.mean(axis=0, dtype=np.float64))


def centroid_scores(probes_MD: Embeddings_ND, references_ND: Embeddings_ND) -> Scores_N:
    """Cosine of each probe to the centroid of the references."""
    return np.asarray(probes_MD @ centroid(references_ND), np.float64)


def nearest_scores(probes_MD: Embeddings_ND, references_ND: Embeddings_ND) -> Scores_N:
    """Cosine of each probe to the reference nearest to it."""
    return np.asarray((probes_MD @ references_ND.T).max(axis=1, initial=-1.0), np.float64)


def leave_one_out(references_ND: Embeddings_ND) -> tuple[Scores_N, Scores_N]:
    """Genuine scores: each reference against the others only, to their centroid and to the nearest.

    The other references are one fewer than a picture meets, so the scores are slightly too low, never
    too high. Empty for fewer than two references.
    """
    count = len(references_ND)
    if count < 2:
        return np.empty(0), np.empty(0)
    others_ND = unit(references_ND.sum(axis=0, dtype=np.float64) - references_ND)
    to_centroid = np.einsum("nd,nd->n", others_ND, references_ND, dtype=np.float64)
    cosines_NN = np.asarray(references_ND @ references_ND.T, np.float64)
    np.fill_diagonal(cosines_NN, -1.0)
    return to_centroid, cosines_NN.max(axis=1)


@dataclass(frozen=True)
class ImpostorScores:
    """Scores of people who are not the target: (S,) each. ``target_S`` is -1 for the persona itself,
    else the identity whose photos stood in as references; ``probe_S`` is the identity scored."""

    centroid_S: Scores_N
    nearest_S: Scores_N
    probe_S: NDArray[np.int64]
    target_S: NDArray[np.int64]

    @property
    def pooled_targets(self) -> int:
        """How many other people's references were pooled in."""
        return len(np.unique(self.target_S[self.target_S >= 0]))


def impostor_scores(impostors: Impostors, references_ND: Embeddings_ND, *, at_least: int) -> ImpostorScores:
    """Score every impostor image against the persona, exactly as a picture is scored.

    When that gives fewer than ``at_least`` scores, other people stand in as targets, each with as many
    reference photos as the persona has, until there are enough. A pooled threshold holds for people
    on average; only the persona's own scores carry what is particular to this face, so no more
    targets are pooled than needed. The choice of targets is fixed, not random.
    """
    rows = [_against(impostors, references_ND, -1)]
    total = len(rows[0].centroid_S)
    for target in _stand_ins(impostors, len(references_ND)):
        if total >= at_least:
            break
        photos_ND = impostors.embeddings_MD[impostors.identity_M == target][: len(references_ND)]
        rows.append(_against(impostors, photos_ND, target))
        total += len(rows[-1].centroid_S)
    joined = (np.concatenate([getattr(row, name) for row in rows]) for name in ImpostorScores.__annotations__)
    return ImpostorScores(*joined)


def score_images(stack: FaceStack, images: Iterable[Any], references_ND: Embeddings_ND) -> list[Score]:
    """Score RGB images, (H, W, 3) uint8 arrays or Pillow images, in order; the best face of each counts."""
    return [score_embedding(*_look(stack, image), references_ND) for image in images]


def score_embedding(embedding: Unit_D | None, faces: int, references_ND: Embeddings_ND) -> Score:
    """The score of a face that is already embedded; None is a miss."""
    if embedding is None:
        return Score(None, None, faces)
    probe_1D = embedding[None]
    to_centroid, to_nearest = (
        centroid_scores(probe_1D, references_ND),
        nearest_scores(probe_1D, references_ND),
    )
    return Score(float(to_centroid[0]), float(to_nearest[0]), faces, embedding)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors (..., D) scaled to length one; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _against(impostors: Impostors, references_ND: Embeddings_ND, target: int) -> ImpostorScores:
    others_M = impostors.identity_M != target
    probes_MD, probe_M = impostors.embeddings_MD[others_M], impostors.identity_M[others_M]
    return ImpostorScores(
        centroid_scores(probes_MD, references_ND),
        nearest_scores(probes_MD, references_ND),
        probe_M,
        np.full(len(probe_M), target, np.int64),
    )


def _stand_ins(impostors: Impostors, photos: int) -> list[int]:
    """Identities with at least ``photos`` images, spread evenly over the list."""
    identities, counts = np.unique(impostors.identity_M, return_counts=True)
    able = identities[counts >= photos]
    return [int(i) for i in able[np.argsort(np.arange(len(able)) * 0.6180339887 % 1.0, kind="stable")]]


def _look(stack: FaceStack, image: Any) -> tuple[Unit_D | None, int]:
    pixels_HW3 = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image, np.uint8)
    faces = stack.detect(pixels_HW3)
    return (stack.embed(pixels_HW3, faces[0]) if faces else None), len(faces)


def _stack(embeddings: Sequence[Unit_D | None]) -> Embeddings_ND:
    known = [e for e in embeddings if e is not None]
    return unit(np.stack(known)) if known else np.empty((0, 0), np.float32)
