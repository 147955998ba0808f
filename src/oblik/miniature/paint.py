"""Colours of the face, painted on base coordinates of the head.

In: a `Person`, base coordinates (x, y) of the head's grid at any resolution
and an expression.  Out: linear RGB albedo, with eyes and mouth painted over a
patch for each expression.  It does not know pose, light or pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.miniature.head import Mood, bump, marks, smooth
from oblik.miniature.people import Person

F32 = NDArray[np.float32]
Arr = NDArray[Any]


def noise(seed: int, shape: tuple[int, int], cells: tuple[int, int]) -> F32:
    """Smooth unit-variance noise with about `cells` blobs over the grid."""
    rng = np.random.default_rng([seed, cells[0], cells[1]])
    small = rng.normal(size=(cells[0] + 3, cells[1] + 3)).astype(np.float32)
    out: F32 = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return out


def blend(base: Arr, colour: Arr | tuple[float, float, float] | F32, amount: Arr) -> None:
    """Mix `colour` into `base` in place."""
    a = np.clip(amount, 0, 1)[..., None]
    base += (np.asarray(colour, np.float32) - base) * a


def skin(p: Person, x: F32, y: F32) -> F32:
    """The face without eyes and mouth."""
    m = marks(p)
    ax = np.abs(x)
    tone = np.asarray(p.skin_rgb, np.float32)
    out = np.empty((*x.shape, 3), np.float32)
    out[:] = tone
    light = 1 + 0.035 * noise(p.seed, x.shape, (14, 14)) + 0.02 * noise(p.seed + 1, x.shape, (60, 60))
    light = light + 0.05 * bump(x, y, 0, 0.45, 0.4, 0.25)
    flush = (
        0.9 * bump(ax, y, 0.42, -0.36, 0.2, 0.16)
        + 0.8 * bump(x, y, 0, m.tip_y, 0.16, 0.1)
        + 0.3 * bump(x, y, 0, m.chin_y + 0.1, 0.15, 0.1)
        + 0.12 * noise(p.seed + 2, x.shape, (9, 9))
    )
    flush = np.clip(flush, 0, 1) * p.redness
    out *= light[..., None] * (1 - flush[..., None] * np.array([0.0, 0.16, 0.17], np.float32))
    tired = bump(ax, y, m.eye_x - 0.03, m.eye_y - 0.12, 0.15, 0.055) * (0.35 + 0.5 * p.wrinkles)
    tired = tired + 0.55 * bump(ax, y, m.eye_x - 0.13, m.eye_y + 0.05, 0.08, 0.11)
    tired = tired + 0.3 * bump(ax, y, m.eye_x, m.eye_y + 0.06, 0.2, 0.07)
    out *= 1 - np.clip(tired, 0, 1)[..., None] * np.array([0.26, 0.30, 0.28], np.float32)
    _folds(p, out, x, y)
    _marks(p, out, x, y)
    _facial_hair(p, out, x, y)
    return out


def _folds(p: Person, out: F32, x: F32, y: F32) -> None:
    """Nasolabial folds, forehead lines, crow's feet and nostrils."""
    m = marks(p)
    ax = np.abs(x)
    fold = ax - (0.195 + p.nose_w + 0.40 * np.clip(m.tip_y - y, 0, 0.5))
    span = smooth(m.mouth_y - 0.16, m.mouth_y + 0.05, y) * (1 - smooth(m.tip_y - 0.02, m.tip_y + 0.1, y))
    depth = (0.10 + 0.32 * p.wrinkles) * np.exp(-((fold / 0.022) ** 2)) * span
    depth = depth + 0.16 * bump(ax, y, 0.180 + p.nose_w, m.tip_y - 0.03, 0.020, 0.05)
    if p.wrinkles > 0.15:
        wave = y + 0.02 * np.cos(ax * 5) + 0.006 * noise(p.seed + 3, x.shape, (8, 20))
        lines = np.clip(np.cos(wave * 2 * np.pi / 0.085) - 0.75, 0, 1) * 4
        depth = depth + 0.20 * p.wrinkles * lines * bump(x, y, 0, 0.44, 0.42, 0.12)
        feet = np.clip(np.cos((y - m.eye_y) * 110 / (0.6 + 2.2 * np.clip(ax - 0.45, 0, 1))) - 0.55, 0, 1) * 2
        depth = depth + 0.22 * p.wrinkles * feet * bump(ax, y, m.eye_x + 0.25, m.eye_y - 0.01, 0.06, 0.09)
        bag = np.exp(-(((y - m.eye_y + 0.145 - 0.25 * (ax - m.eye_x) ** 2 * 6) / 0.014) ** 2))
        depth = depth + 0.22 * p.wrinkles * bag * bump(ax, y, m.eye_x - 0.02, m.eye_y - 0.14, 0.13, 0.2)
    out *= 1 - np.clip(depth, 0, 0.8)[..., None] * np.array([0.75, 0.95, 1.0], np.float32)
    hole = bump(ax, y, 0.066 + 0.5 * p.nose_w, m.base_y + 0.032, 0.040 + 0.3 * p.nose_w, 0.021)
    out *= 1 - np.clip(1.25 * hole, 0, 0.86)[..., None] * np.array([0.92, 1, 1], np.float32)
    under = bump(x, y, 0, m.base_y + 0.0, 0.16, 0.025)
    out *= 1 - 0.2 * under[..., None]


