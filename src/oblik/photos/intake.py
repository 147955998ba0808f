"""A folder of files nobody vouches for, one readable picture at a time.

In: a folder, with folders and zip archives in it. Out: for every file a `Found`: its name, its hash, and
either what can be said about it or the reason, in words, why it is refused; its pixels; its bytes. Nothing
outside the folder is read, nothing in it is changed. Knows nothing of faces.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from oblik.errors import NotFound
from oblik.paths import sha256_file
from oblik.photos.archives import OTHER_ARCHIVES, archive_of, is_archive, open_archive, read_entry
from oblik.photos.pixels import Room, decode, open_picture, quiet

SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "MPO": {".jpg", ".jpeg", ".mpo"}, "PNG": {".png"},
    "WEBP": {".webp"}, "TIFF": {".tif", ".tiff"}, "BMP": {".bmp"}, "GIF": {".gif"},
    "HEIF": {".heic", ".heif", ".hif"}, "AVIF": {".avif"},
}  # fmt: skip
SIDECARS = {".txt", ".csv"}
MAX_PIXELS = 120_000_000
MAX_BYTES = 300_000_000
MIN_SIDE_PX = 64
MAX_RATIO = 6.0


@dataclass(frozen=True)
class Found:
    """One file. ``refused`` is empty for a usable one; sizes are upright; ``notes`` are for a person.

    ``focal_35mm`` is the focal length on a 36 x 24 mm frame, 0 where the camera did not say.
    """

    source: str
    sha256: str
    refused: str = ""
    width_px: int = 0
    height_px: int = 0
    captured_at: datetime | None = None
    notes: tuple[str, ...] = ()
    focal_35mm: float = 0.0


def list_files(folder: Path) -> list[Path]:
    """Every file below ``folder`` and in its archives, by name; hidden files, captions and notes left out.

    Links are listed and not followed; a folder or an archive that cannot be read stands for itself.

    Raises:
        NotFound: there is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", hint="give the folder that holds the photos")
    found = [place for file in _walk(folder) for place in _opened_up(file)]
    return sorted(
        (file for file in found if file.suffix.lower() not in SIDECARS),
        key=lambda file: file.relative_to(folder).as_posix(),
    )


