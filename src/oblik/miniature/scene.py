"""Light, film and soft-focus backgrounds.

In: a `Shot` and a size, or visible points (normals, colours, matter).  Out: a
background and lit colours in linear RGB, and the developed sRGB image.  It
does not know the person, the surfaces or the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.miniature.head import GLOSS, HAIR, SKIN, WET
from oblik.miniature.shots import Shot

Arr = NDArray[Any]
F32 = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """Key, fill, rim and ambient light of a shot."""

    key_dir: Colour
    key: Colour
    fill: Colour
    rim: Colour
    sky: Colour
    ground: Colour
    exposure: float
    scene_gain: float


LIGHTS: dict[str, Light] = {
    "studio": Light(
        (0.45, 0.50, 0.85),
        (0.72, 0.70, 0.67),
        (0.16, 0.16, 0.17),
        (0.20, 0.20, 0.22),
        (0.44, 0.44, 0.45),
        (0.24, 0.23, 0.22),
        1.0,
        1.0,
    ),
    "daylight": Light(
        (0.35, 0.75, 0.70),
        (0.72, 0.70, 0.66),
        (0.12, 0.13, 0.14),
        (0.15, 0.16, 0.18),
        (0.50, 0.53, 0.57),
        (0.24, 0.23, 0.20),
        1.0,
        1.08,
    ),
    "side": Light(
        (0.95, 0.25, 0.35),
        (1.02, 0.98, 0.92),
        (0.03, 0.03, 0.035),
        (0.10, 0.10, 0.11),
        (0.25, 0.25, 0.27),
        (0.13, 0.13, 0.13),
        0.98,
        0.8,
    ),
    "warm": Light(
        (0.55, 0.35, 0.80),
        (0.88, 0.68, 0.46),
        (0.12, 0.10, 0.08),
        (0.22, 0.14, 0.08),
        (0.44, 0.37, 0.31),
        (0.27, 0.21, 0.16),
        0.98,
        0.85,
    ),
    "backlit": Light(
        (0.30, 0.70, -0.70),
        (0.80, 0.76, 0.68),
        (0.16, 0.16, 0.17),
        (0.90, 0.85, 0.74),
        (0.44, 0.44, 0.47),
        (0.27, 0.26, 0.25),
        0.90,
        1.55,
    ),
    "dim": Light(
        (0.50, 0.55, 0.70),
        (0.34, 0.34, 0.38),
        (0.05, 0.05, 0.06),
        (0.05, 0.05, 0.08),
        (0.19, 0.20, 0.25),
        (0.09, 0.09, 0.11),
        0.85,
        0.45,
    ),
}


def light(shot: Shot) -> tuple[Light, float]:
    """The light of a shot and the side (-1 or 1) its key comes from."""
    rng = np.random.default_rng([shot.seed, 3])
    return LIGHTS[shot.light], float(rng.choice([-1.0, 1.0]))


def _canvas(h: int, w: int, top: Colour, bottom: Colour) -> F32:
    t = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    out: F32 = np.repeat(
        np.asarray(top, np.float32) * (1 - t) + np.asarray(bottom, np.float32) * t, w, axis=1
    )
    return out


def _blobs(
    img: F32,
    rng: np.random.Generator,
    n: int,
    colours: list[Colour],
    size: tuple[float, float],
    rows: tuple[float, float],
    soft: float,
) -> None:
    """Soft discs of random place and colour, drawn in place."""
    h, w = img.shape[:2]
    for _ in range(n):
        c = np.asarray(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.7, 1.25)
        at = (int(rng.uniform(0, w)), int(rng.uniform(*rows) * h))
        cv2.circle(img, at, max(1, int(rng.uniform(*size) * h)), tuple(float(v) for v in c), -1, cv2.LINE_AA)
    img[:] = cv2.GaussianBlur(img, (0, 0), soft * h)


def _boxes(
    img: F32,
    rng: np.random.Generator,
    n: int,
    colours: list[Colour],
    rows: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Upright rectangles (windows, frames, houses), drawn in place."""
    h, w = img.shape[:2]
    for _ in range(n):
        c = np.asarray(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.75, 1.2)
        x, y = rng.uniform(-0.1, 1.0) * w, rng.uniform(*rows) * h
        bw, bh = rng.uniform(*size) * w, rng.uniform(*size) * h * 1.5
        cv2.rectangle(img, (int(x), int(y)), (int(x + bw), int(y + bh)), tuple(float(v) for v in c), -1)


