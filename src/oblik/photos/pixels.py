"""The pixels of a picture of any kind: upright, RGB in sRGB, 8-bit, without metadata.

In: a file or its bytes. Out: an opened picture, and its pixels, no more of them than asked for. Knows nothing
of folders, of limits, or of why a picture is wanted.
Memory: a decoded picture takes 4 bytes a pixel; threads that share a `Room` hold no more than its pixels at a
time, or one picture that is larger, and colours are changed in strips of what was decoded.
Not guaranteed: Pillow's decoders are trusted not to be exploitable; formats are limited to those below. The
decoders of WebP, HEIC, AVIF, and of JPEGs that come in several passes, make copies of their own meanwhile.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF")
ORIENTATION, DATE_TIME_ORIGINAL, DATE_TIME, SUBSEC, FOCAL_35MM = 0x0112, 0x9003, 0x0132, 0x9291, 0xA405
EXIF_IFD = 0x8769
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)
REDUCED_AS_IT_IS = ("RGB", "L", "CMYK")
WHITE = (255, 255, 255, 255)
STRIP_PX = 4_000_000
ROOM_PX = 50_000_000
"""Four photos of 12 megapixels at once; larger ones wait for each other."""
BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Decoded:
    """Clean pixels, the upright size of the whole picture they were reduced from, and what the camera said of
    time and focal length (see `oblik.photos.intake.Found`)."""

    image: Image.Image
    width_px: int
    height_px: int
    captured_at: datetime | None = None
    focal_35mm: float = 0.0


class Room:
    """How many pixels may be decoded at once, by all threads together.

    Pillow is told to ask for memory in blocks so large (BLOCK_BYTES) that the C library gives each back when
    it is freed; smaller ones every thread would keep for itself.
    """

    def __init__(self, pixels: int = ROOM_PX) -> None:
        self.pixels = self.free = pixels
        self._changed = threading.Condition()
        Image.core.set_block_size(BLOCK_BYTES)  # type: ignore[attr-defined]

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many; what is larger than the room waits until it is empty."""
        wanted = min(pixels, self.pixels)
        with self._changed:
            self._changed.wait_for(lambda: self.free >= wanted)
            self.free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self.free += wanted
                self._changed.notify_all()


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow's remarks about odd files become silence. Changes the state of the whole process: one thread
    enters it around the work of all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_picture(source: Path | bytes) -> Image.Image:
    """A picture in one of FORMATS, its header read and nothing decoded; raises whatever Pillow raises."""
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())


def decode(image: Image.Image, short_side_px: int | None = None, room: Room | None = None) -> Decoded:
    """Decode an opened picture, the first frame, alpha on white, and close it.

    With ``short_side_px`` a JPEG is decoded at the smallest scale whose short side is at least that long, and
    any picture is then reduced to it, before anything costly is done to its colours.
    """
    width, height = image.size
    if short_side_px is not None:
        image.draft("RGB", (short_side_px, short_side_px))
    with (room or Room()).take(image.width * image.height):
        image.load()
        exif = image.getexif()  # after load, which PNG needs for it; TIFF files are turned by Pillow itself
        turn, said = exif.get(ORIENTATION, 1), (_captured_at(exif), _focal_35mm(exif))
        upright = _upright(image, short_side_px, turn)
        image.close()
    return Decoded(upright, *((height, width) if turn in SIDEWAYS else (width, height)), *said)


def _upright(image: Image.Image, short_side_px: int | None, turn: int) -> Image.Image:
    """A new picture: reduced, sRGB, turned, with nothing beside its pixels."""
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) else None
    if image.mode in REDUCED_AS_IT_IS and "transparency" not in image.info:
        upright = _to_rgb(_reduced(image, short_side_px), profile)
    elif short_side_px is not None and image.width * image.height > STRIP_PX:
        upright = _reduced(*_in_strips(image, profile, short_side_px))
    else:
        upright = _reduced(_to_rgb(image, profile), short_side_px)
    if turn in TURNS:
        upright = upright.transpose(TURNS[turn])
    clean = Image.new("RGB", upright.size)
    clean.paste(upright)
    return clean


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow decodes, HEIC included."""
    if "HEIF" not in Image.OPEN:
        import pillow_heif

        Image.init()
        pillow_heif.register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


def _reduced(
    image: Image.Image, short_side_px: int | None, across: float | None = None, down: float | None = None
) -> Image.Image:
    """Reduced to a short side. Of one that was shrunk before, ``across`` x ``down`` pixels are filled."""
    width, height = across or image.width, down or image.height
    if short_side_px is None or min(width, height) <= short_side_px:
        return image
    ratio = short_side_px / min(width, height)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return image.resize(size, Image.Resampling.HAMMING, box=(0, 0, width, height), reducing_gap=2.0)


def _in_strips(
    image: Image.Image, profile: bytes | None, short_side_px: int
) -> tuple[Image.Image, int, float, float]:
    """What `_reduced` takes: the picture in RGB, shrunk by a whole number, without a large copy of it."""
    by = max(1, min(image.size) // (2 * short_side_px))
    small = Image.new("RGB", (-(-image.width // by), -(-image.height // by)))
    highest = max(_highest(strip) for _, strip in _strips(image, by))
    for upper, strip in _strips(image, by):
        small.paste(_to_rgb(strip, profile, highest).reduce(by), (0, upper // by))
    return small, short_side_px, image.width / by, image.height / by


def _strips(image: Image.Image, by: int) -> Iterator[tuple[int, Image.Image]]:
    """The picture from top to bottom in pieces of about STRIP_PX, of a multiple of ``by`` rows."""
    rows = by * max(1, STRIP_PX // (image.width * by))
    for upper in range(0, image.height, rows):
        yield upper, image.crop((0, upper, image.width, min(upper + rows, image.height)))


def _to_rgb(image: Image.Image, profile: bytes | None, highest: float | None = None) -> Image.Image:
    """``highest`` is the largest value of the whole picture, where ``image`` is a part of it."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image, _highest(image) if highest is None else highest)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        image = Image.new("RGBA", image.size, WHITE)
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


def _captured_at(exif: Image.Exif) -> datetime | None:
    try:
        inner = exif.get_ifd(EXIF_IFD)
        text = str(inner.get(DATE_TIME_ORIGINAL) or exif.get(DATE_TIME) or "").strip("\x00 ")
        moment = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
        fraction = str(inner.get(SUBSEC, "")).strip("\x00 ")
        return moment.replace(microsecond=int(f"{fraction:0<6}"[:6])) if fraction.isdigit() else moment
    except (ValueError, KeyError, TypeError, SyntaxError, OSError):
        return None


def _focal_35mm(exif: Image.Exif) -> float:
    try:
        value = float(exif.get_ifd(EXIF_IFD).get(FOCAL_35MM) or 0.0)
    except (ValueError, KeyError, TypeError, SyntaxError, OSError, ZeroDivisionError):
        return 0.0
    return value if 4.0 <= value <= 2000.0 else 0.0


def _highest(image: Image.Image) -> float:
    """The largest value of a picture of more than 8 bits."""
    return float(np.asarray(image).max()) if image.mode.startswith(("I", "F")) else 255.0


def _eight_bit(image: Image.Image, highest: float) -> Image.Image:
    """White is 65535 in a 16-bit picture, else the largest value."""
    top = 65535.0 if image.mode.startswith("I") and highest > 255 else max(highest, 1.0)
    values = np.asarray(image, dtype=np.float32)
    return Image.fromarray(np.clip(values / top * 255.0, 0, 255).round().astype(np.uint8))
