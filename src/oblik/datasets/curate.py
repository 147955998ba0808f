"""From files to decisions: which photos stay, which are set aside, and why, in words.

In: identified files and a face stack. Out: a `Verdict` for every file. Nothing is written or deleted.
Knows nothing of captions, splits or versions. Files are decoded in a few threads, faces are looked for in the
thread that asks: face stacks need not be safe to share. A handful of reduced photos is in memory at a time,
and of whole ones as many as a `Room` holds.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from oblik.datasets.buckets import Bucket, Crop, choose_bucket, crop_head
from oblik.datasets.manifest import Status
from oblik.faces.stack import Face, FaceStack
from oblik.photos.asymmetry import Face_HW, compared
from oblik.photos.backdrops import Backdrop, backdrop_of, same_backdrops
from oblik.photos.duplicates import Appearance, Look, appearance, group_photos
from oblik.photos.flags import flags_of
from oblik.photos.identity import Identity, find_identity, same_person
from oblik.photos.intake import Found, take_aloud
from oblik.photos.pixels import Room, quiet
from oblik.photos.quality import Quality, light_words, measure, view_words
from oblik.progress import Progress

WORK_PX = 640
DECODERS = min(4, os.cpu_count() or 1)
THUMB_PX = 176
MAX_FACES = 8
MIN_SCORE = 0.3
MAX_ENLARGEMENT = 2.0
BLUR_SHARE = 0.12
NOBODY: NDArray[np.float32] = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Candidate:
    """One picture as it was looked at. Landmarks are in pixels of the upright photo."""

    found: Found
    file: Path
    thumb: bytes
    faces: tuple[Face, ...]
    embeddings_KD: NDArray[np.float32]
    qualities: tuple[Quality, ...]
    appearances: tuple[Appearance, ...]
    backdrops: tuple[Backdrop, ...]
    levels: tuple[Face_HW | None, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of one file. ``face`` and what follows are set where a face was chosen.

    ``attributes`` are measured words for captions and coverage; ``level`` is what asymmetry is measured on.
    """

    found: Found
    status: Status
    reason: str = ""
    file: Path | None = None
    thumb: bytes = b""
    face: Face | None = None
    embedding: NDArray[np.float32] | None = None
    quality: Quality | None = None
    faces: int = 0
    cosine: float = 0.0
    group: int | None = None
    bucket: Bucket | None = None
    crop: Crop | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    level: Face_HW | None = None


def examine_all(
    files: Sequence[Path], found: Sequence[Found], stack: FaceStack, progress: Progress
) -> Iterator[Candidate | Verdict]:
    """Decode files, find faces and measure them, in order; a Verdict where nothing can be measured.

    Raises JobCancelled between photos when somebody asked to stop.
    """
    again, room = same_files(found), Room()
    todo = iter(zip(files, found, strict=True))
    waiting: deque[tuple[Path, Found, Future[tuple[Found, Image.Image | None]] | None]] = deque()

    def feed() -> None:
        for file, one in islice(todo, 2 * DECODERS - len(waiting)):
            fresh = one.source not in again
            task = pool.submit(take_aloud, one, file, short_side_px=WORK_PX, room=room) if fresh else None
            waiting.append((file, one, task))

    with (
        quiet(),
        ThreadPoolExecutor(DECODERS) as pool,
        progress.stage("looking at photos", len(files)) as step,
    ):
        feed()
        while waiting:
            progress.check_cancelled()
            file, one, task = waiting.popleft()
            feed()
            if task is None:
                yield Verdict(one, Status.set_aside, f"the same file as {again[one.source]}", file)
            else:
                yield _look_at(*task.result(), file, stack)
            step(note=one.source)


def _look_at(found: Found, image: Image.Image | None, file: Path, stack: FaceStack) -> Candidate | Verdict:
    if image is None:
        return Verdict(found, Status.refused, found.refused)
    pixels = np.asarray(image)
    faces = [face for face in stack.detect(pixels) if face.score >= MIN_SCORE][:MAX_FACES]
    scale = found.width_px / image.width
    embeddings_KD = np.stack([stack.embed(pixels, face) for face in faces]) if faces else NOBODY
    qualities = [measure(pixels, face, scale=scale, focal_35mm=found.focal_35mm) for face in faces]
    return Candidate(
        found=found, file=file, thumb=_thumb(image), faces=tuple(_scaled(face, scale) for face in faces),
        embeddings_KD=embeddings_KD, qualities=tuple(qualities),
        appearances=tuple(appearance(pixels, face.landmarks) for face in faces),
        backdrops=tuple(backdrop_of(pixels, face) for face in faces),
        levels=tuple(
            compared(pixels, face.landmarks, quality.yaw_deg)
            for face, quality in zip(faces, qualities, strict=True)
        ),
    )  # fmt: skip


def decide(
    candidates: Sequence[Candidate],
    buckets: Sequence[Bucket],
    impostors_MD: NDArray[np.float32] | None = None,
    told: float | None = None,
) -> tuple[list[Verdict], Identity | None]:
    """Choose the persona's face in each photo and set aside what does not serve, in the order given.

    ``impostors_MD`` and ``told``: see `find_identity`.
    """
    seen = [candidate for candidate in candidates if candidate.faces]
    if not seen:
        return [_no_face(candidate) for candidate in candidates], None
    identity = find_identity([candidate.embeddings_KD for candidate in seen], impostors_MD, told)
    verdicts = [_chosen(candidate, identity, at, buckets) for at, candidate in enumerate(seen)]
    verdicts = _without_blurred(_without_repeats(seen, verdicts, identity, same_person(impostors_MD)))
    verdicts = _with_backdrops(seen, verdicts, identity)
    by_source = {verdict.found.source: verdict for verdict in verdicts}
    return [by_source.get(c.found.source) or _no_face(c) for c in candidates], identity


