"""The face part of the miniature pack: ONNX networks, their settings, impostors.

In: trained networks. Out: ``detector.onnx``, ``embedder.onnx``, ``faces.json`` and ``impostors.npz``:
embeddings of rendered people that no network has seen, through the very stack that measures likeness.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oblik.faces.backends.onnx import OnnxStack
from oblik.likeness.pairs import Impostors
from oblik.miniature.architecture import IMAGE_PX
from oblik.miniature.corpus import HELD_OUT, shot_of
from oblik.miniature.face_networks import EMBEDDING, Embedder, Landmarks
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.progress import Progress

NAME = "oblik-miniature-2"
IMPOSTORS, SHOTS_EACH = 400, 10


def write_faces(
    folder: Path, embedder: Embedder, landmarks: Landmarks, workers: int, progress: Progress
) -> None:
    """Export both networks and measure the impostors with them."""
    export_networks(folder, embedder, landmarks)
    settings = {
        "name": NAME,
        "detector": {"file": "detector.onnx", "kind": "heatmap", "size_px": IMAGE_PX, "threshold": 0.3},
        "embedder": {"file": "embedder.onnx", "size_px": 112, "mean": 127.5, "std": 127.5, "dims": EMBEDDING},
    }
    (folder / "faces.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    vectors, people = [], []
    seeds = range(HELD_OUT, HELD_OUT + IMPOSTORS)
    with ProcessPoolExecutor(workers) as pool, progress.stage("measure impostors", IMPOSTORS) as advance:
        measured = pool.map(_embed_person, [folder] * IMPOSTORS, seeds, chunksize=8)
        for seed, found in zip(seeds, measured, strict=True):
            vectors.append(found)
            people += [seed] * len(found)
            advance(1)
    source = f"rendered people, seeds {seeds[0]} to {seeds[-1]}, {SHOTS_EACH} photos of each"
    strangers = Impostors(np.concatenate(vectors), np.array(people), stack=NAME, source=source)
    strangers.save(folder / "impostors.npz")


def export_networks(folder: Path, embedder: Embedder, landmarks: Landmarks) -> None:
    """Write ``embedder.onnx`` and ``detector.onnx``."""
    folder.mkdir(parents=True, exist_ok=True)
    _export(embedder, torch.zeros(1, 3, 112, 112), folder / "embedder.onnx", ["face"], ["embedding"])
    image = torch.zeros(1, 3, IMAGE_PX, IMAGE_PX)
    _export(landmarks, image, folder / "detector.onnx", ["image"], ["heatmaps", "presence"])


def _embed_person(folder: Path, seed: int) -> NDArray[np.float32]:
    stack, person, found = OnnxStack(folder), Person.from_seed(seed), []
    for index in range(SHOTS_EACH):
        photo = render(person, shot_of(seed, index)[0], IMAGE_PX).image
        faces = stack.detect(photo)
        if faces:
            found.append(stack.embed(photo, faces[0]))
    return np.stack(found) if found else np.zeros((0, EMBEDDING), np.float32)


def _export(net: nn.Module, example: torch.Tensor, path: Path, inputs: list[str], outputs: list[str]) -> None:
    """ONNX with every parameter under its own name, batch norm unmerged; the runtime merges it."""
    torch.onnx.export(
        net.eval(),
        (example,),
        str(path),
        input_names=inputs,
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in [*inputs, *outputs]},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )
