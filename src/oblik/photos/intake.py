"""A folder of files nobody vouches for, one readable picture at a time.

In: a folder. Out: for every file a `Found`: its name, its hash, and either what can be said about it
or the reason, in words, why it is refused; and `read_photo`, its pixels: upright, sRGB, 8-bit, without
metadata. Nothing outside the folder is read, nothing in it is changed. Knows nothing of faces.
Not guaranteed: Pillow's decoders are trusted not to be exploitable; formats are limited to those below.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from oblik.errors import NotFound
from oblik.paths import sha256_file

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF")
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
DATE_TIME_ORIGINAL, DATE_TIME, SUBSEC, EXIF_IFD = 0x9003, 0x0132, 0x9291, 0x8769


@dataclass(frozen=True)
class Found:
    """One file. ``refused`` is empty for a usable one; sizes are upright; ``notes`` are for a person."""

    source: str
    sha256: str
    refused: str = ""
    width_px: int = 0
    height_px: int = 0
    captured_at: datetime | None = None
    notes: tuple[str, ...] = ()


def list_files(folder: Path) -> list[Path]:
    """Every file below ``folder``, by name; hidden files, captions and notes left out; links not followed.

    Raises:
        NotFound: there is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", hint="give the folder that holds the photos")
    found: list[Path] = []
    for here, folders, files in os.walk(folder):
        linked = [name for name in folders if (Path(here) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in linked and not name.startswith(".")]
        found += [Path(here) / name for name in files + linked if not name.startswith(".")]
    return sorted(
        (file for file in found if file.suffix.lower() not in SIDECARS),
        key=lambda file: file.relative_to(folder).as_posix(),
    )


def identify(folder: Path, file: Path) -> Found:
    """Name and hash of one file, or why it is refused without looking into it."""
    source = _printable(file.relative_to(folder).as_posix())
    reason = _refuse_file(folder, file)
    if reason:
        return Found(source, "", refused=reason)
    try:
        return Found(source, sha256_file(file))
    except OSError as problem:
        return Found(source, "", refused=f"cannot be read: {problem.strerror}")


def take(found: Found, file: Path, *, short_side_px: int | None = None) -> tuple[Found, Image.Image | None]:
    """What can be said about an identified file, and its pixels (see `read_photo`) unless it is refused."""
    if found.refused:
        return found, None
    try:
        with _opened(file) as image:
            reason = _refuse_size(*image.size)
            if reason:
                return replace(found, refused=reason), None
            width_px, height_px = _upright_size(image)
            known = replace(
                found, width_px=width_px, height_px=height_px,
                captured_at=_captured_at(image), notes=tuple(_notes(image, file)),
            )  # fmt: skip
            return known, _pixels(image, short_side_px)
    except Exception as problem:  # decoders raise whatever a damaged file makes them raise
        return replace(found, refused=_in_words(problem)), None


def read_photo(file: Path, *, short_side_px: int | None = None) -> Image.Image:
    """The pixels: upright, RGB in sRGB, alpha on white, the first frame; no metadata at all.

    ``short_side_px`` asks for no more than is needed: a JPEG is then decoded at the smallest scale
    whose short side is at least that long, and any picture is reduced to it.
    """
    with _opened(file) as image:
        return _pixels(image, short_side_px)


def _pixels(image: Image.Image, short_side_px: int | None) -> Image.Image:
    if short_side_px is not None:
        image.draft("RGB", (short_side_px, short_side_px))
    image.load()
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    rgb = _to_rgb(upright, profile if isinstance(profile, bytes) else None)
    if short_side_px is not None and min(rgb.size) > short_side_px:
        ratio = short_side_px / min(rgb.size)
        size = (round(rgb.width * ratio), round(rgb.height * ratio))
        rgb = rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    clean = Image.new("RGB", rgb.size)
    clean.paste(rgb)
    return clean


def _opened(file: Path) -> Image.Image:
    formats = _formats()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(file, formats=formats)


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow decodes, HEIC included."""
    if "HEIF" not in Image.OPEN:
        import pillow_heif

        Image.init()
        pillow_heif.register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


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
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    if status.st_size == 0:
        return "the file is empty (0 bytes)"
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


def _captured_at(image: Image.Image) -> datetime | None:
    try:
        exif = image.getexif()
        inner = exif.get_ifd(EXIF_IFD)
        text = str(inner.get(DATE_TIME_ORIGINAL) or exif.get(DATE_TIME) or "").strip("\x00 ")
        moment = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
        fraction = str(inner.get(SUBSEC, "")).strip("\x00 ")
        return moment.replace(microsecond=int(f"{fraction:0<6}"[:6])) if fraction.isdigit() else moment
    except (ValueError, KeyError, TypeError, SyntaxError, OSError):
        return None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        image = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image.alpha_composite(layers)
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile: the numbers are taken as sRGB
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode.startswith("I") and values.max() > 255 else max(float(values.max()), 1.0)
    if image.mode == "F" and top <= 1.0:
        top = 1.0
    return Image.fromarray(np.clip(values / top * 255.0, 0, 255).round().astype(np.uint8))


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")
