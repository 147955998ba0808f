"""Faces of other people, to calibrate with: from a user's folder, or painted by the pack.

In: a folder of photos or a `Painter`, the one face stack. Out: embeddings in ``$OBLIK_HOME/impostors/``,
which `oblik.flows.calibrate` takes instead of the pack's own, and where they come from. No picture is kept.
Knows nothing of personas: a folder should not hold the person who is measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oblik.datasets.buckets import Bucket
from oblik.datasets.manifest import Kind
from oblik.datasets.regularisation import Painter, painted
from oblik.errors import InvalidInput, NotFound
from oblik.faces.stack import FaceStack, Unit_D
from oblik.likeness.pairs import Impostors
from oblik.likeness.separation import Separation, separate
from oblik.packs.manifest import OpenPack
from oblik.paths import Home
from oblik.photos.intake import identify, list_files, take
from oblik.progress import Progress

IMPOSTORS = "impostors.npz"
MOST_STRANGERS = 5000


@dataclass(frozen=True)
class Gathered:
    """Impostors and where they lie; ``misses`` pictures had no face or could not be read. ``separation``
    says how well their faces are told apart, ``closest`` who are most alike (None: a single person)."""

    impostors: Impostors
    path: Path
    misses: int
    separation: Separation | None = None
    closest: tuple[str, str] | None = None


def own_file(home: Home, stack: str) -> Path:
    """Where the user's impostors for a face stack lie."""
    return home.root / "impostors" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', stack)}.npz"


def impostors_file(home: Home, pack: OpenPack, stack: str) -> Path:
    """The impostors to calibrate with: the user's, else the pack's; it need not exist."""
    own = own_file(home, stack)
    return own if own.is_file() else pack.faces_folder / IMPOSTORS


def open_impostors(home: Home, pack: OpenPack, stack: str) -> Impostors:
    """The other people of every stage: the user's, else the pack's.

    Raises NotFound when there are none whose faces this face stack embedded.
    """
    file = impostors_file(home, pack, stack)
    known = Impostors.load(file) if file.is_file() else None
    if known is None or known.stack not in ("", stack):
        raise NotFound(
            f"pack {pack.manifest.name!r} brings no faces of other people for the face stack {stack!r}",
            hint="oblik likeness impostors FOLDER",
        )
    return known


def from_folder(folder: Path, stack: FaceStack, home: Home, progress: Progress) -> Gathered:
    """Embed every picture in ``folder``: a sub-folder is a person, and so is a picture that lies in none.

    Raises:
        NotFound: there is no such folder.
        InvalidInput: no face is found in it.
    """
    return _gather(_of_folder(folder, progress), stack, home, f"the folder {folder.resolve().name}")


def from_pack(painter: Painter, count: int, stack: FaceStack, home: Home, progress: Progress) -> Gathered:
    """Paint ``count`` strangers, each a person of their own, and embed them. The pictures stay in the cache.

    Each is one score against a persona: 3,000 of them with a face are needed to claim a threshold.
    Raises InvalidInput when no face is found in any of them, or for more than 5000.
    """
    pack = painter.pack
    source = f"painted by {pack.name} {pack.version} without a token"
    return _gather(_of_pack(painter, count, progress), stack, home, source)


def _of_folder(folder: Path, progress: Progress) -> Iterator[tuple[str, Any]]:
    files = list_files(folder)
    with progress.stage("reading other people", len(files)) as advance:
        for file in files:
            progress.check_cancelled()
            found, image = take(identify(folder, file), file)
            person = found.source.split("/")[0]
            yield person, image
            advance()


def _of_pack(painter: Painter, count: int, progress: Progress) -> Iterator[tuple[str, Any]]:
    side_px = painter.pack.native_size_px
    square = [Bucket("1:1", side_px, side_px)]
    strangers = painted(Kind.negative, count, "person", square, painter, progress, MOST_STRANGERS)
    for place, stranger in enumerate(strangers):
        yield str(place), stranger.image


def _gather(pictures: Iterable[tuple[str, Any]], stack: FaceStack, home: Home, source: str) -> Gathered:
    vectors: list[Unit_D] = []
    people: list[str] = []
    misses = 0
    for person, image in pictures:
        pixels_HW3 = None if image is None else np.asarray(image.convert("RGB"), np.uint8)
        faces = [] if pixels_HW3 is None else stack.detect(pixels_HW3)
        if pixels_HW3 is None or not faces:
            misses += 1
            continue
        vectors.append(stack.embed(pixels_HW3, faces[0]))
        people.append(person)
    if not vectors:
        raise InvalidInput(
            f"no face in {misses} pictures of {source}", hint="oblik likeness impostors --help"
        )
    _, identity_M = np.unique(people, return_inverse=True)
    said = f"{source}: {identity_M.max() + 1} people, {len(vectors)} pictures"
    path = own_file(home, stack.name)
    Impostors(np.stack(vectors), identity_M.astype(np.int64), stack.name, said).save(path)
    kept = Impostors.load(path)
    if kept.identities < 2:
        return Gathered(kept, path, misses)
    apart = separate(kept.embeddings_MD, kept.identity_M)
    one, other = (people[place] for place in apart.closest)
    return Gathered(kept, path, misses, apart, (one, other))
