"""Does an edit put the person into the frame, and does the third rung raise likeness?

On rendered people whom no network saw, without a LoRA: (1) photos of strangers as frames, their face drawn
again towards photos of the person; (2) pictures of the pack itself, made from the person's description, their
faces drawn again (rung 3). Both with identity tokens in the prompt and, where the pack has editing weights,
with references beside the noise as well; in the strangers' photos once more with the pose of the stranger's
face kept. Likeness is the cosine to the mean of four other photos; a picture without a face counts as 0. How
a face sits in its frame is how far its five landmarks lie from those that were there (mean, pixels of the
frame); pictures without a face are left out of that and counted. Goals: every gain in likeness but that of
the kept pose lies above 0, and the kept pose brings the landmarks nearer; each by its interval. Prints a
table, then one JSON line; exit status 0 when every goal is met.
``--quick`` uses fewer people.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from datetime import datetime, timezone
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oblik.datasets.captions import caption
from oblik.faces.masks import face_mask
from oblik.faces.stack import Face, FaceStack, open_stack
from oblik.generation.adapters import Sight, best_face, lack
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.ladder import EDIT_PHOTOS, Heights
from oblik.generation.plan import AdapterName, Control, Edit, Plan, Reference
from oblik.images import grid, save_clean_png
from oblik.likeness.intervals import mean_interval
from oblik.likeness.pairs import centroid, unit
from oblik.miniature.corpus import shot_of
from oblik.miniature.people import Person
from oblik.miniature.prompts import is_portrait
from oblik.miniature.render import render
from oblik.packs.manifest import OpenPack
from oblik.packs.store import open_pack
from oblik.paths import Home, private_dir
from oblik.progress import Progress, RichProgress, SilentProgress

FIRST, STRANGERS = 920_100, 921_100
PHOTOS, PHOTO_PX = 8, 192
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TAIL = {"expression": "neutral", "view": "frontal", "scene": "park", "light": "daylight"}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="six people")
    words.add_argument("--people", type=int, default=24, help="how many people")
    words.add_argument("--steps", type=int, default=20, help="sampling steps")
    words.add_argument("--scale", type=float, default=0.8, help="how closely a kept pose is followed")
    words.add_argument("--out", type=Path, help="a folder for a contact sheet")
    words.add_argument("--pack", default="miniature", help="name or folder of the pack")
    asked = words.parse_args()
    pack, progress = open_pack(asked.pack, Home(Path())), RichProgress()
    sheet: list[Image.Image] = []
    scores = measured(pack, 6 if asked.quick else asked.people, asked.steps, asked.scale, progress, sheet)
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        columns = len(sheet) // len(next(iter(scores.values())))
        save_clean_png(grid(sheet, columns, cell_px=pack.manifest.native_size_px), asked.out / "edit.png")
    rng = np.random.default_rng(0)
    goals, figures = {}, {}
    print(f"{'':<28} {'mean':>6} {'95 % interval by person':>26}")
    for name, values in scores.items():
        figures[name] = [round(value, 3) for value in interval(values, rng)]
        print(f"{name:<34} {figures[name][0]:>6.3f} {figures[name][1]:>17.3f} .. {figures[name][2]:.3f}")
        if ("gain" in name and "pose" not in name) or "nearer" in name:
            goals[name] = figures[name][1] > 0
    for name in (each for each in scores if each.endswith(", px") and "nearer" not in each):
        figures[f"{name}: no face"] = [int(np.isnan(scores[name]).sum())]
    print(json.dumps({"name": "edit", "figures": figures, "goals": goals, "ok": all(goals.values())}))
    return 0 if all(goals.values()) else 1


def interval(values: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean over people with its interval."""
    found = mean_interval(values[~np.isnan(values)], rng)
    return found.value, found.low, found.high


def measured(
    pack: OpenPack, people: int, steps: int, scale: float, progress: Progress, sheet: list[Image.Image]
) -> dict[str, NDArray[np.float64]]:
    """Likeness of every person by what was done, the gains, how the faces sit; pictures into ``sheet``."""
    stack = open_stack("onnx", folder=pack.faces_folder)
    ways: dict[str, AdapterName] = {"tokens": "identity-tokens"}
    if lack("edit-reference", pack) is None:
        ways["references"] = "edit-reference"
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch, progress.stage("edit", people) as advance:
        root = Path(scratch)
        engine = DiffusersEngine("cpu", sight=Sight(root, lambda: stack))
        for seed in range(FIRST, FIRST + people):
            person = of_person(seed, steps, scale, pack, engine, root, stack, ways, sheet)
            for name, value in person.items():
                rows.setdefault(name, []).append(value)
            advance(1)
    scores = {name: np.array(values) for name, values in rows.items()}
    for what in ("frame", "rung 3"):
        for way in ways:
            scores[f"{what}: gain by {way}"] = scores[f"{what}, {way}"] - scores[f"{what}, before"]
        if "references" in ways:
            more = scores[f"{what}, references"] - scores[f"{what}, tokens"]
            scores[f"{what}: gain over tokens"] = more
    for way in ways:
        free, kept = f"frame, {way}", f"frame, {way}, pose kept"
        scores[f"{free}: gain by pose"] = scores[kept] - scores[free]
        scores[f"{free}: nearer by, px"] = scores[f"{free}, px"] - scores[f"{kept}, px"]
    return scores


