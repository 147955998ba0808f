"""An identity adapter of one's own for a pack, from a folder of many people's photos or from rendered people.

In: a folder whose sub-folders are people (they agreed to it), or how many people to render; an open pack, the
one face stack. Out: ``$OBLIK_HOME/adapters/<pack>/identity/projector.safetensors`` with its manifest, which
the reliable mode takes in place of the pack's own. Photos are read and not kept. Knows nothing of tensors.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from oblik.datasets.captions import caption
from oblik.errors import BackendUnavailable, InvalidInput, NotFound, PackBroken
from oblik.faces.stack import FaceStack
from oblik.generation.adapters import KINDS, best_face
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, atomic_write, private_dir, sha256_file
from oblik.photos.intake import identify, list_files, take
from oblik.progress import Progress
from oblik.training.adapter import MANIFEST, WORD, AdapterConfig, AdapterManifest, Portrait

NAME = "identity-tokens"
IDENTITY = ("age", "skin", "hair", "hair_style", "hair_color", "beard")
"""What the word must say; captions of rendered people leave it out."""
FEWEST_PEOPLE, SHOTS = 2, 6
WIDER = 3.0
"""The side of a portrait in heights of its face."""


@dataclass(frozen=True)
class AdapterOrder:
    """From whom to learn, either ``folder`` or ``rendered`` people from ``first_seed`` up; and how."""

    folder: Path | None = None
    rendered: int = 0
    first_seed: int = 0
    noun: str = "person"
    side_px: int | None = None
    restart: bool = False
    config: AdapterConfig = field(default_factory=AdapterConfig)


class Seen(NamedTuple):
    """A picture of somebody, and what is said about it with `WORD` in the person's place."""

    person: str
    image: Image.Image
    caption: str


