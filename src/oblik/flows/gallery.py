"""A person's gallery: every batch that was made of them, in one place, with previews.

In: a persona's home folder. Out: its batches, newest first; ``index.html`` and ``previews/`` to look at;
copies elsewhere; fewer batches. A batch is a folder with a record, as `oblik.flows.generate` and
`oblik.flows.batches` write it. Knows nothing of consent: whoever calls has asked.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from oblik import __version__
from oblik.errors import Conflict, InvalidInput, NotFound, OblikError
from oblik.flows.report import TEMPLATES
from oblik.generation.engine import GRID
from oblik.generation.graph import FILE_NAME as GRAPH
from oblik.generation.record import FILE_NAME, Picture, Record, read_record
from oblik.images import label_of, open_upright
from oblik.labels import xmp
from oblik.likeness.gate import MISS
from oblik.paths import PersonaHome, atomic_file, atomic_write, private_dir

INDEX, PREVIEWS = "index.html", "previews"
PREVIEW_PX, QUALITY = 320, 85
EMPTY = 'make pictures first: oblik generate "in a park"'


@dataclass(frozen=True)
class Batch:
    """One folder of pictures. ``name`` is its path in the gallery: ``v003``, ``orders/spring/001-item``."""

    name: str
    folder: Path
    record: Record

    @property
    def pictures(self) -> list[Picture]:
        """Those whose file is there."""
        return [picture for picture in self.record.pictures if (self.folder / picture.file).is_file()]

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the pictures: an edit's are those of its frame."""
        plan, first = self.record.plan, next(iter(self.pictures), None)
        if plan.edit and first:
            with suppress(OSError), Image.open(self.folder / first.file) as image:
                return image.size
        return plan.width_px, plan.height_px

    @property
    def likeness(self) -> float | None:
        """Mean over the measured pictures, a picture without a face counting as a miss; None before that."""
        scores = [MISS if found.likeness is None else found.likeness for found in _measured(self.record)]
        return sum(scores) / len(scores) if scores else None


def batches(folders: PersonaHome) -> list[Batch]:
    """Every batch in the gallery, newest first; a folder whose record is damaged is passed over."""
    found = []
    for place in folders.gallery.rglob(FILE_NAME):
        if not _hidden(place, folders.gallery):
            name = place.parent.relative_to(folders.gallery).as_posix()
            with suppress(OblikError):
                found.append(Batch(name, place.parent, read_record(place)))
    return sorted(found, key=lambda batch: (batch.record.started_at, batch.name), reverse=True)


def chosen(folders: PersonaHome, names: Sequence[str]) -> list[Batch]:
    """The batches that ``names`` mean: a batch, or a folder of them such as ``orders/spring``.

    Raises NotFound for a name that means none.
    """
    every, found = batches(folders), {}
    for name in names:
        wanted = name.strip("/")
        meant = [batch for batch in every if batch.name == wanted or batch.name.startswith(f"{wanted}/")]
        if not meant or not wanted:
            raise NotFound(f"the gallery has no batch {name!r}", hint="oblik gallery list")
        found.update({batch.name: batch for batch in meant})
    return list(found.values())


def draw(folders: PersonaHome, slug: str) -> Path:
    """Write the gallery's page and the previews that are missing; return the page.

    Raises NotFound when there is nothing to show.
    """
    every = batches(folders)
    if not every:
        raise NotFound("the gallery is empty", hint=EMPTY)
    shown = [(batch, [(picture, _preview(folders.gallery, batch, picture)) for picture in batch.pictures])
             for batch in every]  # fmt: skip
    kept = {folders.gallery / preview for _, pictures in shown for _, preview in pictures}
    for path in (folders.gallery / PREVIEWS).rglob("*.jpg"):
        if path not in kept:
            path.unlink()
    words = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = folders.gallery / INDEX
    atomic_write(
        page,
        words.get_template("gallery.html").render(
            slug=slug, batches=shown, grid=GRID, version=__version__, grade=grade
        ),
    )
    return page


def grade(picture: Picture, threshold: float | None) -> str:
    """CSS class of a picture's score."""
    if picture.likeness is None:
        return "miss"
    return "pass" if threshold is not None and picture.likeness >= threshold else "below"


def export(found: Sequence[Batch], destination: Path, *, records: bool = False) -> list[Path]:
    """Copy pictures and grids, byte for byte; records, which hold the prompt, only when asked for.

    Raises:
        InvalidInput: the destination lies inside one of the batches.
        Conflict: a file is there already; then nothing is copied.
    """
    destination = destination.absolute()
    copies: dict[Path, Path] = {}
    for batch in found:
        if batch.folder.resolve() in (destination.resolve(), *destination.resolve().parents):
            raise InvalidInput(f"{destination} lies in the batch itself", hint="name another folder")
        names = [picture.file for picture in batch.pictures]
        names += [
            name
            for name in (GRID, *([FILE_NAME, GRAPH] if records else []))
            if (batch.folder / name).is_file()
        ]
        copies.update({destination / batch.name / name: batch.folder / name for name in names})
    if there := next((path for path in copies if path.exists()), None):
        raise Conflict(f"{there} is there already", hint="name another folder")
    for path, source in copies.items():
        private_dir(path.parent)
        with source.open("rb") as content, atomic_file(path) as file:
            shutil.copyfileobj(content, file)
    return list(copies)


def delete(folders: PersonaHome, found: Sequence[Batch]) -> int:
    """Remove batches and their previews; folders of orders that hold no batch any more go too.

    Returns the number of pictures.
    """
    pictures = 0
    for batch in found:
        pictures += len(batch.pictures)
        for place in (batch.folder, folders.gallery / PREVIEWS / batch.name):
            if place.is_symlink():
                raise InvalidInput(f"{place} is a link", hint="remove it by hand")
            shutil.rmtree(place, ignore_errors=place != batch.folder)
        for parent in batch.folder.parents:
            if parent == folders.gallery or any(parent.rglob(FILE_NAME)):
                break
            shutil.rmtree(parent)
    (folders.gallery / INDEX).unlink(missing_ok=True)
    return pictures


def _preview(gallery: Path, batch: Batch, picture: Picture) -> str:
    """A small JPEG of a picture, made when it is missing. Returns its path inside the gallery."""
    name = f"{PREVIEWS}/{batch.name}/{Path(picture.file).stem}-{picture.sha256[:8]}.jpg"
    if not (gallery / name).is_file():
        try:
            image = open_upright(batch.folder / picture.file)
        except OblikError:  # a damaged file is shown as it is
            return f"{batch.name}/{picture.file}"
        image.thumbnail((PREVIEW_PX, PREVIEW_PX))
        label = label_of(batch.folder / picture.file)
        more = {"xmp": xmp(label).encode()} if label else {}
        with atomic_file(gallery / name) as file:
            image.save(file, format="JPEG", quality=QUALITY, **more)
    return name


def _hidden(place: Path, gallery: Path) -> bool:
    """Whether a record lies in a batch that is not finished, in an attempt, or beside the previews."""
    parts = place.relative_to(gallery).parts
    return parts[0] == PREVIEWS or any(part.startswith(".") or part.endswith(".part") for part in parts)


def _measured(record: Record) -> list[Picture]:
    return [picture for picture in record.pictures if picture.face_found is not None]
