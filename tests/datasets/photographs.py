"""A phone folder of real photographs, made out of the public-domain portrait that scikit-image brings.

The astronaut is cut out, her head turned as if it were an ellipsoid, lit from a side, put before other
photographs and written as a phone does: HEIC and JPEG, with a time, a place and a name. With her come copies,
a burst, photographs without a face, a file that was cut off, and two other people: crops of LFW of 25 px.
Nothing of it is kept anywhere; scikit-image opens no connection for these pictures.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

NOON = datetime(2026, 5, 1, 12)
MIDDLE, AXES = (222.0, 100.0), (62.0, 85.0)
PLACES = ("coffee", "chelsea", "rocket", "brick", "grass", "gravel", "hubble_deep_field", "retina")
OTHERS = (0, 6)
SECRET = "A Name, at home"

F32 = NDArray[np.float32]


def fill(folder: Path, data: Any, photos: int = 18) -> dict[str, str]:
    """Write the folder from the module ``skimage.data``; file name -> what is true of it."""
    astronaut, truth = np.asarray(data.astronaut(), np.uint8), {}
    alpha, places = cut_out(astronaut), {name: place(data, name) for name in PLACES}
    folder.mkdir(parents=True)

    def write(name: str, kind: str, image: Image.Image, at: datetime, **options: Any) -> None:
        saved(folder / name, image, at, **options)
        truth[name] = kind

    for number in range(photos):
        image = photograph(astronaut, alpha, places[PLACES[number % len(PLACES)]], number)
        name = f"IMG_{number:02d}.{'heic' if number % 3 == 0 else 'jpg'}"
        write(name, "photo", image, NOON + timedelta(hours=number))
        if number % 8 == 1:
            small = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
            write(f"copy-{number:02d}.jpg", "copy", small, NOON + timedelta(days=9 + number), quality=80)
    for second in range(3):
        image = photograph(astronaut, alpha, places["retina"], 92, turn_deg=12.0 * second - 30)
        write(f"burst-{second}.jpg", "burst", image, NOON + timedelta(days=40, seconds=second))
    for number in range(4):
        image = stranger(data.lfw_subset()[OTHERS[number % 2]], places[PLACES[number]])
        write(f"friend-{number}.jpg", "stranger", image, NOON + timedelta(days=50 + number))
    for name in ("coffee", "rocket", "camera"):
        write(f"{name}.png", "no face", Image.fromarray(getattr(data, name)()), NOON)
    content = (folder / "IMG_01.jpg").read_bytes()
    (folder / "cut-off.jpg").write_bytes(content[: len(content) // 3])
    return {**truth, "cut-off.jpg": "broken"}


def place(data: Any, name: str) -> F32:
    """Another photograph, as large as the portrait."""
    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    return np.asarray(image.resize((512, 512), Image.Resampling.BICUBIC), np.float32)


def cut_out(astronaut: NDArray[np.uint8]) -> F32:
    """How much of each pixel is the person (GrabCut, Rother et al. 2004), 0..1."""
    mask = np.full(astronaut.shape[:2], cv2.GC_BGD, np.uint8)
    cv2.ellipse(mask, (222, 115), (95, 120), 0, 0, 360, cv2.GC_PR_FGD, -1)
    cv2.ellipse(mask, (222, 115), (55, 75), 0, 0, 360, cv2.GC_FGD, -1)
    mask[210:, 20:440], mask[330:, 120:350] = cv2.GC_PR_FGD, cv2.GC_FGD
    models = (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.grabCut(astronaut[..., ::-1].copy(), mask, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    return np.asarray(cv2.GaussianBlur((mask % 2).astype(np.float32), (0, 0), 1.5), np.float32)


def turned(layers: F32, yaw_deg: float, pitch_deg: float) -> F32:
    """The head turned: what lies nearer to the camera moves further."""
    rows, columns = np.mgrid[: layers.shape[0], : layers.shape[1]].astype(np.float32)
    across, down = (columns - MIDDLE[0]) / AXES[0], (rows - MIDDLE[1]) / AXES[1]
    depth = AXES[0] * np.sqrt(np.maximum(0, 1 - across**2 - down**2))
    x = (columns - depth * np.sin(np.radians(yaw_deg))).astype(np.float32)
    y = (rows - depth * np.sin(np.radians(pitch_deg))).astype(np.float32)
    return np.asarray(cv2.remap(layers, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)


def photograph(
    astronaut: NDArray[np.uint8], alpha: F32, behind: F32, number: int, turn_deg: float | None = None
) -> Image.Image:
    """One photograph: the same number is the same one, but for a turn of the head that is given."""
    rng = np.random.default_rng(number)
    yaw_deg, pitch_deg, side_light = rng.uniform(-45, 45), rng.uniform(-10, 10), rng.uniform(-0.35, 0.35)
    left, low, wide = int(rng.integers(0, 70)), int(rng.integers(320, 512)), rng.uniform(0.8, 1.0)
    layers = np.dstack([astronaut.astype(np.float32), alpha * 255])
    layers = turned(layers, yaw_deg if turn_deg is None else turn_deg, pitch_deg)
    person = np.clip(layers[..., 3:] / 255, 0, 1)
    lit = layers[..., :3] * (1 + side_light * np.linspace(-1, 1, 512)[None, :, None])
    pixels = (lit * person + behind * (1 - person)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).crop((left, 0, left + int(low * wide), low))
    scale = 520 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.3))


def stranger(face: NDArray[np.floating[Any]], behind: F32) -> Image.Image:
    """A small grey face, 0..1, enlarged, before another photograph."""
    grey = cv2.resize(
        np.asarray(255 * face, np.float32).clip(0, 255), (220, 220), interpolation=cv2.INTER_CUBIC
    )
    pixels = behind.copy()
    pixels[140:360, 150:370] = grey[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(file: Path, image: Image.Image, at: datetime, quality: int = 92) -> None:
    """With what a phone writes beside the pixels."""
    exif = Image.Exif()
    exif[0x010E] = SECRET
    exif.get_ifd(0x8769)[0x9003] = at.strftime("%Y:%m:%d %H:%M:%S")
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (47.0, 11.0, 5.0)
    if file.suffix == ".heic":
        import pillow_heif

        pillow_heif.from_pillow(image).save(file, quality=quality, exif=exif.tobytes())
    else:
        image.convert("RGB").save(file, quality=quality, exif=exif)
