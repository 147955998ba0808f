"""Editing as one call: a person's face into a frame that exists, or a frame completed around them.

In: a persona, a frame, what may change in it, words. Out: a `Record` and its folder in the gallery, in which
the frame and the alpha map lie beside the pictures, so that the next edit can take them. Consent for edits is
asked here. Knows nothing of tensors.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from oblik.errors import InvalidInput, NotFound
from oblik.faces.masks import OUTLINE, face_mask
from oblik.faces.stack import FaceStack
from oblik.flows.calibrate import note_scores, open_ruler
from oblik.flows.generate import Order, generate, plan_order
from oblik.flows.reliable import dataset_behind, reference_photos
from oblik.generation.adapters import best_face, editing
from oblik.generation.control import lack
from oblik.generation.engine import Engine
from oblik.generation.frames import Frame_HW3, Mask_HW, alpha_map, outpainted, window
from oblik.generation.ladder import EDIT_PHOTOS, Heights
from oblik.generation.plan import Control, Edit, Plan, Reference
from oblik.generation.presets import Preset
from oblik.generation.record import FILE_NAME, Record, read_record
from oblik.images import open_upright, save_clean_png
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, next_version, private_dir
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress

FRAME, ALPHA = "frame.png", "alpha.png"


@dataclass(frozen=True)
class Wish:
    """What is to be edited. ``mask`` is a picture as large as the frame, white where it may change; ``face``
    is the best face found in it; ``outpaint`` what is added around it (`oblik.generation.frames.outpainted`).

    They add up. With none of them the alpha map kept beside an edited picture is taken. ``references`` False
    leaves the person's photos out: the LoRA alone draws the face. ``pose`` is how closely it keeps the pose
    of the face that it replaces, as far as the pack can; 0 leaves that free.
    """

    image: Path
    mask: Path | None = None
    face: bool = False
    outpaint: str | None = None
    strength: float = 1.0
    references: bool = True
    pose: float = 0.8


@dataclass(frozen=True)
class Where:
    """What every edit works with. ``say`` is told what is not done, and why."""

    home: Home
    pack: OpenPack
    engine: Engine
    stack: Callable[[], FaceStack]
    preset: Preset
    heights: Heights
    say: Callable[[str], object]


def edit(
    persona: Persona, order: Order, wish: Wish, where: Where, *, progress: Progress, now: datetime,
    others: Sequence[str] = (),
) -> tuple[Record, Path]:  # fmt: skip
    """Edit a frame into the next batch of the persona's gallery, and measure the likeness.

    Raises:
        ConsentError: the persona's consent does not cover edits today.
        InvalidInput: nothing says what may change, no face is found, or the mask does not fit the frame.
    """
    home = where.home
    progress = under_consent(persona, "edit", home=home, now=now, progress=progress)
    frame, alpha = prepared(wish, where.stack)
    box, (width_px, height_px) = window(
        alpha, where.pack.manifest.native_size_px, where.pack.manifest.side_multiple_px
    )
    gallery = home.persona(persona.slug).gallery
    folder = gallery / next_version(gallery)
    inside = f"gallery/{folder.name}"
    asked = {
        **order.asked, "width_px": width_px, "height_px": height_px,
        "edit": Edit(image=f"{inside}/{FRAME}", mask=f"{inside}/{ALPHA}", strength=wish.strength, window=box),
    }  # fmt: skip
    plan = plan_order(replace(order, asked=asked), persona, where.preset, where.pack, home, others)
    if wish.face or wish.mask or wish.outpaint is None:
        references = _references(persona, plan, where) if wish.references else ()
        plan = plan.model_copy(update={"references": references, "controls": _pose(wish, where)})
    private_dir(folder)
    try:
        save_clean_png(Image.fromarray(frame), folder / FRAME)
        save_clean_png(Image.fromarray(alpha), folder / ALPHA)
        record, _ = generate(
            persona, plan, home=home, pack=where.pack, engine=where.engine, progress=progress, now=now,
            folder=folder, operation="edit",
        )  # fmt: skip
    finally:
        if not (folder / FILE_NAME).is_file():
            shutil.rmtree(folder, ignore_errors=True)
    return _measured(persona, record, folder, where, progress), folder


def prepared(wish: Wish, stack: Callable[[], FaceStack]) -> tuple[Frame_HW3, Mask_HW]:
    """The frame, on a larger canvas where one is asked for, and the alpha map of what may change in it."""
    frame = np.asarray(open_upright(wish.image).convert("RGB"))
    maps = []
    if wish.mask is not None:
        maps.append(alpha_map(_mask_of(wish.mask, frame)))
    if wish.face:
        maps.append(_face_of(frame, stack()))
    if not maps and wish.outpaint is None:
        maps.append(_kept(wish.image, frame))
    alpha = np.maximum.reduce([np.zeros(frame.shape[:2], np.uint8), *maps])
    return outpainted(frame, alpha, wish.outpaint) if wish.outpaint is not None else (frame, alpha)


def _mask_of(path: Path, frame: Frame_HW3) -> Mask_HW:
    mask = np.asarray(open_upright(path).convert("L"))
    if mask.shape != frame.shape[:2]:
        size, wanted = mask.shape[::-1], frame.shape[1::-1]
        raise InvalidInput(
            f"the mask has {size[0]}x{size[1]} px and the frame {wanted[0]}x{wanted[1]}",
            hint="draw the mask over the frame, white where it may change",
        )
    return mask


def _face_of(frame: Frame_HW3, stack: FaceStack) -> Mask_HW:
    face = best_face(stack, frame)
    if face is None:
        raise InvalidInput("no face is found in this frame", hint="oblik edit IMAGE --mask MASK.png")
    return face_mask(face.landmarks, frame.shape[1], frame.shape[0], grow=OUTLINE)


def _kept(image: Path, frame: Frame_HW3) -> Mask_HW:
    """The alpha map of the edit that made this picture."""
    try:
        edited = read_record(image.parent).plan.edit
    except (NotFound, InvalidInput):
        edited = None
    if edited is None or not (image.parent / Path(edited.mask).name).is_file():
        raise InvalidInput("nothing says what may change", hint="oblik edit IMAGE --face")
    return _mask_of(image.parent / Path(edited.mask).name, frame)


def _references(persona: Persona, plan: Plan, where: Where) -> tuple[Reference, ...]:
    """The person's photos, for what the pack can do with them; what it cannot is said."""
    adapter, version = editing(where.pack), dataset_behind(plan, where.home)
    if adapter is None:
        where.say(f"{where.pack.manifest.name} has no reference adapter: the LoRA alone draws the face")
        return ()
    photos = reference_photos(where.home, persona.slug, version) if version else ()
    if not photos:
        where.say("no photo to refer to: the LoRA alone draws the face; oblik dataset build PHOTOS")
    shown = photos[:EDIT_PHOTOS] if adapter == "edit-reference" else photos
    weight = where.heights.edit_weight
    return tuple(Reference(image=image, weight=weight, adapter=adapter) for image in shown)


def _pose(wish: Wish, where: Where) -> tuple[Control, ...]:
    """The control that keeps the pose of the face which is there; a pack without one says so."""
    if not wish.pose:
        return ()
    if missing := lack("pose", where.pack):
        where.say(f"the pose of the frame is not kept: {missing.sentence()}")
        return ()
    return (Control(kind="pose", weight=wish.pose),)


def _measured(persona: Persona, record: Record, folder: Path, where: Where, progress: Progress) -> Record:
    """The record with likeness and threshold, where there is something to measure with."""
    try:
        ruler = open_ruler(
            persona, home=where.home, pack=where.pack, stack=where.stack(),
            dataset=dataset_behind(record.plan, where.home),
        )  # fmt: skip
    except (NotFound, InvalidInput) as missing:
        where.say(f"not measured: {missing.message}; {missing.hint}")
        return record
    paths = [folder / picture.file for picture in record.pictures]
    scores = ruler.score(paths, progress)
    note_scores(folder, dict(zip(paths, scores, strict=True)), ruler)
    return read_record(folder)