def train_adapter(
    order: AdapterOrder, *, home: Home, pack: OpenPack, stack: FaceStack, device: str, progress: Progress,
    now: datetime,
) -> AdapterManifest:  # fmt: skip
    """Train an identity adapter for ``pack``, or go on with the one that was begun.

    Raises:
        BackendUnavailable: the pack's family has no such adapters.
        NotFound, InvalidInput: too few people with two photos that show a face.
    """
    from oblik.training.backends.projector import train_projector

    kind = KINDS[NAME]
    if pack.manifest.family not in kind.families:
        raise BackendUnavailable(
            f"{NAME}: {kind.stranger}, {pack.manifest.name} is of the family {pack.manifest.family}",
            hint=f"{kind.instead}: {kind.hint}",
        )
    side_px = order.side_px or pack.manifest.native_size_px
    seen = _rendered(order, side_px, progress) if order.folder is None else _photos(order, progress)
    portraits, people = portraits_of(seen, stack, side_px)
    folder = private_dir(home.adapters / pack.manifest.name)
    work, made = folder / ".work", folder / kind.part
    if order.restart:
        shutil.rmtree(work, ignore_errors=True)
    losses = train_projector(
        portraits, pack, stack.name, work / made.name, order.config, progress, work=work, noun=order.noun,
        device=device,
    )  # fmt: skip
    private_dir(made.parent)
    (work / made.name).replace(made)
    manifest = AdapterManifest(
        pack=pack.manifest.name, pack_version=pack.manifest.version, face_stack=stack.name, file=kind.part,
        sha256=sha256_file(made), people=people, pictures=len(portraits), config=order.config, losses=losses,
        source=f"the folder {order.folder.resolve().name}" if order.folder else "rendered people",
        created_at=now,
    )  # fmt: skip
    atomic_write(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    shutil.rmtree(work)
    return manifest


def list_adapters(home: Home) -> list[AdapterManifest]:
    """Every adapter that was trained here, by pack. Raises PackBroken for a manifest that cannot be read."""
    found = []
    for file in sorted(home.adapters.glob(f"*/{MANIFEST}")):
        try:
            found.append(AdapterManifest.model_validate_json(file.read_bytes()))
        except ValidationError as broken:
            raise PackBroken(
                f"{file} is no adapter's manifest: {broken.errors()[0]['msg']}", hint="oblik adapter train"
            ) from broken
    return found


def remove_adapter(pack: str, home: Home) -> None:
    """Forget the adapter that was trained here for a pack; the pack's own is used again. Raises NotFound."""
    folder = home.adapters / pack
    if folder.parent != home.adapters or not folder.is_dir():
        raise NotFound(f"no adapter was trained here for {pack!r}", hint="oblik adapter list")
    shutil.rmtree(folder)


def portraits_of(seen: Iterator[Seen], stack: FaceStack, side_px: int) -> tuple[list[Portrait], int]:
    """Square portraits, each with the mean face of the same person's others; and how many people there are.

    People with fewer than two pictures of a face teach nothing and are left out.
    """
    by_person = defaultdict(list)
    for person, image, words in seen:
        pixels_HW3 = np.asarray(image.convert("RGB"), np.uint8)
        face = best_face(stack, pixels_HW3)
        if face is None:
            continue
        high = max(face.box[3] - face.box[1], 1.0)
        side = round(min(*image.size, WIDER * high))
        window = _about(image.size, side, face.landmarks)
        small = image.convert("RGB").resize((side_px, side_px), Image.Resampling.LANCZOS, box=window)
        marks = (face.landmarks - window[:2]) * (side_px / side)
        by_person[person].append((np.asarray(small), marks, words, stack.embed(pixels_HW3, face)))
    useful = [pictures for pictures in by_person.values() if len(pictures) > 1]
    if len(useful) < FEWEST_PEOPLE:
        raise InvalidInput(
            f"{len(useful)} people with two photos of a face; {FEWEST_PEOPLE} at least, hundreds for use",
            hint="one sub-folder for each person, with two photos or more",
        )
    return [
        Portrait(pixels, np.asarray(marks, np.float32), words, _others([each[3] for each in pictures], place))
        for pictures in useful
        for place, (pixels, marks, words, _) in enumerate(pictures)
    ], len(useful)


def _about(
    size_px: tuple[int, int], side: int, landmarks: NDArray[np.float32]
) -> tuple[float, float, float, float]:
    """A square window of that side around a face, inside the picture."""
    middle = landmarks.mean(axis=0)
    left, top = (
        float(np.clip(at - side / 2, 0, edge - side)) for at, edge in zip(middle, size_px, strict=True)
    )
    return left, top, left + side, top + side


def _others(vectors: list[NDArray[np.float32]], place: int) -> NDArray[np.float32]:
    mean_D = np.mean([vector for other, vector in enumerate(vectors) if other != place], axis=0)
    return np.asarray(mean_D / max(float(np.linalg.norm(mean_D)), 1e-9), np.float32)


def _photos(order: AdapterOrder, progress: Progress) -> Iterator[Seen]:
    assert order.folder is not None
    files = list_files(order.folder)
    words = caption({}, token=WORD, noun=order.noun)
    with progress.stage("read photos", len(files)) as advance:
        for file in files:
            progress.check_cancelled()
            found, image = take(identify(order.folder, file), file)
            person, inside, _ = found.source.partition("/")
            if image is not None and inside:
                yield Seen(person, image, words)
            advance()


def _rendered(order: AdapterOrder, side_px: int, progress: Progress) -> Iterator[Seen]:
    """People who do not exist, from the training seeds of the bundled pack."""
    from oblik.miniature.corpus import shot_of
    from oblik.miniature.people import Person
    from oblik.miniature.prompts import is_portrait
    from oblik.miniature.render import render

    with progress.stage("render people", order.rendered) as advance:
        for seed in range(order.first_seed, order.first_seed + order.rendered):
            progress.check_cancelled()
            person = Person.from_seed(seed)
            shots = (shot_of(seed, index)[0] for index in range(4 * SHOTS))
            good = [shot for shot in shots if is_portrait(shot.descriptors)][:SHOTS]
            for shot in good:
                drawn = render(person, shot, max(side_px, 128))
                said = {key: word for key, word in drawn.descriptors.items() if key not in IDENTITY}
                yield Seen(str(seed), Image.fromarray(drawn.image), caption(said, token=WORD))
            advance(1)
