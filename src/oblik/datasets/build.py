"""A folder of photos to one immutable version of a dataset.

In: a persona, a folder, a face stack, a pack's manifest. Out: ``datasets/v001/`` with ``dataset.json``,
``images/``, ``masks/``, ``faces.npz`` and ``report.html``; originals of accepted photos, owner-only, in the
vault. The same inputs again make no new version. Knows nothing of tensors, of training, or of the clock.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oblik import __version__
from oblik.datasets.buckets import Bucket, Crop, buckets_of
from oblik.datasets.captions import caption
from oblik.datasets.curate import Candidate, Verdict, decide, examine, same_files
from oblik.datasets.manifest import Dataset, Photo, Split, Status, read_dataset
from oblik.datasets.report import write_report
from oblik.datasets.splits import Item, split_items
from oblik.datasets.words import descriptors_in, read_words, words_for
from oblik.errors import InvalidInput
from oblik.faces.align import transform, warp
from oblik.faces.masks import face_mask
from oblik.faces.stack import FaceStack
from oblik.images import save_clean_png
from oblik.packs.manifest import Pack
from oblik.paths import Home, atomic_write, latest_version, next_version, private_dir
from oblik.personas.persona import Persona, Scope
from oblik.personas.store import consent_sha256
from oblik.photos.intake import Found, identify, list_files, read_photo
from oblik.photos.quality import hardness, light_words, view_words
from oblik.progress import Progress

MIN_USABLE = 8
FORMAT = 1
EMBEDDINGS = "faces.npz"
CLOSE_UP, HALF_LENGTH = 0.172, 0.115
COVERING = ("sunglasses", "mask", "scarf", "hat", "hand")
TOOLS = ("pillow", "numpy", "opencv-python-headless", "imagehash")


def build_dataset(
    persona: Persona,
    photos_dir: Path,
    *,
    home: Home,
    stack: FaceStack,
    pack: Pack,
    now: datetime,
    progress: Progress,
    impostors_MD: NDArray[np.float32] | None = None,
) -> Dataset:
    """Build the next version, or return the newest one when nothing changed since.

    ``impostors_MD``, unit embeddings of strangers from the same stack, place the cosine below which a
    face is somebody else's; without them the widest gap in the folder does.

    Raises:
        ConsentError: the consent does not cover portraits today.
        NotFound: no such folder.
        InvalidInput: fewer than 8 usable photos, or captions that name an art style.
    """
    persona.consent.require(Scope.portraits, now.date())
    datasets = home.persona(persona.slug).datasets
    files, found = _identified(photos_dir, progress)
    words = _words(photos_dir, found)
    inputs = _fingerprint(persona, pack, stack, found, words)
    latest = latest_version(datasets)
    if latest is not None:
        dataset = read_dataset(datasets / latest)
        if dataset.tools.get("inputs") == inputs:
            return dataset
    buckets = buckets_of(pack.native_size_px, pack.side_multiple_px, pack.training.get("buckets", ["1:1"]))
    verdicts = _verdicts(files, found, stack, buckets, impostors_MD, progress)
    _require_enough(verdicts, photos_dir)
    folder = Path(tempfile.mkdtemp(prefix=".building-", dir=private_dir(datasets)))
    try:
        photos = _write_photos(folder, persona, verdicts, words, progress)
        dataset = Dataset(
            persona=persona.slug, version=next_version(datasets), trigger=persona.trigger,
            class_noun=persona.class_noun, created_at=now, consent_sha256=consent_sha256(persona.consent),
            face_stack=stack.name, short_side_px=pack.native_size_px, embeddings=EMBEDDINGS,
            photos=photos, tools={**_tools(), "inputs": inputs},
        )  # fmt: skip
        _write_embeddings(folder / EMBEDDINGS, verdicts)
        atomic_write(folder / "dataset.json", dataset.model_dump_json(indent=1) + "\n")
        write_report(folder, dataset, {v.found.source: v.thumb for v in verdicts}, synthetic=pack.synthetic)
        _keep_originals(home.persona(persona.slug).vault / "originals", verdicts)
        folder.rename(datasets / dataset.version)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return dataset


def _identified(photos_dir: Path, progress: Progress) -> tuple[list[Path], list[Found]]:
    files = list_files(photos_dir)
    found = []
    with progress.stage("reading names", len(files)) as advance:
        for file in files:
            found.append(identify(photos_dir, file))
            advance()
    return files, found


def _words(photos_dir: Path, found: Sequence[Found]) -> dict[str, str]:
    table = read_words(photos_dir)
    return {f.source: words for f in found if (words := words_for(photos_dir, f.source, table))}


def _fingerprint(
    persona: Persona, pack: Pack, stack: FaceStack, found: Sequence[Found], words: Mapping[str, str]
) -> str:
    inputs = {
        "format": FORMAT, "tools": _tools(), "stack": stack.name,
        "persona": [persona.slug, persona.trigger, persona.class_noun, sorted(persona.descriptors.items())],
        "consent": consent_sha256(persona.consent),
        "pack": [pack.name, pack.version, pack.native_size_px, pack.side_multiple_px,
                 pack.training.get("buckets", ["1:1"])],
        "files": [[f.source, f.sha256, f.refused] for f in found], "words": dict(words),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _tools() -> dict[str, str]:
    return {"oblik": __version__, **{name: version_of(name) for name in TOOLS}}


def _verdicts(
    files: Sequence[Path], found: Sequence[Found], stack: FaceStack, buckets: Sequence[Bucket],
    impostors_MD: NDArray[np.float32] | None, progress: Progress,
) -> list[Verdict]:  # fmt: skip
    done: dict[str, Verdict] = {}
    candidates: list[Candidate] = []
    again = same_files(found)
    with progress.stage("looking at photos", len(files)) as advance:
        for file, one in zip(files, found, strict=True):
            progress.check_cancelled()
            if one.source in again:
                done[one.source] = Verdict(
                    one, Status.set_aside, f"the same file as {again[one.source]}", file
                )
            else:
                seen = examine(one, file, stack)
                if isinstance(seen, Verdict):
                    done[one.source] = seen
                else:
                    candidates.append(seen)
            advance(note=one.source)
    decided, _ = decide(candidates, buckets, impostors_MD)
    done.update((verdict.found.source, verdict) for verdict in decided)
    return [done[one.source] for one in found]


def _require_enough(verdicts: Sequence[Verdict], photos_dir: Path) -> None:
    usable = sum(verdict.status is Status.accepted for verdict in verdicts)
    if usable >= MIN_USABLE:
        return
    reasons = Counter(v.reason.split(" (")[0].split(" as ")[0] for v in verdicts if v.reason)
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
    raise InvalidInput(
        f"only {usable} of {len(verdicts)} files can be used and {MIN_USABLE} are needed"
        + (f" ({why})" if why else ""),
        hint=f"add clear photos of this person, 40 are best, to {photos_dir} and run the command again",
    )


def _write_photos(
    folder: Path, persona: Persona, verdicts: Sequence[Verdict], words: Mapping[str, str], progress: Progress
) -> list[Photo]:
    accepted = [verdict for verdict in verdicts if verdict.status is Status.accepted]
    hard = [_hard(verdict, words.get(verdict.found.source, "")) for verdict in accepted]
    splits = split_items(
        [_item(verdict, how_hard) for verdict, (how_hard, _) in zip(accepted, hard, strict=True)]
    )
    split_of = {verdict.found.source: split for verdict, split in zip(accepted, splits, strict=True)}
    photos = []
    with progress.stage("cutting out heads", len(accepted)) as advance:
        for verdict in verdicts:
            progress.check_cancelled()
            if verdict.status is not Status.accepted:
                photos.append(_row(verdict))
                continue
            split = split_of[verdict.found.source]
            photos.append(_write_photo(folder, persona, verdict, split, words.get(verdict.found.source, "")))
            advance()
    return photos


def _hard(verdict: Verdict, words: str) -> tuple[float, str]:
    """How hard a photo is and why: what covers the face, as far as captions say so, or what was measured."""
    assert verdict.quality is not None
    measured = hardness(verdict.quality)
    worn = descriptors_in(words)[0].get("accessories", "").split(", ")
    covered = [name for name in COVERING if name in worn]
    return max(measured, (0.6, f"covered: {', '.join(covered)}")) if covered else measured


def _item(verdict: Verdict, how_hard: float) -> Item:
    assert verdict.quality is not None
    assert verdict.group is not None
    words = view_words(verdict.quality)
    stratum = f"{words['view']} {words.get('side', '')}"
    return Item(verdict.found.sha256, verdict.group, how_hard, stratum)


def _row(verdict: Verdict) -> Photo:
    """The manifest row without an image."""
    flags = verdict.quality.numbers() if verdict.quality else {}
    if verdict.face is not None:
        flags |= {"identity_cosine": round(verdict.cosine, 4), "faces": float(verdict.faces)}
    notes = {"note": "; ".join(verdict.found.notes)} if verdict.found.notes else {}
    words = {**view_words(verdict.quality), **light_words(verdict.quality)} if verdict.quality else {}
    return Photo(
        source=verdict.found.source, source_sha256=verdict.found.sha256, status=verdict.status,
        reason=verdict.reason, group=verdict.group, flags=flags, attributes={**words, **notes},
    )  # fmt: skip


def _write_photo(folder: Path, persona: Persona, verdict: Verdict, split: Split, words: str) -> Photo:
    """Cut the head out, write image and mask, and complete the row."""
    crop, bucket, file = verdict.crop, verdict.bucket, verdict.file
    assert crop is not None
    assert bucket is not None
    assert file is not None
    assert verdict.face is not None
    assert verdict.quality is not None
    landmarks = transform(crop.affine(), verdict.face.landmarks)
    image = Image.fromarray(_cut(file, verdict.found, crop, bucket))
    mask = face_mask(np.asarray(landmarks, np.float32), bucket.width_px, bucket.height_px)
    name = f"{bucket.name.replace(':', 'x')}/{verdict.found.sha256[:20]}.png"
    save_clean_png(image, folder / "images" / name)
    save_clean_png(Image.fromarray(mask), folder / "masks" / name)
    row = _row(verdict)
    said, rest = descriptors_in(words)
    said.pop("framing", None)
    framing = framing_of(verdict.quality.unit_px * crop.scale / min(bucket.width_px, bucket.height_px))
    attributes = {**row.attributes, "framing": framing, **said, **({"words": rest} if rest else {})}
    if split is Split.stress:
        attributes["stress"] = _hard(verdict, words)[1]
    line = caption({**persona.descriptors, **attributes}, token=persona.trigger, noun=persona.class_noun)
    return row.model_copy(update={
        "path": f"images/{name}", "mask": f"masks/{name}", "sha256": _sha256(folder / "images" / name),
        "width_px": bucket.width_px, "height_px": bucket.height_px, "bucket": bucket.name, "split": split,
        "caption": ", ".join(part for part in (line, rest) if part), "attributes": attributes,
        "landmarks": [(round(float(x), 2), round(float(y), 2)) for x, y in landmarks],
        "flags": {**row.flags, "crop_scale": round(crop.scale, 4)},
    })  # fmt: skip


def framing_of(share: float) -> str:
    """The framing word for an eye distance of ``share`` of the picture's short side."""
    return "close-up" if share > CLOSE_UP else "half length" if share < HALF_LENGTH else "head and shoulders"


