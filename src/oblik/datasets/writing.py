"""Accepted photos into a version: cut to their bucket, masked, captioned, split.

In: a `Verdict` for every file, what the user wrote and decided. Out: pictures, masks, captions and
thumbnails in the version's folder, and a manifest row for every file. Knows nothing of how verdicts came
about.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oblik.datasets.buckets import Bucket, Crop, through
from oblik.datasets.captions import check_caption
from oblik.datasets.curate import Verdict
from oblik.datasets.decisions import KEEP, Decisions
from oblik.datasets.extras import Wishes
from oblik.datasets.manifest import NOTE, Photo, Split, Status
from oblik.datasets.sources import Captioned, Picture, caption_of
from oblik.datasets.splits import Item, split_items
from oblik.datasets.words import descriptors_in
from oblik.errors import InvalidInput
from oblik.faces.align import transform, warp
from oblik.faces.masks import face_mask
from oblik.images import save_clean_png
from oblik.paths import atomic_write, sha256_file
from oblik.personas.persona import Persona
from oblik.photos.intake import Found, read_photo
from oblik.photos.quality import hardness, view_words
from oblik.progress import Progress

CLOSE_UP, HALF_LENGTH = 0.172, 0.115
COVERING = ("sunglasses", "mask", "scarf", "hat", "hand")


@dataclass(frozen=True)
class Desk:
    """What writing needs besides the verdicts: words by source, decisions, wishes, progress."""

    words: Mapping[str, str]
    decisions: Decisions
    wishes: Wishes
    progress: Progress


def write_photos(folder: Path, persona: Persona, verdicts: Sequence[Verdict], desk: Desk) -> list[Photo]:
    """Write every accepted photo; a row for each file, in order."""
    accepted = [verdict for verdict in verdicts if verdict.status is Status.accepted]
    items = [
        _item(verdict, hard(verdict, desk.words.get(verdict.found.source, ""))[0]) for verdict in accepted
    ]
    split_of = {v.found.source: split for v, split in zip(accepted, split_items(items), strict=True)}
    photos = []
    with desk.progress.stage("cutting out heads", len(accepted)) as advance:
        for verdict in verdicts:
            desk.progress.check_cancelled()
            row = _row(verdict, desk.decisions)
            if verdict.status is Status.accepted:
                photos.append(
                    _write_photo(folder, persona, verdict, row, split_of[verdict.found.source], desk)
                )
                advance()
            else:
                photos.append(_with_thumb(folder, verdict, row))
    return photos


def hard(verdict: Verdict, words: str) -> tuple[float, str]:
    """How hard a photo is and why: what covers the face, as far as captions say so, or what was measured."""
    assert verdict.quality is not None
    measured = hardness(verdict.quality)
    worn = descriptors_in(words)[0].get("accessories", "").split(", ")
    covered = [name for name in COVERING if name in worn]
    return max(measured, (0.6, f"covered: {', '.join(covered)}")) if covered else measured


def framing_of(share: float) -> str:
    """The framing word for an eye distance of ``share`` of the picture's short side."""
    return "close-up" if share > CLOSE_UP else "half length" if share < HALF_LENGTH else "head and shoulders"


def _item(verdict: Verdict, how_hard: float) -> Item:
    assert verdict.quality is not None
    assert verdict.group is not None
    words = view_words(verdict.quality)
    stratum = f"{words['view']} {words.get('side', '')}"
    return Item(verdict.found.sha256, verdict.group, how_hard, stratum)


def _row(verdict: Verdict, decisions: Decisions) -> Photo:
    """The manifest row without an image."""
    flags = verdict.quality.numbers() if verdict.quality else {}
    if verdict.face is not None:
        flags |= {"identity_cosine": round(verdict.cosine, 4), "faces": float(verdict.faces)}
    notes = {NOTE: "; ".join(verdict.found.notes)} if verdict.found.notes else {}
    decision = ""
    if word := decisions.words.get(verdict.found.sha256):
        in_vain = word.verdict == KEEP and verdict.status is not Status.accepted
        decision = word.sentence() + (", but it cannot be used" if in_vain else "")
    return Photo(
        source=verdict.found.source, source_sha256=verdict.found.sha256, status=verdict.status,
        reason=verdict.reason, decision=decision, group=verdict.group, flags=flags,
        attributes={**verdict.attributes, **notes},
    )  # fmt: skip


def _with_thumb(folder: Path, verdict: Verdict, row: Photo) -> Photo:
    if not verdict.thumb:
        return row
    name = f"thumbs/{hashlib.sha256(row.source.encode()).hexdigest()[:20]}.jpg"
    atomic_write(folder / name, verdict.thumb)
    return row.model_copy(update={"thumb": name})


def _write_photo(
    folder: Path, persona: Persona, verdict: Verdict, row: Photo, split: Split, desk: Desk
) -> Photo:
    """Cut the head out, write image, mask and caption, and complete the row."""
    crop, bucket, file = verdict.crop, verdict.bucket, verdict.file
    assert crop is not None
    assert bucket is not None
    assert file is not None
    assert verdict.face is not None
    assert verdict.quality is not None
    landmarks = transform(crop.affine(), verdict.face.landmarks)
    image = Image.fromarray(cut(file, verdict.found, crop, bucket))
    mask = face_mask(np.asarray(landmarks, np.float32), bucket.width_px, bucket.height_px)
    name = f"{bucket.folder}/{verdict.found.sha256[:20]}.png"
    save_clean_png(image, folder / "images" / name)
    save_clean_png(Image.fromarray(mask), folder / "masks" / name)
    words = desk.words.get(verdict.found.source, "")
    framing = framing_of(verdict.quality.unit_px * crop.scale / min(bucket.width_px, bucket.height_px))
    picture = Picture(image, {**row.attributes, "framing": framing}, words)
    made, edited = _caption(persona, picture, row, desk)
    attributes = dict(made.attributes)
    if split is Split.stress:
        attributes["stress"] = hard(verdict, words)[1]
    atomic_write((folder / "images" / name).with_suffix(".txt"), made.caption + "\n")
    return row.model_copy(update={
        "path": f"images/{name}", "mask": f"masks/{name}", "sha256": sha256_file(folder / "images" / name),
        "width_px": bucket.width_px, "height_px": bucket.height_px, "bucket": bucket.name, "split": split,
        "caption": made.caption, "edited": edited, "attributes": attributes,
        "landmarks": [(round(float(x), 2), round(float(y), 2)) for x, y in landmarks],
        "flags": {**row.flags, "crop_scale": round(crop.scale, 4)},
    })  # fmt: skip


def _caption(persona: Persona, picture: Picture, row: Photo, desk: Desk) -> tuple[Captioned, bool]:
    """The user's own caption where there is one, else the source's; whether it is the user's own."""
    wishes = desk.wishes
    try:
        made = caption_of(persona, picture, wishes.source, wishes.others)
        own = desk.decisions.captions.get(row.source_sha256)
        if own is None:
            return made, False
        checked = check_caption(own, persona.trigger, wishes.others)
        return Captioned(checked, {**made.attributes, **descriptors_in(checked)[0]}), True
    except InvalidInput as wrong:
        raise InvalidInput(f"{row.source}: {wrong.message}", hint=wrong.hint) from wrong


def cut(file: Path, found: Found, crop: Crop, bucket: Bucket) -> NDArray[np.uint8]:
    """The crop at bucket size; the photo is decoded no larger than one and a half times what that needs."""
    short = min(found.width_px, found.height_px)
    needed = min(short, math.ceil(short * crop.scale * 1.5))
    image = read_photo(file, short_side_px=needed)
    affine = through(crop, (found.width_px, found.height_px), image.size)
    return warp(np.asarray(image), affine, bucket.width_px, bucket.height_px)
