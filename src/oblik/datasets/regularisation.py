"""Pictures of other people: class images that keep the noun what it was, and negatives that contrast.

In: how many, or a folder; a `Paint` function that makes pictures; a cache folder of the pack. Out: pictures
with captions that hold no token. What was painted once is kept for every persona: its file name is its
size, seed and prompt. Class images are DreamBooth's prior preservation (Ruiz et al. 2023, section 3.3).
Knows nothing of engines, and not whether a trainer uses them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from oblik.datasets.buckets import Bucket, choose_bucket, crop_head, crop_middle
from oblik.datasets.captions import LIGHTS, SCENES, caption, refuse_style_words, refuse_tokens
from oblik.datasets.manifest import Kind
from oblik.datasets.words import words_for
from oblik.errors import InvalidInput
from oblik.faces.align import warp
from oblik.faces.stack import FaceStack
from oblik.images import open_upright
from oblik.labels import PLAIN, Label
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.photos.intake import identify, list_files, take
from oblik.progress import Progress

Paint = Callable[[str, Sequence[int], tuple[int, int]], Sequence[Image.Image]]
"""Prompt, seeds, (width, height) in pixels -> one picture for each seed."""

MOST = 1000
PER_PROMPT = 4
FIRST_SEED = {Kind.class_image: 100_000, Kind.negative: 200_000}
VIEWS = ("frontal", "three-quarter", "frontal", "profile")
FRAMINGS = ("head and shoulders", "close-up", "half length")
CONTRAST = {
    "gender": ("man", "woman", "person"),
    "age": ("old", "young", "middle-aged"),
    "hair_color": ("gray", "black", "blond", "red", "brown"),
    "hair_style": ("short", "long", "curly", "bob"),
}


@dataclass(frozen=True)
class Stranger:
    """One picture of somebody else, at a bucket's size."""

    kind: Kind
    image: Image.Image
    bucket: Bucket
    caption: str
    origin: str
    seed: int | None = None


@dataclass(frozen=True)
class Painter:
    """What paints, on which pack, and where finished pictures are kept."""

    paint: Paint
    pack: Pack
    cache: Path


def cache_folder(home: Home, pack: Pack) -> Path:
    """Where the painted pictures of a pack lie, whoever the persona is."""
    return home.root / "class-images" / f"{pack.name}-{pack.version}"


def prompt_of(kind: Kind, noun: str, seed: int) -> str:
    """What the picture of a seed shows: a stranger, in words of the same grammar as captions."""
    at = (seed - FIRST_SEED[kind]) // PER_PROMPT
    words = {
        "view": VIEWS[at % len(VIEWS)], "framing": FRAMINGS[at % len(FRAMINGS)],
        "scene": list(SCENES)[at % len(SCENES)], "light": list(LIGHTS)[at % len(LIGHTS)],
    }  # fmt: skip
    if kind is Kind.class_image:
        return caption(words, noun=noun)
    others = {key: table[at % len(table)] for key, table in CONTRAST.items()}
    return caption({**words, **others})


def painted(
    kind: Kind, count: int, noun: str, buckets: Sequence[Bucket], painter: Painter, progress: Progress,
    most: int = MOST,
) -> Iterator[Stranger]:  # fmt: skip
    """``count`` pictures in turn of every bucket; only those that are not in the cache are painted.

    Raises InvalidInput for more than ``most``.
    """
    if not 0 <= count <= most:
        raise InvalidInput(f"{count} pictures of other people", hint=f"ask for 200 to 400, at most {most}")
    folder = painter.cache / (re.sub(r"\W+", "-", noun.lower()) if kind is Kind.class_image else "others")
    with progress.stage(f"painting {kind.value} pictures", count) as advance:
        for start in range(0, count, PER_PROMPT):
            progress.check_cancelled()
            seeds = [FIRST_SEED[kind] + n for n in range(start, min(start + PER_PROMPT, count))]
            bucket = buckets[start // PER_PROMPT % len(buckets)]
            prompt = prompt_of(kind, noun, seeds[0])
            files = [folder / _file_name(bucket, seed, prompt) for seed in seeds]
            missing = [(seed, file) for seed, file in zip(seeds, files, strict=True) if not file.is_file()]
            if missing:
                size = (bucket.width_px, bucket.height_px)
                made = painter.paint(prompt, [seed for seed, _ in missing], size)
                for (_, file), image in zip(missing, made, strict=True):
                    PLAIN.save(image, file, Label())
            for seed, file in zip(seeds, files, strict=True):
                origin = f"{painter.pack.name} {painter.pack.version}"
                yield Stranger(kind, open_upright(file), bucket, prompt, origin, seed)
            advance(len(seeds))


def from_folder(
    kind: Kind, folder: Path, noun: str, buckets: Sequence[Bucket], stack: FaceStack, progress: Progress,
    others: Sequence[str] = (),
) -> Iterator[Stranger]:  # fmt: skip
    """The pictures of a folder, each cut to its bucket around the face, else in the middle.

    The .txt beside a picture is its caption; without one it is "photo of a <noun>". Unreadable files are left
    out. Raises NotFound, or InvalidInput for a token or a style word, or when no picture can be read.
    """
    files = list_files(folder)
    read = 0
    with progress.stage(f"reading {kind.value} pictures", len(files)) as advance:
        for file in files:
            progress.check_cancelled()
            found, image = take(identify(folder, file), file)
            advance()
            if image is None:
                continue
            read += 1
            line = words_for(folder, found.source, {}) or caption({}, noun=noun)
            refuse_style_words(line)
            refuse_tokens(line, others)
            bucket = choose_bucket(image.width, image.height, buckets)
            yield Stranger(kind, _cut(image, bucket, stack), bucket, line, found.source)
    if not read:
        raise InvalidInput(
            f"{folder} holds no readable picture", hint="give a folder of portraits, or a number"
        )


def _cut(image: Image.Image, bucket: Bucket, stack: FaceStack) -> Image.Image:
    pixels = np.asarray(image)
    faces = stack.detect(pixels)
    crop = (
        crop_head(faces[0].landmarks, image.width, image.height, bucket)
        if faces
        else crop_middle(image.width, image.height, bucket)
    )
    return Image.fromarray(warp(pixels, crop.affine(), bucket.width_px, bucket.height_px))


def _file_name(bucket: Bucket, seed: int, prompt: str) -> str:
    words = hashlib.sha256(prompt.encode()).hexdigest()[:10]
    return f"{bucket.width_px}x{bucket.height_px}-{seed}-{words}.png"