def _walk(folder: Path) -> Iterator[Path]:
    locked: list[Path] = []
    for here, folders, files in os.walk(
        folder, onerror=lambda problem: locked.append(Path(problem.filename))
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = [name for name in folders if (Path(here) / name).is_symlink()]
        yield from (Path(here) / name for name in [*files, *linked] if not name.startswith("."))
    yield from locked


def _opened_up(file: Path) -> list[Path]:
    """The entries of an archive, as paths; anything else, and an archive that is refused, is itself."""
    if not is_archive(file):
        return [file]
    return [file / name for name in open_archive(file).entries] or [file]


def identify(folder: Path, file: Path) -> Found:
    """Name and hash of one file, or why it is refused without looking into it."""
    source = _printable(file.relative_to(folder).as_posix())
    packed = archive_of(file)
    reason = _refuse_entry(*packed) if packed else _refuse_file(folder, file)
    if reason:
        return Found(source, "", refused=reason)
    try:
        digest = hashlib.sha256(read_entry(*packed)).hexdigest() if packed else sha256_file(file)
    except OSError as problem:
        return Found(source, "", refused=f"cannot be read: {problem.strerror or problem}")
    return Found(source, digest)


def read_original(file: Path) -> bytes:
    """The bytes of a listed file, also of one that lies in an archive.

    Raises:
        OSError: it cannot be read.
    """
    packed = archive_of(file)
    return read_entry(*packed) if packed else file.read_bytes()


def take(found: Found, file: Path, *, short_side_px: int | None = None) -> tuple[Found, Image.Image | None]:
    """What can be said about an identified file, and its pixels (see `read_photo`) unless it is refused."""
    with quiet():
        return take_aloud(found, file, short_side_px=short_side_px)


def take_aloud(
    found: Found, file: Path, *, short_side_px: int | None = None, room: Room | None = None
) -> tuple[Found, Image.Image | None]:
    """`take` for use in threads, which share a ``room``: whoever started them has entered `quiet`."""
    if found.refused:
        return found, None
    try:
        with open_picture(_source(file)) as image:
            reason = _refuse_size(*image.size)
            if reason:
                return replace(found, refused=reason), None
            notes = tuple(_notes(image, file))
            decoded = decode(image, short_side_px, room)
    except Exception as problem:  # decoders raise whatever a damaged file makes them raise
        return replace(found, refused=_in_words(problem)), None
    known = replace(
        found, width_px=decoded.width_px, height_px=decoded.height_px, captured_at=decoded.captured_at,
        notes=notes, focal_35mm=decoded.focal_35mm,
    )  # fmt: skip
    return known, decoded.image


def read_photo(file: Path, *, short_side_px: int | None = None) -> Image.Image:
    """The pixels: upright, RGB in sRGB, alpha on white, the first frame; no metadata at all.

    ``short_side_px`` asks for no more than is needed (see `decode`).
    """
    with quiet(), open_picture(_source(file)) as image:
        return decode(image, short_side_px).image


def _source(file: Path) -> Path | bytes:
    packed = archive_of(file)
    return read_entry(*packed) if packed else file


def _refuse_entry(archive: Path, name: str) -> str:
    entry = open_archive(archive).entries.get(name)
    return entry.refused if entry else "no longer in the archive"


def _refuse_file(folder: Path, file: Path) -> str:
    try:
        if file.is_symlink():
            inside = file.resolve().is_relative_to(folder.resolve())
            return (
                "a link to another file of this folder" if inside else "a link that leads out of the folder"
            )
        status = file.stat()
    except (OSError, RuntimeError):
        return "cannot be read"
    if stat.S_ISDIR(status.st_mode):
        return "a folder that cannot be opened"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    if status.st_size == 0:
        return "the file is empty (0 bytes)"
    if is_archive(file):
        return open_archive(file).refused or "an archive with nothing in it"
    if file.suffix.lower() in OTHER_ARCHIVES:
        return "an archive of a kind that is not opened; unpack it, or pack it as zip"
    if status.st_size > MAX_BYTES:
        return f"the file is too large ({status.st_size // 1_000_000} MB, at most {MAX_BYTES // 1_000_000})"
    return ""


def _refuse_size(width: int, height: int) -> str:
    if width * height > MAX_PIXELS:
        return f"{width} x {height} pixels are too many (at most {MAX_PIXELS // 1_000_000} megapixels)"
    if min(width, height) < MIN_SIDE_PX:
        return f"too small: {width} x {height} pixels, the short side needs {MIN_SIDE_PX}"
    if max(width, height) > MAX_RATIO * min(width, height):
        return f"a strip of {width} x {height} pixels, not a photo"
    return ""


def _in_words(problem: Exception) -> str:
    if isinstance(problem, Image.DecompressionBombError):
        return f"too many pixels (at most {MAX_PIXELS // 1_000_000} megapixels)"
    if isinstance(problem, UnidentifiedImageError):
        return "not a picture in a format that is read (JPEG, PNG, WebP, TIFF, HEIC, AVIF, BMP, GIF)"
    text = str(problem).lower()
    if "truncated" in text or "end of file" in text or "eof" in text:
        return "the picture is cut off (an incomplete copy?)"
    return "the picture is damaged and cannot be decoded"


def _notes(image: Image.Image, file: Path) -> Iterator[str]:
    kind = image.format or ""
    if getattr(image, "n_frames", 1) > 1 and kind in ("GIF", "WEBP", "PNG", "AVIF", "TIFF"):
        yield f"only the first of {getattr(image, 'n_frames', 1)} frames is used"
    if file.suffix.lower() not in SUFFIXES.get(kind, {file.suffix.lower()}):
        yield f"named {file.suffix or 'without ending'} but is {kind}"
    if image.mode == "CMYK":
        yield "CMYK converted to sRGB"
    if image.mode in ("L", "LA", "1") or image.mode.startswith(("I", "F")):
        yield "greyscale"
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        yield "transparent parts made white"


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")