def _no_face(candidate: Candidate) -> Verdict:
    return Verdict(
        candidate.found, Status.set_aside, "no face was found in it", candidate.file, candidate.thumb
    )


def _chosen(candidate: Candidate, identity: Identity, at: int, buckets: Sequence[Bucket]) -> Verdict:
    which = identity.face_of[at]
    face, quality = candidate.faces[which], candidate.qualities[which]
    found = candidate.found
    bucket = choose_bucket(found.width_px, found.height_px, buckets)
    flags = flags_of(
        quality, short_side_px=min(found.width_px, found.height_px),
        wanted_px=min(bucket.width_px, bucket.height_px),
    )  # fmt: skip
    crop = crop_head(face.landmarks, found.width_px, found.height_px, bucket)
    reason = ""
    if identity.is_stranger(at):
        reason = f"somebody else (likeness {identity.cosines[at]:.2f}, below {identity.threshold:.2f})"
    elif crop.scale > MAX_ENLARGEMENT:
        need = bucket.height_px / MAX_ENLARGEMENT
        reason = f"the head is too small ({crop.height:.0f} px high with its margin, {need:.0f} needed)"
    return Verdict(
        found=replace(found, notes=found.notes + flags), reason=reason,
        status=Status.set_aside if reason else Status.accepted,
        file=candidate.file, thumb=candidate.thumb, face=face, embedding=candidate.embeddings_KD[which],
        quality=quality, faces=len(candidate.faces), cosine=identity.cosines[at], bucket=bucket, crop=crop,
        attributes={**view_words(quality), **light_words(quality)}, level=candidate.levels[which],
    )  # fmt: skip


def _with_backdrops(
    seen: Sequence[Candidate], verdicts: Sequence[Verdict], identity: Identity
) -> list[Verdict]:
    """Number the backgrounds of accepted photos: equal numbers look alike."""
    kept = [at for at, verdict in enumerate(verdicts) if verdict.status is Status.accepted]
    numbers = same_backdrops([seen[at].backdrops[identity.face_of[at]] for at in kept])
    done = list(verdicts)
    for at, number in zip(kept, numbers, strict=True):
        done[at] = replace(verdicts[at], attributes={**verdicts[at].attributes, "backdrop": str(number)})
    return done


def _without_repeats(
    seen: Sequence[Candidate], verdicts: Sequence[Verdict], identity: Identity, same_face: float
) -> list[Verdict]:
    """Group what is still accepted; of each group the sharpest stays."""
    kept = [at for at, verdict in enumerate(verdicts) if verdict.status is Status.accepted]
    looks = [_look(seen[at], verdicts[at], identity.face_of[at]) for at in kept]
    done = list(verdicts)
    for at, fate in zip(kept, group_photos(looks, same_face=same_face), strict=True):
        if fate.beaten_by is None:
            done[at] = replace(verdicts[at], group=fate.group)
            continue
        winner, mine = verdicts[kept[fate.beaten_by]], verdicts[at]
        what = "nearly the same picture as" if fate.kind == "duplicate" else "the same moment as"
        reason = f"{what} {winner.found.source} (sharpness {_sharp(mine):.0f} against {_sharp(winner):.0f})"
        done[at] = replace(mine, status=Status.set_aside, reason=reason, group=fate.group)
    return done


def _without_blurred(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Set aside what is far blurrier than the others of this folder."""
    sharp = [_sharp(verdict) for verdict in verdicts if verdict.status is Status.accepted]
    if not sharp:
        return list(verdicts)
    middle = float(np.median(sharp))
    return [
        replace(
            verdict, status=Status.set_aside,
            reason=f"out of focus or shaken (sharpness {_sharp(verdict):.0f}, usual here is {middle:.0f})",
        )
        if verdict.status is Status.accepted and _sharp(verdict) < BLUR_SHARE * middle
        else verdict
        for verdict in verdicts
    ]  # fmt: skip


def same_files(files: Sequence[Found]) -> dict[str, str]:
    """Source -> the earlier source with the same content."""
    first: dict[str, str] = {}
    again = {}
    for found in files:
        if found.sha256 and found.sha256 in first:
            again[found.source] = first[found.sha256]
        first.setdefault(found.sha256, found.source)
    return again


def _look(candidate: Candidate, verdict: Verdict, which: int) -> Look:
    return Look(
        candidate.appearances[which], candidate.found.captured_at, _sharp(verdict),
        candidate.embeddings_KD[which],
    )  # fmt: skip


def _sharp(verdict: Verdict) -> float:
    return verdict.quality.sharpness if verdict.quality else 0.0


def _scaled(face: Face, scale: float) -> Face:
    left, top, right, bottom = (edge * scale for edge in face.box)
    return Face((left, top, right, bottom), np.asarray(face.landmarks * scale, np.float32), face.score)


def _thumb(image: Image.Image) -> bytes:
    small = ImageOps.contain(image, (THUMB_PX, THUMB_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=78)
    return buffer.getvalue()
