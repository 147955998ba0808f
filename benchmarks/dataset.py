"""How fast a folder of photos becomes a dataset's decisions, and how often those are right.

Rendered people whom no network has seen. Speed: JPEGs of 12 megapixels; the wall time of intake and curation
less the seconds in face networks, over that of only decoding the same files with Pillow (goal: at most 1.0;
decoding overlaps with the networks where there are cores). Linear: the time per photo, intake included, with
2,000 photos over that with 500 (at most 1.15). Peak memory, also of 2,000 photos to decide on (under 700 MB).
Right: copies and bursts (precision and recall at least 0.98), off-identity photos at 10 % contamination
(recall 0.95 at precision 0.95). Prints a table, then one JSON line; exit status 0 when all goals are met.
``--quick`` takes fewer photos and people.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from oblik.datasets.buckets import buckets_of
from oblik.datasets.curate import Candidate, decide, examine_all
from oblik.faces.stack import Face, FaceStack, Image_HW3, Unit_D, open_stack
from oblik.likeness.pairs import Impostors
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot
from oblik.photos.asymmetry import aligned
from oblik.photos.backdrops import backdrop_of
from oblik.photos.duplicates import Look, appearance, group_photos
from oblik.photos.identity import find_identity, same_person
from oblik.photos.intake import Found, identify, list_files
from oblik.photos.quality import measure
from oblik.progress import RichProgress

FACES = Path(__file__).resolve().parent.parent / "src/oblik/packs/miniature/faces"
TWELVE_MP = (4000, 3000)
DRAWN = (480, 360)
NOON = datetime(2026, 5, 1, 12)


@dataclass
class Timed:
    """A face stack that counts the seconds spent in its networks."""

    stack: FaceStack
    seconds: float = 0.0
    name: str = field(default="timed")

    def detect(self, image: Image_HW3) -> list[Face]:
        started_s = time.perf_counter()
        faces = self.stack.detect(image)
        self.seconds += time.perf_counter() - started_s
        return faces

    def embed(self, image: Image_HW3, face: Face) -> Unit_D:
        started_s = time.perf_counter()
        embedding = self.stack.embed(image, face)
        self.seconds += time.perf_counter() - started_s
        return embedding


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="the same as --photos 12 --people 3")
    words.add_argument("--photos", type=int, default=80, help="12-megapixel photos to time (80)")
    words.add_argument("--people", type=int, default=12, help="rendered people for the rest (12)")
    asked = words.parse_args()
    photos, count = (12, 3) if asked.quick else (asked.photos, asked.people)
    stack = open_stack("onnx", folder=FACES)
    impostors_MD = Impostors.load(FACES / "impostors.npz").embeddings_MD
    speed = measure_speed(stack, impostors_MD, photos)
    people = range(730_000, 730_000 + count)
    figures = {
        **speed,
        **growth(impostors_MD, (speed["intake_and_curation_s"] - speed["networks_s"]) / photos),
        **copies_found(stack, impostors_MD, people, 4 if asked.quick else 10),
        **strangers_found(stack, impostors_MD, people, 18 if asked.quick else 36),
    }
    limits = {
        "ratio_without_networks": ("at most", 1.0), "per_photo_2000_over_500": ("at most", 1.15),
        "peak_mb": ("at most", 700.0), "peak_2000_mb": ("at most", 700.0),
        "copies_precision": ("at least", 0.98), "copies_recall": ("at least", 0.98),
        "strangers_precision": ("at least", 0.95), "strangers_recall": ("at least", 0.95),
    }  # fmt: skip
    goals = {}
    print(f"{'figure':<26} {'measured':>10}  goal")
    for name, value in figures.items():
        way, limit = limits.get(name, ("", 0.0))
        if way:
            goals[name] = value <= limit if way == "at most" else value >= limit
        met = f"{way} {limit:g}  {'met' if goals[name] else 'MISSED'}" if way else ""
        print(f"{name:<26} {value:>10.3f}  {met}")
    ok = all(goals.values())
    print(json.dumps({"name": "dataset", "figures": figures, "goals": goals, "ok": ok}))
    return 0 if ok else 1


def measure_speed(stack: FaceStack, impostors_MD: NDArray[np.float32], photos: int) -> dict[str, float]:
    """Decode, then take in and decide upon, the same files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:  # its memory is not counted
            other.submit(write_large, folder, photos).result()
        files = list_files(folder)
        started_s = time.perf_counter()
        for file in files:
            with Image.open(file) as image:
                image.load()
        decoding_s = time.perf_counter() - started_s
        before_mb = peak_mb()
        timed = Timed(stack)
        started_s = time.perf_counter()
        found = [identify(folder, file) for file in files]
        seen = [one for one in examine_all(files, found, timed, RichProgress()) if isinstance(one, Candidate)]
        decide(seen, buckets_of(768, 16), impostors_MD)
        all_s = time.perf_counter() - started_s
    return {
        "photos": photos, "decoding_s": round(decoding_s, 2), "intake_and_curation_s": round(all_s, 2),
        "networks_s": round(timed.seconds, 2), "ratio": round(all_s / decoding_s, 3),
        "ratio_without_networks": round((all_s - timed.seconds) / decoding_s, 3),
        "peak_before_mb": round(before_mb), "peak_mb": round(peak_mb()),
    }  # fmt: skip


