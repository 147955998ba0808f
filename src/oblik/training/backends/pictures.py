"""What a batch is drawn from: latents, face weights and captions, in albums of one size each.

In: a dataset's folder, a `Family` that encodes, caches. Out: `Albums`, and batches that are a pure
function of a generator. A batch lies within one size (an aspect-ratio bucket), which is drawn as often as it
has pictures. Knows nothing of networks and losses.

N pictures, B batch, T image tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from oblik.datasets.captions import anybody, without_token
from oblik.datasets.manifest import Dataset, Kind, Split
from oblik.diffusion.device import give_back_memory
from oblik.diffusion.families.family import Family
from oblik.errors import InvalidInput
from oblik.packs.manifest import OpenPack
from oblik.paths import sha256_file
from oblik.progress import Progress
from oblik.training.backends.caches import Caches, component_key, key_of
from oblik.training.config import TrainConfig

PHOTO, PRIOR, CLASS, NEGATIVE = "photo", "prior", "class", "negative"
EMPTY = " "
ANYBODY_SHARE = 0.5
"""Of the photos shown without the token, how many speak of anybody; the others of a stranger who looks so."""
Size = tuple[int, int]


class Source(NamedTuple):
    """A picture file of the dataset with its face mask and caption; ``size_px`` is what is learned from."""

    path: Path
    mask: Path | None
    caption: str
    size_px: Size


@dataclass
class Album:
    """Pictures of one size: latents (T, C) and face weights (T,) each, and captions."""

    size_px: Size
    latents: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.captions)


Albums = dict[Size, Album]


@dataclass(frozen=True)
class Batch:
    """Latents x0 (B, T, C), weights (B, T), captions and the loss term that each row belongs to."""

    x0: Tensor
    weights: Tensor
    captions: list[str]
    terms: list[str]
    size_px: Size

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class Shelf:
    """All that a run draws from."""

    train: Albums
    held_out: Albums
    beside: dict[str, Albums]
    trigger: str
    noun: str

    def captions(self) -> list[str]:
        """Every text that a batch can hold."""
        of_photos = [text for album in self.train.values() for text in album.captions]
        others = [*self.held_out.values(), *(a for albums in self.beside.values() for a in albums.values())]
        return [
            EMPTY,
            *of_photos,
            *(without_token(text, self.trigger) for text in of_photos),
            *(anybody(text, self.trigger, self.noun) for text in of_photos),
            *(text for album in others for text in album.captions),
        ]

    def draw(self, rng: np.random.Generator, config: TrainConfig, *, prior: bool) -> Batch:
        """A batch; with ``prior`` some photos come without the token and other people among them."""
        album = _draw_album(self.train, rng)
        rows = rng.integers(0, len(album), config.batch)
        captions = [EMPTY if rng.random() < config.caption_dropout else album.captions[row] for row in rows]
        strangers = (rng.random(len(rows)) < config.prior_share) & prior
        terms = [PRIOR if stranger else PHOTO for stranger in strangers]
        captions = [
            self._about_stranger(text, rng) if stranger else text
            for text, stranger in zip(captions, strangers, strict=True)
        ]
        latents, weights = [album.latents[row] for row in rows], [album.weights[row] for row in rows]
        if prior:
            for term, share in ((CLASS, config.class_share), (NEGATIVE, config.negative_share)):
                other = self.beside.get(term, {}).get(album.size_px)
                for place in _draw_places(rng, len(rows), share) if other else ():
                    assert other is not None
                    row = int(rng.integers(0, len(other)))
                    latents[place], weights[place] = other.latents[row], other.weights[row]
                    captions[place], terms[place] = other.captions[row], term
        return Batch(torch.stack(latents), torch.stack(weights), captions, terms, album.size_px)

    def _about_stranger(self, text: str, rng: np.random.Generator) -> str:
        if rng.random() < ANYBODY_SHARE:
            return anybody(text, self.trigger, self.noun)
        return without_token(text, self.trigger)


def _draw_album(albums: Albums, rng: np.random.Generator) -> Album:
    every = list(albums.values())
    if len(every) == 1:
        return every[0]
    counts = np.array([len(album) for album in every], float)
    return every[int(rng.choice(len(every), p=counts / counts.sum()))]


def _draw_places(rng: np.random.Generator, count: int, share: float) -> list[int]:
    return [int(place) for place in np.flatnonzero(rng.random(count) < share)]


def shrunk(size_px: Size, short_px: int, multiple_px: int) -> Size:
    """A size with its short side shrunk to ``short_px`` and both cut down to multiples; 0: as it is.

    Raises InvalidInput for a size that would have to grow.
    """
    if not short_px or min(size_px) == 0:
        return size_px
    if short_px > min(size_px) or short_px < multiple_px:
        raise InvalidInput(
            f"photos of {size_px[0]}x{size_px[1]} px cannot be learned at a short side of {short_px} px",
            hint=f"oblik train --size {min(size_px)}",
        )
    width, height = (side * short_px // min(size_px) // multiple_px * multiple_px for side in size_px)
    return width, height


def open_shelf(
    dataset: Dataset, folder: Path, pack: OpenPack, family: Family, config: TrainConfig, caches: Caches,
    progress: Progress,
) -> Shelf:  # fmt: skip
    """Encode what is not in the caches.

    Raises InvalidInput for a split without photos, or a photo whose sides the pack does not divide.
    """
    reader = _Reader(family, pack, config, caches, progress)

    def size(width_px: int, height_px: int) -> Size:
        return shrunk((width_px, height_px), config.size_px, pack.manifest.side_multiple_px)

    photos = {
        split: [
            Source(
                folder / str(p.path), folder / str(p.mask), p.caption, size(p.width_px or 0, p.height_px or 0)
            )
            for p in dataset.accepted(split)
        ]
        for split in (Split.train, Split.validation)
    }
    for split, sources in photos.items():
        if not sources:
            raise InvalidInput(f"the {split.value} split has no photos", hint="oblik dataset build PHOTOS")
    extras = {
        kind: [
            Source(
                folder / e.path, folder / e.mask if e.mask else None, e.caption, size(e.width_px, e.height_px)
            )
            for e in dataset.extra(kind)
        ]
        for kind in Kind
    }
    return Shelf(
        train=reader.read("encode train", [*photos[Split.train], *extras[Kind.augmented]]),
        held_out=reader.read("encode validation", photos[Split.validation][: config.held_out]),
        beside={
            CLASS: reader.read("encode class images", extras[Kind.class_image]),
            NEGATIVE: reader.read("encode negatives", extras[Kind.negative]),
        },
        trigger=dataset.trigger,
        noun=dataset.class_noun,
    )


@dataclass(frozen=True)
class _Reader:
    family: Family
    pack: OpenPack
    config: TrainConfig
    caches: Caches
    progress: Progress

    def read(self, title: str, sources: Sequence[Source]) -> Albums:
        """Albums by size, in order of first appearance."""
        albums: Albums = {}
        if not sources:
            return albums
        vae = component_key(self.pack, "vae")
        with self.progress.stage(title, len(sources)) as advance:
            for source in sources:
                self.progress.check_cancelled()
                album = albums.setdefault(self._size(source), Album(source.size_px))
                latents, share = self._encoded(source, vae)
                album.latents.append(latents)
                album.weights.append(1 + (self.config.face_weight - 1) * share)
                album.captions.append(source.caption)
                advance(1)
        return albums

    def _size(self, source: Source) -> Size:
        multiple = self.pack.manifest.side_multiple_px
        if any(side % multiple or not side for side in source.size_px):
            raise InvalidInput(
                f"{source.path.name} is {source.size_px[0]}x{source.size_px[1]} px; the pack takes sides "
                f"that are multiples of {multiple}",
                hint="oblik dataset build PHOTOS",
            )
        return source.size_px

    def _encoded(self, source: Source, vae: str) -> tuple[Tensor, Tensor]:
        mask = sha256_file(source.mask) if source.mask else ""
        shown = source.size_px if self.config.size_px else ""
        key = key_of(vae, self.config.dtype, sha256_file(source.path), mask, shown)

        def make() -> dict[str, Tensor]:
            latents = self.family.latents(_pixels(source.path, "RGB", source.size_px))
            share = (
                self.family.face_share(_pixels(source.mask, "L", source.size_px))
                if source.mask
                else torch.zeros(len(latents))
            )
            give_back_memory()
            return {"latents": latents.cpu(), "face": share}

        found = self.caches.picture(key, make)
        return found["latents"], found["face"]


def _pixels(path: Path, mode: str, size_px: Size) -> NDArray[np.uint8]:
    """A picture at a size, shrunk by one scale for both axes and cut in the middle."""
    with Image.open(path) as image:
        whole = image.convert(mode)
    if whole.size != size_px:
        whole = ImageOps.fit(whole, size_px, Image.Resampling.LANCZOS)
    return np.asarray(whole)