def of_person(
    seed: int, steps: int, scale: float, pack: OpenPack, engine: DiffusersEngine, root: Path,
    stack: FaceStack, ways: dict[str, AdapterName], sheet: list[Image.Image],
) -> dict[str, float]:  # fmt: skip
    """The likeness of one person in a stranger's photo and in a picture of the pack, by way; how far the
    drawn landmarks lie from the stranger's."""
    home = private_dir(root / f"p{seed}")
    photos = portraits_of(seed, PHOTOS, PHOTO_PX)
    for place, photo in enumerate(photos[: PHOTOS // 2]):
        Image.fromarray(photo).save(home / f"{place}.png")
    middle_D = centroid(unit(np.stack([vector_of(photo, stack) for photo in photos[PHOTOS // 2 :]])))
    (frame,) = portraits_of(seed + STRANGERS - FIRST, 1, pack.manifest.native_size_px)
    face = best_face(stack, frame)
    assert face is not None
    Image.fromarray(frame).save(home / "frame.png")
    side = frame.shape[0]
    Image.fromarray(face_mask(face.landmarks, side, side, grow=1.15)).save(home / "alpha.png")
    found = {"frame, before": float(vector_of(frame, stack) @ middle_D)}
    plain = plan_of(seed, steps, pack)
    edit = Edit(image="frame.png", mask="alpha.png")
    runs = {"rung 3, before": plain}
    for way, adapter in ways.items():
        references = references_of(adapter)
        drawn = plain.model_copy(update={"edit": edit, "references": references})
        kept = (Control(kind="pose", weight=scale),)
        runs[f"frame, {way}"] = drawn
        runs[f"frame, {way}, pose kept"] = drawn.model_copy(update={"controls": kept})
        runs[f"rung 3, {way}"] = plain.model_copy(update={"references": references})
    sheet.append(Image.fromarray(frame))
    for name, plan in runs.items():
        folder = home / name.replace(" ", "-")
        record = engine.run(
            plan, pack=pack, artifact=None, out_dir=folder, now=NOW, progress=SilentProgress()
        )
        made = np.asarray(Image.open(folder / record.pictures[0].file))
        found[name] = float(vector_of(made, stack) @ middle_D)
        if plan.edit:
            found[f"{name}, px"] = apart_px(best_face(stack, made), face)
            sheet.append(Image.fromarray(made))
    return found


def apart_px(drawn: Face | None, there: Face) -> float:
    """Mean distance of five landmarks; NaN where no face was drawn."""
    if drawn is None:
        return float("nan")
    return float(np.linalg.norm(drawn.landmarks - there.landmarks, axis=1).mean())


def references_of(adapter: AdapterName) -> tuple[Reference, ...]:
    """The person's photos as rung 3 refers to them."""
    shown = EDIT_PHOTOS if adapter == "edit-reference" else PHOTOS // 2
    weight = Heights().edit_weight
    return tuple(Reference(image=f"{place}.png", adapter=adapter, weight=weight) for place in range(shown))


def plan_of(seed: int, steps: int, pack: OpenPack) -> Plan:
    """One portrait by description."""
    side = pack.manifest.native_size_px
    values: dict[str, Any] = {
        "pack": pack.manifest.name, "persona": f"p{seed}", "seeds": (seed,), "steps": steps, "guidance": 3.0,
        "width_px": side, "height_px": side, "dtype": "float32",
        "prompt": caption({**Person.from_seed(seed).descriptors, **TAIL}),
    }  # fmt: skip
    return Plan.model_validate(values)


def portraits_of(seed: int, wanted: int, side_px: int) -> list[NDArray[np.uint8]]:
    """Rendered portraits of a person: near, not in profile, the face uncovered."""
    shots = (shot_of(seed, place)[0] for place in count())
    good = (shot for shot in shots if is_portrait(shot.descriptors) and not shot.hat)
    return [render(Person.from_seed(seed), shot, side_px).image for shot in islice(good, wanted)]


def vector_of(image: NDArray[np.uint8], stack: FaceStack) -> NDArray[np.float32]:
    """The face's vector; zero where no face is found."""
    face = best_face(stack, image)
    return np.zeros(128, np.float32) if face is None else np.asarray(stack.embed(image, face), np.float32)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