def _studio(img: F32, rng: np.random.Generator) -> float:
    h, w = img.shape[:2]
    tone = np.asarray(
        [
            (0.42, 0.42, 0.43),
            (0.16, 0.17, 0.19),
            (0.56, 0.53, 0.48),
            (0.20, 0.27, 0.36),
            (0.62, 0.62, 0.62),
        ][int(rng.integers(5))],
        np.float32,
    )
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    cx, cy = rng.uniform(0.3, 0.7) * w, rng.uniform(0.25, 0.6) * h
    fall = np.exp(-(((x - cx) / (0.75 * w)) ** 2 + ((y - cy) / (0.75 * h)) ** 2))
    img[:] = tone * (0.55 + 0.55 * fall)[..., None]
    return 0.01


def _office(img: F32, rng: np.random.Generator) -> float:
    h, w = img.shape[:2]
    img[:] = _canvas(h, w, (0.52, 0.53, 0.54), (0.38, 0.37, 0.36))
    _boxes(
        img,
        rng,
        3,
        [(0.75, 0.80, 0.86), (0.62, 0.60, 0.56), (0.30, 0.33, 0.36)],
        (-0.1, 0.3),
        (0.15, 0.4),
    )
    _boxes(img, rng, 3, [(0.28, 0.24, 0.20), (0.2, 0.22, 0.25), (0.36, 0.30, 0.24)], (0.6, 0.8), (0.1, 0.4))
    return 0.022


def _park(img: F32, rng: np.random.Generator) -> float:
    h, w = img.shape[:2]
    img[:] = _canvas(h, w, (0.46, 0.58, 0.62), (0.18, 0.30, 0.10))
    _blobs(
        img,
        rng,
        26,
        [(0.12, 0.24, 0.07), (0.20, 0.34, 0.10), (0.32, 0.44, 0.16), (0.10, 0.17, 0.06)],
        (0.06, 0.17),
        (0.0, 0.7),
        0.02,
    )
    _blobs(img, rng, 9, [(0.62, 0.68, 0.42), (0.75, 0.80, 0.62)], (0.015, 0.045), (0.0, 0.5), 0.012)
    return 0.006


def _street(img: F32, rng: np.random.Generator) -> float:
    h, w = img.shape[:2]
    img[:] = _canvas(h, w, (0.60, 0.66, 0.74), (0.34, 0.33, 0.33))
    _boxes(
        img,
        rng,
        5,
        [(0.42, 0.36, 0.31), (0.50, 0.47, 0.43), (0.32, 0.28, 0.27), (0.55, 0.42, 0.32)],
        (-0.1, 0.25),
        (0.18, 0.42),
    )
    _boxes(img, rng, 8, [(0.22, 0.25, 0.30), (0.70, 0.66, 0.55)], (0.05, 0.5), (0.03, 0.07))
    _boxes(img, rng, 2, [(0.40, 0.07, 0.06), (0.10, 0.14, 0.25), (0.5, 0.5, 0.5)], (0.68, 0.78), (0.15, 0.3))
    return 0.022


def _beach(img: F32, rng: np.random.Generator) -> float:
    h, w = img.shape[:2]
    img[:] = _canvas(h, w, (0.36, 0.55, 0.80), (0.66, 0.78, 0.88))
    sea, sand = int(h * rng.uniform(0.42, 0.56)), int(h * rng.uniform(0.64, 0.78))
    img[sea:sand] = _canvas(sand - sea, w, (0.10, 0.30, 0.45), (0.26, 0.52, 0.58))
    img[sand:] = _canvas(h - sand, w, (0.66, 0.56, 0.42), (0.54, 0.44, 0.32))
    return 0.010


def _night(img: F32, rng: np.random.Generator) -> float:
    h, w = img.shape[:2]
    img[:] = _canvas(h, w, (0.012, 0.016, 0.035), (0.03, 0.025, 0.03))
    _blobs(
        img,
        rng,
        22,
        [
            (0.75, 0.50, 0.20),
            (0.80, 0.66, 0.42),
            (0.55, 0.16, 0.12),
            (0.18, 0.35, 0.62),
            (0.16, 0.45, 0.35),
        ],
        (0.012, 0.05),
        (0.1, 0.9),
        0.008,
    )
    return 0.004


def _room(img: F32, rng: np.random.Generator) -> float:
    h, w = img.shape[:2]
    wall = [(0.56, 0.48, 0.38), (0.48, 0.50, 0.46), (0.46, 0.40, 0.42), (0.38, 0.44, 0.50)][
        int(rng.integers(4))
    ]
    img[:] = _canvas(h, w, wall, (wall[0] * 0.7, wall[1] * 0.7, wall[2] * 0.68))
    _boxes(img, rng, 2, [(0.30, 0.22, 0.16), (0.66, 0.62, 0.55), (0.25, 0.32, 0.30)], (0.0, 0.3), (0.14, 0.3))
    _boxes(img, rng, 2, [(0.34, 0.22, 0.16), (0.22, 0.24, 0.30)], (0.62, 0.75), (0.3, 0.6))
    _blobs(img, rng, 1, [(0.95, 0.75, 0.45)], (0.05, 0.09), (0.1, 0.4), 0.02)
    return 0.014


