"""The renders that the miniature's networks learn from.

In: how many people, how many shots of each. Out: a folder of plain arrays, rendered once and read by
memory map. Seeds below `HELD_OUT` are for training; impostors and tests take theirs from above it.

N images, P people.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oblik.miniature.architecture import IMAGE_PX
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot
from oblik.progress import Progress

HELD_OUT = 500_000
STRESS_SHARE, PORTRAIT_SHARE = 0.15, 0.25


@dataclass(frozen=True)
class Corpus:
    """Rendered photographs. ``descriptors`` has one dict of words per image."""

    images: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    people: NDArray[np.int64]
    stress: NDArray[np.bool_]
    descriptors: list[dict[str, str]]


def shot_of(person_seed: int, index: int) -> tuple[Shot, bool]:
    """The ``index``-th shot of a person, and whether it is a stress shot. Deterministic."""
    rng = np.random.default_rng([person_seed, index, 11])
    kind = rng.random()
    if kind < STRESS_SHARE:
        return Shot.sample(rng, stress=True), True
    return (Shot.portrait(rng) if kind < STRESS_SHARE + PORTRAIT_SHARE else Shot.sample(rng)), False


def hard_shot_of(person_seed: int, index: int) -> tuple[Shot, bool]:
    """The ``index``-th of a person's further shots, every one of them a stress shot."""
    return Shot.sample(np.random.default_rng([person_seed, index, 13]), stress=True), True


def render_corpus(
    folder: Path, people: range, shots: int, workers: int, progress: Progress, *, hard: bool = False
) -> Corpus:
    """Render into ``folder`` unless it is complete already, and open it; ``hard`` takes stress shots only."""
    done = folder / "corpus.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        count = len(people) * shots
        images = np.lib.format.open_memmap(
            folder / "images.npy", mode="w+", dtype=np.uint8, shape=(count, IMAGE_PX, IMAGE_PX, 3)
        )
        rows: list[tuple[NDArray[np.float32], int, bool, dict[str, str]]] = []
        with ProcessPoolExecutor(workers) as pool, progress.stage("render people", len(people)) as step:
            jobs = pool.map(_shoot, people, repeat(shots), repeat(hard), chunksize=16)
            for pixels, meta in jobs:
                images[len(rows) : len(rows) + shots] = pixels
                rows += meta
                step(1)
        images.flush()
        np.savez(
            folder / "truth.npz",
            landmarks=np.stack([row[0] for row in rows]),
            people=np.array([row[1] for row in rows]),
            stress=np.array([row[2] for row in rows]),
        )
        done.write_text(json.dumps([row[3] for row in rows]), encoding="utf-8")
    return open_corpus(folder)


def open_corpus(folder: Path) -> Corpus:
    """Open a rendered corpus; images stay on disk until they are read."""
    truth = np.load(folder / "truth.npz")
    return Corpus(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        landmarks=truth["landmarks"],
        people=truth["people"],
        stress=truth["stress"],
        descriptors=json.loads((folder / "corpus.json").read_text(encoding="utf-8")),
    )


def _shoot(
    seed: int, shots: int, hard: bool
) -> tuple[NDArray[np.uint8], list[tuple[NDArray[np.float32], int, bool, dict[str, str]]]]:
    person = Person.from_seed(seed)
    pixels, meta = [], []
    for index in range(shots):
        shot, stress = hard_shot_of(seed, index) if hard else shot_of(seed, index)
        photo = render(person, shot, IMAGE_PX)
        pixels.append(photo.image)
        meta.append((photo.landmarks.astype(np.float32), seed, stress, photo.descriptors))
    return np.stack(pixels), meta