def _cut(file: Path, found: Found, crop: Crop, bucket: Bucket) -> NDArray[np.uint8]:
    """The crop at bucket size; the photo is decoded no larger than one and a half times what that needs."""
    short = min(found.width_px, found.height_px)
    needed = min(short, math.ceil(short * crop.scale * 1.5))
    image = read_photo(file, short_side_px=needed)
    reduced = image.width / found.width_px
    smaller = Crop(crop.left * reduced, crop.top * reduced, crop.width * reduced, crop.height * reduced,
                   crop.scale / reduced)  # fmt: skip
    return warp(np.asarray(image), smaller.affine(), bucket.width_px, bucket.height_px)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write_embeddings(file: Path, verdicts: Sequence[Verdict]) -> None:
    arrays = {
        v.found.sha256: np.asarray(v.embedding, np.float32) for v in verdicts if v.status is Status.accepted
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    atomic_write(file, buffer.getvalue())


def _keep_originals(vault: Path, verdicts: Sequence[Verdict]) -> None:
    private_dir(vault)
    for verdict in verdicts:
        if verdict.status is Status.accepted and verdict.file is not None:
            kept = vault / f"{verdict.found.sha256}{verdict.file.suffix.lower()}"
            if not kept.exists():
                atomic_write(kept, verdict.file.read_bytes())