def _marks(p: Person, out: F32, x: F32, y: F32) -> None:
    """Moles and freckles."""
    if p.freckles > 0 and p.skin in ("fair", "tan"):
        spots = np.clip(noise(p.seed + 5, x.shape, (105, 110)) - 1.05, 0, 0.8)
        where = bump(np.abs(x), y, 0.28, -0.26, 0.3, 0.17)
        out *= 1 - 0.55 * p.freckles * (spots * where)[..., None] * np.array([0.6, 0.9, 1.0], np.float32)
    for mx, my, mr in p.moles:
        out *= 1 - 0.72 * bump(x, y, mx, my, mr, mr)[..., None] * np.array([0.9, 1, 1], np.float32)


def _facial_hair(p: Person, out: F32, x: F32, y: F32) -> None:
    """Brows, and stubble or beard."""
    m = marks(p)
    np.abs(x)
    grain = noise(p.seed + 6, x.shape, (130, 70))
    if p.beard != "none":
        amount, _ = beard_cover(p, x, y)
        strength = 0.40 if p.beard == "stubble" else 0.93
        colour = np.asarray(p.hair_rgb, np.float32) * (0.85 if p.beard == "beard" else 0.4)
        blend(out, colour, amount * strength * (1 + 0.22 * grain))
        if p.beard == "beard":
            out *= 1 + (0.25 * amount * noise(p.seed + 7, x.shape, (40, 130)))[..., None]
    for side in (-1.0, 1.0):
        s = (x * side - (m.eye_x - 0.16)) / 0.36  # 0 at the inner end, 1 outer
        mid = m.brow_y - 0.03 + p.brow_arch * (1 - (1.7 * s - 1.0) ** 2) + p.brow_angle * (s - 0.5) * 0.36
        mid = mid - 0.055 * np.clip(s - 0.62, 0, 1) ** 1.5 * 2
        thick = p.brow_thick * (1.0 - 0.55 * np.clip(s, 0, 1.1)) * 1.25
        cover = np.exp(-(np.abs((y - mid) / np.maximum(thick, 0.004)) ** 2.6))
        cover = cover * smooth(-0.08, 0.1, s) * (1 - smooth(0.84, 1.06, s)) * (x * side > 0)
        dark = (
            np.minimum(np.asarray(p.hair_rgb, np.float32), 0.16) * 0.6
            if p.hair_color != "gray"
            else np.asarray(p.hair_rgb, np.float32) * 0.35
        )
        blend(out, dark, cover * p.brow_dark * (0.88 + 0.10 * grain))


