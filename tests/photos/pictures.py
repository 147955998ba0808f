"""Small pictures of every format, made without a renderer."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FORMATS = {
    "jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "avif": "AVIF",
    "heic": "HEIF",
}  # fmt: skip


def picture(width: int = 96, height: int = 80, mode: str = "RGB", seed: int | None = None) -> Image.Image:
    """Red on the left, blue on the right, darker at the bottom; with a seed, noise on top."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(1, 0.4, height))
    pixels = np.stack([220 * (1 - x) * y, 40 * y, 220 * x * y], axis=2)
    if seed is not None:
        pixels = pixels + np.random.default_rng(seed).normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    """A file's content by its ending: ``jpg``, ``heic``..."""
    image = image or picture()
    buffer = io.BytesIO()
    if kind == "heic":
        import pillow_heif

        pillow_heif.from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, FORMATS[kind], **options)
    return buffer.getvalue()
