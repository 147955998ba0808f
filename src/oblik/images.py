"""Pictures in and out, with Pillow only.

In: files as phones and cameras write them. Out: upright sRGB images, PNG files without metadata,
contact sheets, data URIs for self-contained pages, which keep a made picture's label (`oblik.labels`). Knows
nothing of faces or models.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps

from oblik.errors import InvalidInput
from oblik.labels import Label, labelled_png, read_label, xmp
from oblik.paths import atomic_write

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_GAP_PX = 4
_PAGE_QUALITY = 88


def open_upright(path: Path) -> Image.Image:
    """Open a picture as RGB in sRGB with its EXIF orientation applied; transparency becomes white.

    Raises:
        InvalidInput: the file is not a picture, is truncated, or is too large to be one.
    """
    _allow_heif(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()
                profile = opened.info.get("icc_profile")
                return _to_srgb(ImageOps.exif_transpose(opened), profile)
    except (OSError, ValueError, SyntaxError, MemoryError, EOFError, Image.DecompressionBombError) as problem:
        raise InvalidInput(
            f"{path.name} cannot be read as a picture: {problem}",
            hint="open it in a viewer and export it again",
        ) from problem


def save_clean_png(image: Image.Image, path: Path) -> None:
    """Write pixels and nothing else: no EXIF, GPS, comments, colour profile or time."""
    buffer = io.BytesIO()
    _without_info(image).save(buffer, format="PNG")
    atomic_write(path, buffer.getvalue())


def grid(
    images: Sequence[Image.Image], columns: int, labels: Sequence[str] | None = None, *, cell_px: int = 256
) -> Image.Image:
    """A contact sheet: pictures fitted into square cells, row by row, with an optional label below each."""
    if not images:
        raise InvalidInput("a contact sheet needs at least one picture")
    if labels is not None and len(labels) != len(images):
        raise InvalidInput(f"{len(labels)} labels for {len(images)} pictures")
    columns = max(1, min(columns, len(images)))
    label_px = max(14, cell_px // 14) if labels else 0
    step_x, step_y = cell_px + _GAP_PX, cell_px + _GAP_PX + (label_px * 3 // 2 if labels else 0)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * step_x + _GAP_PX, rows * step_y + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, image in enumerate(images):
        left, top = _GAP_PX + place % columns * step_x, _GAP_PX + place // columns * step_y
        fitted = ImageOps.contain(image.convert("RGB"), (cell_px, cell_px), Image.Resampling.LANCZOS)
        sheet.paste(fitted, (left + (cell_px - fitted.width) // 2, top + (cell_px - fitted.height) // 2))
        if labels:
            font = _fitting_font(draw, labels[place], label_px, cell_px)
            centre = (left + cell_px // 2, top + cell_px + label_px * 3 // 4)
            draw.text(centre, labels[place], _INK, font=font, anchor="mm")
    return sheet


def data_uri(
    picture: Image.Image | Path, *, longest_px: int | None = None, quality: int | None = None
) -> str:
    """A ``data:`` URI for an HTML page: PNG, or JPEG when ``quality`` is given or the file is one.

    ``longest_px`` shrinks the picture (never enlarges it). Pixels are encoded anew, so a photo's
    EXIF and GPS never reach the page; the label of a made picture does.
    """
    label = None
    if isinstance(picture, Path):
        label = label_of(picture)
        if quality is None and picture.suffix.lower() in (".jpg", ".jpeg"):
            quality = _PAGE_QUALITY
        picture = open_upright(picture)
    if longest_px is not None and max(picture.size) > longest_px:
        picture = ImageOps.contain(picture, (longest_px, longest_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if quality is not None:
        more = {"xmp": xmp(label).encode()} if label else {}
        _without_info(picture).convert("RGB").save(buffer, format="JPEG", quality=quality, **more)
        return _uri("jpeg", buffer.getvalue())
    if label:
        return _uri("png", labelled_png(picture, label))
    _without_info(picture).save(buffer, format="PNG")
    return _uri("png", buffer.getvalue())


def label_of(path: Path) -> Label | None:
    """The label of a picture's file; None when it has none or cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                return read_label(opened)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _allow_heif(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        import pillow_heif

        pillow_heif.register_heif_opener()


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.new("RGB", image.size, _PAPER)
        image.paste(layered, mask=layered.getchannel("A"))
    if profile and image.mode in ("RGB", "CMYK", "L"):
        image = _apply_profile(image, profile)
    return _without_info(image.convert("RGB"))


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted or image


def _without_info(image: Image.Image) -> Image.Image:
    clean = image.copy()
    clean.info = {}
    return clean


def _fitting_font(
    draw: ImageDraw.ImageDraw, text: str, size_px: int, width_px: int
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    while True:
        font = ImageFont.load_default(size_px)
        if size_px <= 8 or draw.textlength(text, font=font) <= width_px:
            return font
        size_px -= 1