def beard_cover(p: Person, x: Arr, y: Arr) -> tuple[Arr, Arr]:
    """Where the beard grows, 0..1, and where it is thick."""
    m = marks(p)
    ax = np.abs(x)
    line = m.mouth_y + 0.02 + np.clip(ax - 0.30, 0, 1) ** 1.5 * 3.0
    cheeks = 1 - smooth(-0.07, 0.05, y - line + 0.012 * np.sin(ax * 40))
    if p.beard_shape < 0.35 and p.beard == "beard":  # chin beard only
        cheeks = cheeks * (1 - smooth(0.27, 0.36, ax))
    lip = np.exp(-(((y - (m.mouth_y + 0.105 - 0.25 * ax)) / 0.052) ** 4)) * (1 - smooth(0.22, 0.32, ax))
    lip = lip * (0.55 + 0.45 * smooth(0.0, 0.05, ax))
    sides = smooth(0.53, 0.60, ax) * (1 - smooth(-0.05, 0.05, y)) * (p.beard_shape > 0.35)
    cover = np.clip(np.maximum(np.maximum(cheeks, lip), sides), 0, 1)
    mouth = bump(x, y, 0, m.mouth_y - 0.02, m.mouth_w * 0.95, 0.085)
    return cover * (1 - np.clip(1.6 * mouth, 0, 1)), np.clip(cheeks * (1 - mouth), 0, 1)


def eye(p: Person, mood: Mood, side: float, x: F32, y: F32, out: F32, glint: float) -> F32:
    """Paint one eye over a patch in place; returns where the wet eye shows."""
    m = marks(p)
    w = m.eye_w
    ex, ey = (x - side * m.eye_x) * side / w, (y - m.eye_y) / w  # +x to the temple
    ey = ey - (0.10 + p.eye_tilt) * ex
    open_ = float(np.clip((1 + p.eye_open) * mood.lids, 0.12, 1.5))
    arc = np.clip(1 - np.abs(ex) ** 2.3, 0, 1)
    top = 0.40 * open_ * arc * (1 - 0.14 * ex)
    low = -0.25 * (0.55 + 0.45 * open_) * arc * (1 + 0.22 * ex)
    soft = 0.05
    inside = smooth(-soft, soft, top - ey) * smooth(-soft, soft, ey - low) * (np.abs(ex) < 1)
    # lid crease, lid, lashes
    crease = top + 0.16 + 0.14 * p.lid_fold
    out *= 1 - (
        0.34 * np.exp(-(((ey - crease) / 0.055) ** 2)) * smooth(-1.15, -0.5, ex) * (1 - smooth(0.9, 1.25, ex))
    )[..., None] * np.array([0.8, 1, 1], np.float32)
    out *= 1 - 0.10 * (smooth(0, 0.05, ey - top) * (1 - smooth(-0.02, 0.06, ey - crease)))[..., None]
    ball = np.empty_like(out)
    white = np.array([0.53, 0.50, 0.48], np.float32)
    ball[:] = white
    ball *= (1 - 0.30 * np.clip(np.abs(ex), 0, 1) ** 3)[..., None]
    gx, gy = mood.gaze[0] * side, mood.gaze[1]
    r = np.sqrt((ex - gx) ** 2 + (ey - 0.055 - gy) ** 2)
    iris = np.asarray(p.eye_rgb, np.float32)
    ring = 0.8 + 0.5 * (1 - smooth(0.15, 0.34, r))
    blend(ball, iris, 1 - smooth(0.355, 0.415, r))
    ball *= np.where(r < 0.4, ring, 1.0)[..., None]
    ball *= 1 - (0.45 * np.exp(-(((r - 0.385) / 0.05) ** 2)))[..., None]
    blend(ball, np.array([0.012, 0.010, 0.010], np.float32), 1 - smooth(0.13, 0.19, r))
    ball *= (1 - 0.55 * smooth(-0.30, 0.02, ey - top))[..., None]
    blend(ball, np.array([0.55, 0.30, 0.26], np.float32), 0.6 * bump(ex, ey, -0.95, -0.05, 0.13, 0.14))
    spot = bump(ex * side, ey, gx * side + glint * 0.14, 0.19 + gy, 0.075, 0.075)
    blend(ball, np.array([0.95, 0.95, 0.95], np.float32), 0.85 * smooth(0.25, 0.8, spot))
    blend(out, ball, inside)
    woman = p.gender == "woman"
    lash = np.exp(-(((ey - top - 0.015) / (0.085 if woman else 0.062)) ** 2))
    lash = lash * smooth(-1.08, -0.75, ex) * (1 - smooth(1.02, 1.2 if woman else 1.1, ex))
    ink = np.minimum(np.asarray(p.hair_rgb, np.float32) * 0.25, 0.03)
    blend(out, ink, (0.93 if woman else 0.78) * lash)
    under = np.exp(-(((ey - low + 0.02) / 0.05) ** 2)) * (np.abs(ex) < 1.05) * smooth(-0.9, 0.3, ex)
    blend(out, ink + 0.3 * np.asarray(p.skin_rgb, np.float32), (0.5 if woman else 0.38) * under)
    shown: F32 = inside.astype(np.float32)
    return shown


