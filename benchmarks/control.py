"""Do pictures of the miniature follow a pose or a depth image?

Rendered people whom the pack never saw (seeds from 920200). The prompt says what the caption of such a photo
says, the view included; the control image is drawn from the render's exact landmarks or depth. Each picture
is made by a plain `QwenImageControlNetPipeline` twice from the same noise, with the net at scale 0 (which is
the pack alone) and at 1, and its face is found by the pack's stack. Goals: with pose, and with depth, the
mean distance of the five landmarks to where they were asked is smaller, by an interval that excludes 0.
Prints a table, then one JSON line; exit status 0 when all goals are met. ``--quick`` measures 16 people.

B batch, H height, W width.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import QwenImageControlNetModel, QwenImageControlNetPipeline, QwenImagePipeline
from numpy.typing import NDArray
from PIL import Image

from oblik.datasets.captions import caption
from oblik.faces.stack import open_stack
from oblik.generation.adapters import best_face
from oblik.generation.control import depth_image, pose_image
from oblik.images import grid, save_clean_png
from oblik.likeness.intervals import mean_interval
from oblik.miniature.architecture import IMAGE_PX
from oblik.miniature.corpus import shot_of
from oblik.miniature.people import Person
from oblik.miniature.prompts import is_portrait
from oblik.miniature.render import Rendering, render
from oblik.packs.store import BUNDLED

FIRST, PEOPLE, BATCH, STEPS, GUIDANCE = 920_200, 64, 8, 15, 3.0


class Found(NamedTuple):
    """Where a picture's landmarks lie; None where no face was found."""

    kind: str
    scale: float
    landmarks: list[NDArray[np.float32] | None]
    images: list[Image.Image]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="16 people instead of 64")
    words.add_argument("--pack", type=Path, default=BUNDLED / "miniature", help="the pack's folder")
    words.add_argument("--scale", type=float, default=1.0, help="how closely the control is followed")
    words.add_argument("--out", type=Path, help="a folder for a contact sheet")
    asked = words.parse_args()
    photos = [photo_of(seed) for seed in range(FIRST, FIRST + (16 if asked.quick else PEOPLE))]
    pipeline = open_controlled(asked.pack)
    stack = open_stack("onnx", folder=asked.pack / "faces")
    plain = paint(pipeline, stack, photos, "pose", 0.0)
    figures: dict[str, Any] = {"people": len(photos), "scale": asked.scale}
    goals, runs = {}, [plain]
    print(f"{'control':>8} {'misses':>7} {'distance px':>12} {'turn error':>11} {'nearer by, px':>26}")
    figures["none"] = line("none", plain, photos)
    for kind in ("pose", "depth"):
        run = paint(pipeline, stack, photos, kind, asked.scale)
        runs.append(run)
        figures[kind] = line(kind, run, photos, plain)
        goals[f"follows_{kind}"] = figures[kind]["nearer_px"][1] > 0
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        shown = [
            picture
            for place in range(min(8, len(photos)))
            for picture in (
                Image.fromarray(photos[place].image), hint(photos[place], "pose"),
                hint(photos[place], "depth"),
                *(run.images[place] for run in runs),
            )
        ]  # fmt: skip
        save_clean_png(grid(shown, 6, cell_px=IMAGE_PX), asked.out / "control.png")
    print(json.dumps({"name": "control", "figures": figures, "goals": goals, "ok": all(goals.values())}))
    return 0 if all(goals.values()) else 1


def photo_of(seed: int) -> Rendering:
    """The first portrait of a person in the half of the views that the pack's captions speak of."""
    person = Person.from_seed(seed)
    for index in range(100):
        shot, stress = shot_of(seed, index)
        photo = render(person, shot, IMAGE_PX)
        if not stress and is_portrait(photo.descriptors):
            leftward = photo.descriptors["view"] == "three-quarter" and turn(photo.landmarks) < 0
            if not leftward:
                return photo
    raise ValueError(f"no portrait of {seed}")


def hint(photo: Rendering, kind: str) -> Image.Image:
    """The control image."""
    return depth_image(photo.depth) if kind == "depth" else pose_image(photo.landmarks, IMAGE_PX, IMAGE_PX)


def turn(landmarks_52: NDArray[np.float32]) -> float:
    """How far the nose is beside the middle of the eyes, in distances of the eyes."""
    left, right, nose = landmarks_52[:3]
    return float((nose[0] - (left[0] + right[0]) / 2) / max(float(np.linalg.norm(right - left)), 1.0))


def open_controlled(pack: Path) -> Any:
    """The pack with its net, by diffusers alone."""
    net = QwenImageControlNetModel.from_pretrained(pack / "controlnet", local_files_only=True).float()
    plain = QwenImagePipeline.from_pretrained(pack, torch_dtype=torch.float32, local_files_only=True)
    pipeline = QwenImageControlNetPipeline(**plain.components, controlnet=net)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def paint(pipeline: Any, stack: Any, photos: list[Rendering], kind: str, scale: float) -> Found:
    """A picture for each photo's caption and control image."""
    images: list[Image.Image] = []
    for start in range(0, len(photos), BATCH):
        some = photos[start : start + BATCH]
        pixels = np.stack([np.asarray(hint(photo, kind)) for photo in some]).transpose(0, 3, 1, 2)
        images += pipeline(
            [caption(photo.descriptors) for photo in some], [" "] * len(some), true_cfg_scale=GUIDANCE,
            num_inference_steps=STEPS, width=IMAGE_PX, height=IMAGE_PX,
            control_image=torch.from_numpy(pixels).float() / 127.5 - 1, controlnet_conditioning_scale=scale,
            generator=[torch.Generator().manual_seed(start + place) for place in range(len(some))],
        ).images  # fmt: skip
    faces = [best_face(stack, np.asarray(image)) for image in images]
    return Found(kind, scale, [None if face is None else face.landmarks for face in faces], images)


def line(name: str, run: Found, photos: list[Rendering], plain: Found | None = None) -> dict[str, Any]:
    """Figures of one run, printed."""
    found = [each for each in zip(run.landmarks, photos, strict=True) if each[0] is not None]
    distance = [distance_px(marks, photo) for marks, photo in found]
    turns = [abs(turn(marks) - turn(photo.landmarks)) for marks, photo in found]
    figures: dict[str, Any] = {
        "misses": len(photos) - len(found),
        "distance_px": round(float(np.mean(distance)), 2),
        "turn_error": round(float(np.mean(turns)), 3),
    }
    nearer = ""
    if plain:
        pairs = zip(plain.landmarks, run.landmarks, photos, strict=True)
        gains = [
            distance_px(before, photo) - distance_px(after, photo)
            for before, after, photo in pairs
            if before is not None and after is not None
        ]
        gain = mean_interval(np.asarray(gains), np.random.default_rng(0))
        figures["nearer_px"] = [round(value, 2) for value in (gain.value, gain.low, gain.high)]
        nearer = f"{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]"
    said = (figures["misses"], figures["distance_px"], figures["turn_error"])
    print("{:>8} {:>7} {:>12} {:>11} {:>26}".format(name, *said, nearer))
    return figures


def distance_px(landmarks_52: NDArray[np.float32], photo: Rendering) -> float:
    """Mean distance of the five landmarks to where they were asked."""
    return float(np.linalg.norm(landmarks_52 - photo.landmarks, axis=1).mean())


if __name__ == "__main__":
    sys.exit(main())
