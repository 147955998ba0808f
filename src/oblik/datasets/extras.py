"""The pictures beside the photos: strangers and varied copies, written into a version.

In: what the user wished, the accepted photos of a version in the making. Out: files under ``class/``,
``negative/`` and ``augmented/``, each picture with its caption, and a row for each. Training photos alone are
varied: what measures is never touched. Knows nothing of how pictures are painted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from oblik.datasets.augment import vary
from oblik.datasets.buckets import Bucket
from oblik.datasets.manifest import Augmentation, Extra, Kind, Photo, Split, Status
from oblik.datasets.regularisation import Painter, Stranger, from_folder, painted
from oblik.datasets.sources import Beside, CaptionSource
from oblik.errors import InvalidInput
from oblik.faces.stack import FaceStack
from oblik.images import save_clean_png
from oblik.packs.manifest import Pack
from oblik.paths import atomic_write, sha256_file
from oblik.progress import Progress

Wanted = int | Path
CLASS_IMAGES, NEGATIVES = "class_images", "negatives"


@dataclass(frozen=True)
class Wishes:
    """How a dataset is to be built, where the user has a choice.

    None for ``class_images``, ``negatives`` and ``augmentation`` is what the pack's ``training`` table says,
    else none. ``others`` are the triggers of the other personas.
    """

    source: CaptionSource = field(default_factory=Beside)
    others: tuple[str, ...] = ()
    class_images: Wanted | None = None
    negatives: Wanted | None = None
    augmentation: Augmentation | None = None
    painter: Painter | None = None

    def of(self, pack: Pack) -> Wishes:
        """The same with the pack's advice where nothing was wished."""
        advised = pack.training
        return Wishes(
            source=self.source, others=self.others, painter=self.painter,
            augmentation=self.augmentation or Augmentation(**advised.get("augmentation", {})),
            class_images=advised.get(CLASS_IMAGES, 0) if self.class_images is None else self.class_images,
            negatives=advised.get(NEGATIVES, 0) if self.negatives is None else self.negatives,
        )  # fmt: skip

    def fingerprint(self) -> list[object]:
        """What of this changes a version."""
        varied = self.augmentation.model_dump() if self.augmentation else None
        wanted = [_fingerprint(self.class_images), _fingerprint(self.negatives)]
        return [self.source.name, *wanted, varied if varied and varied["copies"] else None]


def _fingerprint(wanted: Wanted | None) -> object:
    if isinstance(wanted, Path):
        files = sorted(file for file in wanted.rglob("*") if file.is_file()) if wanted.is_dir() else []
        return [[file.relative_to(wanted).as_posix(), sha256_file(file)] for file in files]
    return wanted or 0


def write_extras(
    folder: Path, photos: Sequence[Photo], wishes: Wishes, noun: str, buckets: Sequence[Bucket],
    stack: FaceStack, progress: Progress,
) -> list[Extra]:  # fmt: skip
    """Write what was wished for beside ``photos``; strangers come in the buckets of training photos."""
    used = {photo.bucket for photo in photos if photo.split is Split.train}
    sizes = [bucket for bucket in buckets if bucket.name in used] or list(buckets)
    found: list[Extra] = []
    for kind, wanted in ((Kind.class_image, wishes.class_images), (Kind.negative, wishes.negatives)):
        for stranger in _strangers(kind, wanted or 0, noun, sizes, stack, wishes, progress):
            found.append(_write_stranger(folder, stranger, len(found)))
    return found + write_copies(folder, photos, wishes.augmentation or Augmentation(), progress)


def _strangers(
    kind: Kind, wanted: Wanted, noun: str, buckets: Sequence[Bucket], stack: FaceStack, wishes: Wishes,
    progress: Progress,
) -> Iterator[Stranger]:  # fmt: skip
    if isinstance(wanted, Path):
        return from_folder(kind, wanted, noun, buckets, stack, progress, wishes.others)
    if not wanted:
        return iter(())
    if wishes.painter is None:
        raise InvalidInput(
            f"{wanted} {kind.value} pictures are wanted and nothing here paints",
            hint="give a folder of portraits",
        )
    return painted(kind, wanted, noun, buckets, wishes.painter, progress)


def _write_stranger(folder: Path, stranger: Stranger, number: int) -> Extra:
    name = f"{stranger.kind.value}/{stranger.bucket.folder}/{number:04d}"
    return _write(folder, name, stranger.image, stranger.kind, stranger.bucket.name, stranger.caption,
                  stranger.origin, stranger.seed)  # fmt: skip


def write_copies(
    folder: Path, photos: Sequence[Photo], settings: Augmentation, progress: Progress
) -> list[Extra]:
    """Write the varied copies of every training photo, with their masks."""
    teaching = [p for p in photos if p.status is Status.accepted and p.split is Split.train]
    if not settings.copies:
        return []
    found = []
    with progress.stage("varying photos", len(teaching)) as advance:
        for photo in teaching:
            progress.check_cancelled()
            assert photo.path is not None
            assert photo.mask is not None
            with Image.open(folder / photo.path) as image, Image.open(folder / photo.mask) as face:
                pixels, mask = np.asarray(image.convert("RGB")), np.asarray(face.convert("L"))
            for number in range(1, settings.copies + 1):
                varied, moved = vary(pixels, mask, settings, photo.source_sha256, number)
                name = f"augmented/{Path(photo.path).parent.name}/{Path(photo.path).stem}-{number}"
                row = _write(folder, name, Image.fromarray(varied), Kind.augmented, photo.bucket or "",
                             photo.caption, photo.source_sha256, number)  # fmt: skip
                save_clean_png(Image.fromarray(moved), folder / f"{name}.mask.png")
                found.append(row.model_copy(update={"mask": f"{name}.mask.png"}))
            advance()
    return found


def _write(
    folder: Path, name: str, image: Image.Image, kind: Kind, bucket: str, line: str, origin: str,
    seed: int | None,
) -> Extra:  # fmt: skip
    path = f"{name}.png"
    save_clean_png(image, folder / path)
    atomic_write(folder / f"{name}.txt", line + "\n")
    return Extra(
        kind=kind, path=path, sha256=sha256_file(folder / path), width_px=image.width, height_px=image.height,
        bucket=bucket, caption=line, origin=origin, seed=seed,
    )  # fmt: skip