def write_large(folder: Path, photos: int) -> None:
    """12-megapixel JPEGs: a few renderings, enlarged, each with grain of its own."""
    rng = np.random.default_rng(5)
    drawn = [render(Person.from_seed(730_100), Shot.sample(rng), DRAWN).image for _ in range(min(photos, 8))]
    grain = rng.integers(-9, 10, (1000, 1000, 3), dtype=np.int16)
    for number in range(photos):
        image = Image.fromarray(drawn[number % len(drawn)]).resize(TWELVE_MP, Image.Resampling.BICUBIC)
        tiles = np.roll(np.tile(grain, (3, 4, 1)), int(rng.integers(1000)), axis=1)
        pixels = np.clip(np.asarray(image, np.int16) + tiles, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg", quality=90)


def growth(impostors_MD: NDArray[np.float32], intake_s: float) -> dict[str, float]:
    """Deciding on 500 and 2,000 different photos of one person; ``intake_s`` is what taking one in costs."""
    rng = np.random.default_rng(1)
    person = impostors_MD[0]
    candidates = [candidate(number, person, rng) for number in range(2000)]
    decide_s = {}
    for count in (500, 2000):
        started_s = time.perf_counter()
        decide(candidates[:count], buckets_of(768, 16), impostors_MD)
        decide_s[count] = time.perf_counter() - started_s
    per_photo_s = {count: intake_s + seconds / count for count, seconds in decide_s.items()}
    return {
        "decide_500_s": round(decide_s[500], 2), "decide_2000_s": round(decide_s[2000], 2),
        "per_photo_2000_over_500": round(per_photo_s[2000] / per_photo_s[500], 3),
        "peak_2000_mb": round(peak_mb()),
    }  # fmt: skip


def candidate(number: int, person: NDArray[np.float32], rng: np.random.Generator) -> Candidate:
    """A photo of ``person`` as intake leaves it behind: noise around a face."""
    points = np.array([[90, 80], [150, 80], [120, 110], [95, 140], [145, 140]], np.float32)
    pixels = rng.integers(0, 255, (240, 240, 3), dtype=np.uint8)
    face = Face((70, 50, 170, 170), points, 0.9)
    near = person + 0.3 * rng.normal(size=person.shape) / np.sqrt(person.size)
    moment = NOON + timedelta(minutes=number)
    found = Found(f"{number}.jpg", f"{number:064x}", width_px=960, height_px=960, captured_at=moment)
    large = Face((280, 200, 680, 680), points * 4, 0.9)
    return Candidate(
        found=found, file=Path(found.source), thumb=rng.bytes(6000), faces=(large,),
        embeddings_KD=np.asarray(near / np.linalg.norm(near), np.float32)[None],
        qualities=(measure(pixels, face, scale=4.0),), appearances=(appearance(pixels, points),),
        backdrops=(backdrop_of(pixels, face),), levels=(aligned(pixels, points),),
    )  # fmt: skip


def copies_found(
    stack: FaceStack, impostors_MD: NDArray[np.float32], people: Sequence[int], shots: int
) -> dict[str, float]:
    """Pairs put into one group, against pairs that belong there, over folders of one person each."""
    right = wrong = missed = 0
    for seed in people:
        items = folder_of_copies(seed, shots)
        looks, truth = [], []
        for kind, image, at in items:
            pixels = np.asarray(image)
            for face in stack.detect(pixels)[:1]:
                embedding = stack.embed(pixels, face)
                looks.append(Look(appearance(pixels, face.landmarks), at, 1.0, embedding))
                truth.append(kind)
        groups = [kept.group for kept in group_photos(looks, same_face=same_person(impostors_MD))]
        pairs = [(i, j) for i in range(len(looks)) for j in range(i + 1, len(looks))]
        together = {(i, j): truth[i] == truth[j] for i, j in pairs}
        right += sum(same and groups[i] == groups[j] for (i, j), same in together.items())
        wrong += sum(not same and groups[i] == groups[j] for (i, j), same in together.items())
        missed += sum(same and groups[i] != groups[j] for (i, j), same in together.items())
    return {
        "copies_pairs": right + missed, "copies_precision": round(right / max(right + wrong, 1), 4),
        "copies_recall": round(right / max(right + missed, 1), 4),
    }  # fmt: skip


def folder_of_copies(seed: int, shots: int) -> list[tuple[str, Image.Image, datetime | None]]:
    """(moment, picture, time): shots, some with changed copies, near-identical poses hours apart, bursts."""
    rng, person = np.random.default_rng(seed), Person.from_seed(seed)
    items: list[tuple[str, Image.Image, datetime | None]] = []
    for number in range(shots):
        image = Image.fromarray(render(person, Shot.sample(rng), (336, 448)).image)
        items.append((f"shot{number}", jpeg(image, 92), None))
        items += [(f"shot{number}", copy, None) for copy in (copies_of(image) if number % 2 == 0 else [])]
    for number in range(2):
        shot = Shot.portrait(rng)
        near = (shot, replace(shot, yaw_deg=shot.yaw_deg + 6), replace(shot, pitch_deg=shot.pitch_deg + 5))
        for place, one in enumerate(near):
            when = NOON + timedelta(days=number, hours=place)
            items.append((f"near{number}-{place}", drawn_jpeg(person, one), when))
        for place in range(3):
            turned = replace(shot, yaw_deg=-shot.yaw_deg + float(rng.normal(0, 0.8)), seed=shot.seed + 1)
            when = NOON + timedelta(days=10 + number, seconds=place)
            items.append((f"burst{number}", drawn_jpeg(person, turned), when))
    return items


def copies_of(image: Image.Image) -> list[Image.Image]:
    width, height = image.size
    cut = image.crop((round(width * 0.05), round(height * 0.05), width, height))
    small = image.resize((round(width * 0.6), round(height * 0.6)), Image.Resampling.BICUBIC)
    brighter, darker = (ImageEnhance.Brightness(image).enhance(factor) for factor in (1.15, 0.85))
    return [jpeg(one, 80) for one in (image, small, cut, brighter, darker, ImageOps.mirror(image))]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def drawn_jpeg(person: Person, shot: Shot) -> Image.Image:
    return jpeg(Image.fromarray(render(person, shot, (336, 448)).image), 92)


def strangers_found(
    stack: FaceStack, impostors_MD: NDArray[np.float32], people: Sequence[int], photos: int
) -> dict[str, float]:
    """Folders of one person with a tenth of other people's photos, half of them of one other person."""
    right = wrong = missed = 0
    for seed in people:
        rng = np.random.default_rng(seed)
        others = max(2, round(photos / 9))
        who = [seed] * photos + [seed + 1000 + (n // 2 * 7 if n % 2 else 0) for n in range(others)]
        faces, strange = [], []
        for one in who:
            pixels = render(Person.from_seed(one), Shot.sample(rng), (300, 400)).image
            seen = stack.detect(pixels)[:4]
            if seen:
                faces.append(np.stack([stack.embed(pixels, face) for face in seen]))
                strange.append(one != seed)
        identity = find_identity(faces, impostors_MD)
        called = [identity.is_stranger(at) for at in range(len(faces))]
        right += sum(c and s for c, s in zip(called, strange, strict=True))
        wrong += sum(c and not s for c, s in zip(called, strange, strict=True))
        missed += sum(s and not c for c, s in zip(called, strange, strict=True))
    return {
        "strangers": right + missed, "strangers_recall": round(right / max(right + missed, 1), 4),
        "strangers_precision": round(right / max(right + wrong, 1), 4),
    }  # fmt: skip


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    sys.exit(main())