def mouth(p: Person, mood: Mood, x: F32, y: F32, out: F32) -> F32:
    """Paint the mouth over a patch in place; returns the lips' relief."""
    m = marks(p)
    wide = m.mouth_w * (1 + 0.20 * mood.smile - 0.05 * mood.jaw * (1 - mood.smile))
    xn = x / wide
    n = np.clip(np.abs(xn), 0, 1.2)
    arc = np.clip(1 - n**2.2, 0, 1)
    line = (
        m.mouth_y
        + (0.075 * mood.smile + p.mouth_curve) * n**2
        - 0.025 * mood.smile
        - 0.010 * np.exp(-((xn / 0.16) ** 2))
    )
    gap_up, gap_low = 0.032 * mood.jaw * arc, 0.085 * mood.jaw * arc
    thin = 1 - 0.22 * mood.smile
    up = (
        (0.060 + p.lip_up)
        * thin
        * arc**0.8
        * (1 + 0.20 * np.exp(-(((n - 0.2) / 0.16) ** 2)) - 0.14 * np.exp(-((xn / 0.09) ** 2)))
    )
    low = (0.078 + p.lip_low) * thin * np.clip(1 - n**2.6, 0, 1)
    d = y - line
    s = 0.010
    upper = smooth(-s, s, gap_up + up - d) * smooth(-s, s, d - gap_up * 0.9)
    lower = smooth(-s, s, d + gap_low + low) * smooth(-s, s, -gap_low * 0.9 - d)
    tone = np.asarray(p.skin_rgb, np.float32)
    lip = tone * np.array([0.86, 0.56, 0.56], np.float32)
    lip = lip + (np.array([0.40, 0.09, 0.10], np.float32) * (0.5 + tone[0]) - lip) * 0.45 * p.lip_red
    edge = n < 1.02
    blend(out, lip * 0.82, 0.82 * upper * edge)
    blend(out, lip, 0.78 * lower * edge)
    out *= (
        1 - (0.30 * np.exp(-(((d + gap_low + low + 0.03) / 0.028) ** 2)) * np.clip(1 - n**2, 0, 1))[..., None]
    )
    if mood.jaw > 0.02:
        inner = smooth(-s, s, gap_up - d) * smooth(-s, s, d + gap_low) * edge
        teeth = np.array([0.62, 0.58, 0.52], np.float32) * (1 - 0.75 * n[..., None] ** 2)
        dark = np.array([0.05, 0.018, 0.018], np.float32)
        tooth_line = gap_up - (0.082 if mood.smile > 0.3 else 0.028) * np.clip(1 - 0.5 * n * n, 0, 1)
        hide = smooth(-s, s, d - tooth_line) * 0.93
        fill = dark + (teeth - dark) * hide[..., None]
        fill *= (1 - 0.5 * smooth(-0.035, 0.0, d - gap_up))[..., None]
        blend(out, fill, inner)
    seam = (
        np.exp(-((d / (0.011 + 0.004 * arc)) ** 2))
        * (1 - smooth(0.95, 1.08, n))
        * (1 - min(1.0, 2 * mood.jaw))
    )
    blend(out, tone * np.array([0.20, 0.09, 0.09], np.float32), 0.80 * seam)
    pit = bump(np.abs(xn), d, 1.03, float(0.075 * mood.smile - 0.025 * mood.smile), 0.07, 0.03)
    out *= 1 - 0.22 * pit[..., None]
    relief = (
        0.018 * (1 - np.abs(2 * (d - gap_up) / np.maximum(up, 0.01) - 1)).clip(0, 1) * upper
        + 0.026 * np.sqrt((1 - ((2 * (d + gap_low) / np.maximum(low, 0.01) + 1) ** 2)).clip(0, 1)) * lower
    )
    out_relief: F32 = (relief * edge).astype(np.float32)
    return out_relief
