"""Editing as one call: a person's face into a frame that exists, or a frame completed around them.

In: a persona, a frame, what may change in it, words. Out: a `Record` and its folder in the gallery, in which
the frame, the alpha map and the mask that was given lie beside the pictures; the next edit can take the map.
Where no face is meant nothing of the person is asked for. Consent for edits is asked here. Knows nothing of
tensors.
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
from oblik.generation.ladder import Heights, shown
from oblik.generation.plan import Control, Edit, Plan, Reference
from oblik.generation.presets import Preset
from oblik.generation.record import FILE_NAME, Record, read_record
from oblik.images import open_upright, save_clean_png
from oblik.likeness.advice import HIGHEST_SCALE, SCALE_STEP
from oblik.likeness.gate import MISS
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, next_version, private_dir
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress

FRAME, ALPHA, MASK = "frame.png", "alpha.png", "mask.png"


@dataclass(frozen=True)
class Wish:
    """What is to be edited. ``mask`` is a picture as large as the frame, white where it may change; ``face``
    is the best face found in it; ``outpaint`` what is added around it (`oblik.generation.frames.outpainted`).

    They add up. With none of them the alpha map kept beside an edited picture is taken. ``outpaint`` alone
    means no face: the surroundings are drawn without token, description, LoRA and photos. ``references``
    False leaves the photos out: the LoRA alone draws the face. ``pose`` is how closely it keeps the pose
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
    person = means_the_person(wish, persona)
    order = replace(order, asked=asked, token=order.token and person, lora=order.lora and person)
    plan = plan_order(order, persona, where.preset, where.pack, home, others)
    if not person:
        plan = plan.model_copy(update={"prompt": surroundings(plan.prompt)})
    else:
        references = _references(persona, plan, where) if wish.references else ()
        plan = plan.model_copy(update={"references": references, "controls": _pose(wish, where)})
    private_dir(folder)
    try:
        save_clean_png(Image.fromarray(frame), folder / FRAME)
        save_clean_png(Image.fromarray(alpha), folder / ALPHA)
        if wish.mask is not None:
            save_clean_png(open_upright(wish.mask).convert("L"), folder / MASK)
        record, _ = generate(
            persona, plan, home=home, pack=where.pack, engine=where.engine, progress=progress, now=now,
            folder=folder, operation="edit",
        )  # fmt: skip
    finally:
        if not (folder / FILE_NAME).is_file():
            shutil.rmtree(folder, ignore_errors=True)
    if not person:
        where.say("no face is meant: drawn without the person, and no likeness is measured; --face means one")
        return record, folder
    record = _measured(persona, record, folder, where, progress)
    if short := shortfall(record):
        where.say(f"{short}: {next_step(wish, record.plan)}")
    return record, folder


def means_the_person(wish: Wish, persona: Persona) -> bool:
    """Whether the person is to be drawn: in a mask and in a face; not in what only lies around a frame. An
    edit that goes on means what the one before meant."""
    if wish.mask is not None or wish.face or wish.outpaint is not None:
        return wish.mask is not None or wish.face
    return persona.trigger in read_record(wish.image.parent).plan.prompt


def surroundings(prompt: str) -> str:
    """What a prompt says after its subject: even "a woman" would put a face into the margins."""
    return prompt.partition(", ")[2] or "photo"


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
    return shown(adapter, photos, where.heights.edit_weight)


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


def shortfall(record: Record) -> str:
    """How many pictures fall short of the threshold, a face not found among them; empty where none does."""
    if record.threshold is None:
        return ""
    scores = [MISS if picture.likeness is None else picture.likeness for picture in record.pictures]
    below = sum(score < record.threshold for score in scores)
    return f"{below} of {len(scores)} below the threshold of {record.threshold:.3f}" if below else ""


def next_step(wish: Wish, plan: Plan) -> str:
    """What is left to try after a likeness that falls short, the nearest first."""
    tries = ["look at them: a score says nothing of how a face sits in its frame"]
    if wish.strength < 1:
        tries.append(f"--strength 1 keeps nothing of the former face ({wish.strength:g} did)")
    if not wish.references:
        tries.append("leave --no-references out")
    if plan.controls:
        tries.append(f"a lower --control-scale ({wish.pose:g} now) or --no-keep-pose frees its pose")
    if len(plan.seeds) == 1:
        tries.append("--count 4 gives more to choose from")
    if plan.lora and plan.lora_scale < HIGHEST_SCALE:
        higher = min(HIGHEST_SCALE, plan.lora_scale + SCALE_STEP)
        tries.append(f"--lora-scale {higher:.2g} ({plan.lora_scale:g} now)")
    tries.append("more photos: oblik dataset build PHOTOS && oblik train")
    return "; ".join(tries)
