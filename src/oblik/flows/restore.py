"""Restore the faces of a measured batch: what passed the likeness check, a little, measured again.

In: a batch in the gallery, a restorer, the persona's ruler. Out: copies of the pictures that passed under
``gallery/restored/<batch>``, with a record that says what was done and the likeness before and after; a
picture that falls below the threshold is not kept. The batch itself is untouched. Knows nothing of networks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from oblik.errors import Conflict, InvalidInput
from oblik.flows.calibrate import Ruler
from oblik.flows.gallery import Batch
from oblik.generation.record import FILE_NAME, Picture, Record, Restoration, keep_picture, write_record
from oblik.generation.restoration import Restorer, restored
from oblik.images import open_upright
from oblik.labels import Labeller
from oblik.likeness.pairs import Score, score_images
from oblik.paths import Home, private_dir
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress

FOLDER = "restored"


class Means(NamedTuple):
    """By which network, with which weights (their hash) and how much of it."""

    network: str
    weights_sha256: str
    weight: float


def restore(
    persona: Persona, batch: Batch, means: Means, *, restorer: Restorer,
    ruler: Callable[[], Ruler], labels: Labeller, home: Home, progress: Progress, now: datetime,
) -> tuple[Record, Path]:  # fmt: skip
    """Restore what passed. The record's `Restoration` has the means of likeness before and after.

    Raises:
        ConsentError: the persona's consent does not cover portraits today.
        InvalidInput: nothing was measured, nothing passed, or nothing passed any more afterwards.
        Conflict: the batch was restored before, or is itself a restored one.
    """
    progress = under_consent(persona, "restore", home=home, now=now, progress=progress)
    folder = home.persona(persona.slug).gallery / FOLDER / batch.name
    if batch.record.restoration is not None or (folder / FILE_NAME).is_file():
        undo = f"oblik gallery delete {FOLDER}/{batch.name}"
        raise Conflict(f"{batch.name} was restored before", hint=undo)
    passed = passing(batch.pictures, batch.record.threshold)
    measured = ruler()
    threshold, kept, before, after = measured.calibration.threshold, [], [], []
    shutil.rmtree(folder, ignore_errors=True)  # what a run that was stopped left
    private_dir(folder)
    record = batch.record.model_copy(update={"started_at": now, "grid": None, "pictures": []})
    with progress.stage("restore", len(passed)) as advance:
        for picture in passed:
            progress.check_cancelled()
            image, score = _again(batch.folder / picture.file, restorer, means.weight, measured)
            advance()
            before.append(picture.likeness or 0.0)
            after.append(score.centroid or 0.0)
            if score.centroid is None or score.centroid < threshold:
                continue
            made = keep_picture(image, folder / picture.file, picture.seed, record.plan, labels)
            kept.append(made.model_copy(update={"likeness": score.centroid, "face_found": True}))
    record.pictures, record.threshold = kept, threshold
    record.restoration = Restoration(
        of=batch.name, network=means.network, weights_sha256=means.weights_sha256, weight=means.weight,
        likeness_before=float(np.mean(before)), likeness_after=float(np.mean(after)),
        dropped=len(passed) - len(kept),
    )  # fmt: skip
    if not kept:
        folder.rmdir()
        raise InvalidInput(
            f"restored, no picture reaches the threshold {threshold:.3f} any more (mean likeness "
            f"{record.restoration.likeness_before:.3f} -> {record.restoration.likeness_after:.3f})",
            hint="leave the pictures as they are, or use a smaller --weight",
        )
    write_record(record, folder)
    return record, folder


def passing(pictures: Sequence[Picture], threshold: float | None) -> list[Picture]:
    """Those whose likeness was measured and reaches the threshold. Raises InvalidInput when there is none."""
    if threshold is None:
        raise InvalidInput("only measured pictures are restored", hint="oblik likeness")
    found = [p for p in pictures if p.likeness is not None and p.likeness >= threshold]
    if not found:
        raise InvalidInput(
            f"no picture passed the likeness check (threshold {threshold:.3f}); restoring would hide that",
            hint="oblik generate --mode reliable",
        )
    return found


def _again(path: Path, restorer: Restorer, weight: float, ruler: Ruler) -> tuple[Image.Image, Score]:
    """The restored picture and its score."""
    pixels_HW3 = np.asarray(open_upright(path), np.uint8)
    faces = ruler.stack.detect(pixels_HW3)
    if faces:
        pixels_HW3 = restored(pixels_HW3, faces[0].landmarks, restorer, weight)
    image = Image.fromarray(pixels_HW3)
    return image, score_images(ruler.stack, [image], ruler.references.heldout_ND)[0]