DRAWN = {
    "studio": _studio,
    "office": _office,
    "park": _park,
    "street": _street,
    "beach": _beach,
    "night": _night,
    "room": _room,
}
"""Each draws a scene in place and returns the blur it wants, in image heights."""


def background(shot: Shot, width: int, height: int) -> F32:
    """The soft-focus scene behind the person, linear RGB."""
    rng = np.random.default_rng([shot.seed, 5])
    h = 128 if max(width, height) > 160 else 96
    w = max(16, round(h * width / height))
    img = np.zeros((h, w, 3), np.float32)
    blur = DRAWN[shot.scene](img, rng)
    img = cv2.GaussianBlur(img, (0, 0), max(0.6, (blur + 0.008) * h))
    lit = LIGHTS[shot.light]
    tint = np.asarray(lit.sky, np.float32) / max(float(np.mean(lit.sky)), 1e-3)
    img *= (0.35 + 0.65 * tint) * lit.scene_gain
    if shot.light == "backlit":
        y, x = np.mgrid[0:h, 0:w].astype(np.float32) / h
        img += 0.5 * np.exp(-((x - rng.uniform(0.2, 0.8) * w / h) ** 2 + (y - 0.25) ** 2) / 0.25)[..., None]
    out: F32 = cv2.resize(img, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.maximum(out, 0.0)


def shade(normal: F32, albedo: F32, matter: Arr, ao: F32, lit: Light, side: float) -> F32:
    """Light that leaves the visible points, linear RGB."""
    key = np.asarray(lit.key_dir, np.float32) * np.array([side, 1, 1], np.float32)
    key /= np.linalg.norm(key)
    fill = np.array([-side * 0.7, 0.1, 0.7], np.float32)
    nx, ny, nz = normal[:, 0], normal[:, 1], normal[:, 2]
    soft = (matter == SKIN).astype(np.float32)
    ndl = normal @ key
    wrap = np.maximum((ndl + 0.28) / 1.28, 0) ** 1.25
    red = np.maximum((ndl + 0.42) / 1.42, 0) ** 1.25
    base = np.asarray(lit.key, np.float32)
    glow = np.maximum(normal @ fill, 0)
    up = 0.5 + 0.5 * ny
    total = np.empty_like(albedo)
    edge = np.clip(1 - np.maximum(nz, 0), 0, 1) ** 3 * np.clip(0.4 + 0.6 * ny + 0.3 * side * nx, 0, 1)
    half = key + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    ndh = np.maximum(normal @ half, 0)
    spec = np.where(
        matter == SKIN,
        (0.05 * ndh**12 + 0.03 * ndh**40) * (0.35 + albedo[:, 0]),
        np.where(matter == GLOSS, 0.5 * ndh**60 + 0.01, 0.0),
    ).astype(np.float32)
    hairy = matter == HAIR
    if hairy.any():
        band = np.exp(-(((normal @ half - 0.72) / 0.16) ** 2)) + 0.4 * np.exp(
            -(((normal @ half - 0.9) / 0.1) ** 2)
        )
        spec = np.where(hairy, 0.055 * band, spec)
    for c in range(3):
        direct = wrap + (red - wrap) * soft if c == 0 else wrap
        direct = np.where(matter == WET, 0.35 * direct + 0.45 * max(float(key[2]), 0.0), direct)
        ambient = lit.ground[c] + (lit.sky[c] - lit.ground[c]) * up
        lightness = (ambient + lit.fill[c] * glow) * ao + base[c] * direct * (0.55 + 0.45 * ao)
        total[:, c] = (
            albedo[:, c] * lightness
            + spec * base[c] * ao
            + lit.rim[c] * edge * ao * (0.10 + 0.5 * albedo[:, c])
        )
    total[hairy] = np.minimum(total[hairy], 0.9)
    return total


def develop(linear: F32, shot: Shot, exposure: float) -> NDArray[np.uint8]:
    """Film curve, gamma, and a little sensor noise."""
    rng = np.random.default_rng([shot.seed, 37])
    x = linear * np.float32(exposure * 1.12 * rng.uniform(0.93, 1.07))
    x = x * (1 + rng.normal(0, 0.018, 3).astype(np.float32))
    x = x * (1 + 0.12 * x) / (1 + 0.34 * x)
    x = np.clip(x, 0, 1) ** np.float32(1 / 2.2)
    grain = 0.012 if shot.light == "dim" or shot.scene == "night" else 0.005
    x = x + rng.standard_normal(x.shape[:2], dtype=np.float32)[..., None] * np.float32(grain)
    return np.asarray(np.clip(x * 255 + 0.5, 0, 255), np.uint8)
