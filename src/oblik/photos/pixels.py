"""The pixels of a picture of any kind: upright, RGB in sRGB, 8-bit, without metadata.

In: a file or its bytes. Out: an opened picture, and its pixels, no more of them than asked for. Knows nothing
of folders, of limits, or of why a picture is wanted.
Not guaranteed: Pillow's decoders are trusted not to be exploitable; formats are limited to those below.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF")
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)
REDUCED_AS_IT_IS = ("RGB", "L", "CMYK")
WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Decoded:
    """Clean pixels, and the upright size of the whole picture they were reduced from."""

    image: Image.Image
    width_px: int
    height_px: int


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


def decode(image: Image.Image, short_side_px: int | None = None) -> Decoded:
    """Decode an opened picture: the first frame, alpha on white.

    With ``short_side_px`` a JPEG is decoded at the smallest scale whose short side is at least that long, and
    any picture is then reduced to it, before anything costly is done to its colours.
    """
    width, height = image.size
    if short_side_px is not None:
        image.draft("RGB", (short_side_px, short_side_px))
    image.load()
    turn = image.getexif().get(ORIENTATION, 1)  # after load: TIFF files are turned by Pillow itself
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) else None
    if image.mode not in REDUCED_AS_IT_IS or "transparency" in image.info:
        image, profile = _to_rgb(image, profile), None
    upright = _to_rgb(_reduced(image, short_side_px), profile)
    if turn in TURNS:
        upright = upright.transpose(TURNS[turn])
    clean = Image.new("RGB", upright.size)
    clean.paste(upright)
    return Decoded(clean, *((height, width) if turn in SIDEWAYS else (width, height)))


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow decodes, HEIC included."""
    if "HEIF" not in Image.OPEN:
        import pillow_heif

        Image.init()
        pillow_heif.register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


def _reduced(image: Image.Image, short_side_px: int | None) -> Image.Image:
    if short_side_px is None or min(image.size) <= short_side_px:
        return image
    ratio = short_side_px / min(image.size)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image)
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


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float32)
    top = 65535.0 if image.mode.startswith("I") and values.max() > 255 else max(float(values.max()), 1.0)
    if image.mode == "F" and top <= 1.0:
        top = 1.0
    return Image.fromarray(np.clip(values / top * 255.0, 0, 255).round().astype(np.uint8))
