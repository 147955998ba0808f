"""The bare head, ears, neck and torso of a person as smooth grids of points.

In: a `Person` (and an expression as a few weights).  Out: (rows, columns, 3)
arrays of points, y up, x to the image's right, z to the camera.  It does not
know colours, hair, light, cameras or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oblik.miniature.people import Person

F32 = NDArray[np.float32]
Arr = NDArray[Any]

ROWS, COLS = 192, 192
TOP = 1.15
CREASE = 74  # the row where the skull's dome ends


@dataclass(eq=False)
class Surface:
    """A grid of points with its colours; `keep` above a half is drawn."""

    name: str
    pos: F32
    albedo: F32
    keep: F32
    matter: int = 0
    follow: F32 | float = 1.0  # 1 turns with the head, 0 with the body
    two_sided: bool = False


SKIN, HAIR, CLOTH, GLOSS, WET = 0, 1, 2, 3, 4


@dataclass(frozen=True, eq=False)
class Head:
    """A neutral head: the smooth base `flat`, and `pos` with all features."""

    flat: F32  # base surface; its x, y name a place on the face
    pos: F32
    theta: F32  # azimuth per column, 0 to the front
    front: F32  # 1 on the front of the face, 0 behind the temples


def spline(xs: list[float], ys: list[float], at: Arr) -> Arr:
    """A natural cubic through (xs ascending, ys), constant beyond the ends."""
    x, y = np.array(xs, float), np.array(ys, float)
    n, h = len(x), np.diff(x)
    a, b = np.eye(n), np.zeros(n)
    for i in range(1, n - 1):
        a[i, i - 1 : i + 2] = h[i - 1], 2 * (h[i - 1] + h[i]), h[i]
        b[i] = 6 * ((y[i + 1] - y[i]) / h[i] - (y[i] - y[i - 1]) / h[i - 1])
    m = np.linalg.solve(a, b)
    q = np.clip(at, x[0], x[-1])
    k = np.clip(np.searchsorted(x, q, "right") - 1, 0, n - 2)
    f, r, hk = q - x[k], x[k + 1] - q, h[k]
    out: Arr = (
        (m[k] * r**3 + m[k + 1] * f**3) / (6 * hk)
        + (y[k] / hk - m[k] * hk / 6) * r
        + (y[k + 1] / hk - m[k + 1] * hk / 6) * f
    )
    return out


def smooth(lo: float, hi: float, x: Arr) -> Arr:
    """Smoothstep from 0 at `lo` to 1 at `hi`."""
    t = np.clip((x - lo) / (hi - lo), 0.0, 1.0)
    out: Arr = t * t * (3 - 2 * t)
    return out


def bump(x: Arr, y: Arr, cx: float, cy: float, sx: float, sy: float) -> Arr:
    """A Gaussian hill of height one."""
    out: Arr = np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)
    return out


@dataclass(frozen=True)
class Marks:
    """Where the features sit, in base coordinates of the face."""

    eye_x: float
    eye_y: float
    eye_w: float
    brow_y: float
    tip_y: float
    base_y: float
    mouth_y: float
    mouth_w: float
    chin_y: float
    hair_y: float


def marks(p: Person) -> Marks:
    """Feature places of a person."""
    tip = -0.385 - p.nose_l
    base = tip - 0.085 - 0.4 * max(p.nose_tip, 0.0)
    mouth = base - 0.185 + p.mouth_y
    return Marks(
        eye_x=0.322 + p.eye_gap,
        eye_y=0.0,
        eye_w=0.163 + p.eye_size,
        brow_y=0.205 + p.brow_y,
        tip_y=tip,
        base_y=base,
        mouth_y=mouth,
        mouth_w=0.252 + p.mouth_w,
        chin_y=-1.13 - p.face_l + 0.3 * p.mouth_y,
        hair_y=0.66 + p.hairline + p.recede,
    )


def _outline(p: Person, y: Arr) -> tuple[Arr, Arr, Arr]:
    """Half width, front depth and back depth of the skull at heights y."""
    low = np.where(y < 0, y * 1.13 / (1.13 + p.face_l), y)
    dome = np.sqrt(np.clip(1 - np.clip((y - 0.3) / (TOP - 0.3), 0, 1) ** 2.35, 0, 1))
    width = (
        spline(
            [-1.2, -1.08, -0.93, -0.74, -0.5, -0.25, 0.0, 0.3],
            [
                0.33 + p.chin_w,
                0.43 + p.chin_w,
                0.525 + 0.6 * p.jaw_w + 0.5 * p.chin_w,
                0.60 + p.jaw_w,
                0.645 + 0.5 * p.jaw_w + 0.5 * p.cheek_full,
                0.69 + p.cheekbone,
                0.705,
                0.735,
            ],
            low,
        )
        + p.head_w
    )
    front = spline(
        [-1.2, -1.06, -0.9, -0.7, -0.4, -0.15, 0.0, 0.3],
        [0.70 + p.chin_out, 0.79 + p.chin_out, 0.785, 0.83, 0.84, 0.83, 0.825, 0.875],
        low,
    )
    front = front - p.slope * smooth(0.25, 0.8, y) * 1.6
    back = spline([-1.2, -0.9, -0.6, -0.3, 0.0, 0.3], [0.3, 0.5, 0.68, 0.86, 0.97, 1.0], low)
    return width * dome, front * dome, back * dome


@lru_cache(maxsize=64)
def build(p: Person) -> Head:
    """The neutral head of a person."""
    u = np.linspace(-1, 1, COLS)
    theta = np.pi * (0.55 * u + 0.45 * u**3)
    a = np.abs(theta)
    m = marks(p)
    gonion = -0.72 + p.jaw_h - 0.5 * p.face_l
    bottom = m.chin_y + (gonion - m.chin_y) * smooth(0.30, 1.42, a) + 0.32 * smooth(1.3, 2.6, a)
    t = np.linspace(0, 1, ROWS - CREASE + 1)[1:, None]
    roll = np.clip((t - 0.82) / 0.18, 0, 1) * np.pi / 2
    edge = bottom[None, :] + 0.15
    lower = 0.3 + (edge - 0.3) * np.clip(t / 0.82, 0, 1) - 0.15 * np.sin(roll)
    phi = np.linspace(0, np.pi / 2, CREASE)[:, None]
    upper = np.repeat(0.3 + (TOP - 0.3) * np.cos(phi), COLS, axis=1)
    y = np.vstack([upper, lower])
    close = np.vstack([np.ones((CREASE, 1)), 0.02 + 0.98 * np.cos(roll)])
    width, front, back = _outline(p, y)
    c, s = np.cos(theta)[None, :], np.sin(theta)[None, :]
    # flatten the front of the face a little, as real cross-sections are
    x = width * s * (1.05 - 0.05 * s * s) * close
    z = np.where(c > 0, front, back) * c * (1.16 - 0.16 * c * c) * close
    flat = np.stack([x + 0.0 * y, y, z], -1).astype(np.float32)
    face = (smooth(0.15, 0.45, z) * smooth(-1.32, -1.12, y)).astype(np.float32)
    pos = flat + features(p, flat[..., 0], flat[..., 1]) * face[..., None]
    return Head(flat, pos.astype(np.float32), theta.astype(np.float32), face)


def features(p: Person, x: Arr, y: Arr) -> F32:
    """Displacement of the face at base coordinates (x, y)."""
    m = marks(p)
    ax = np.abs(x)
    d = np.zeros((*x.shape, 3))
    out = d[..., 2]
    out -= (0.10 + p.eye_deep) * bump(ax, y, m.eye_x - 0.02, m.eye_y + 0.03, 0.20, 0.13)
    out += 0.065 * bump(ax, y, m.eye_x, m.eye_y, 0.15, 0.085)
    out += p.brow_ridge * bump(ax, y, m.eye_x - 0.03, m.brow_y - 0.02, 0.24, 0.075)
    out += 0.030 * bump(ax, y, 0, 0.55, 0.5, 0.22)
    cheek = (0.045 + 0.7 * p.cheekbone) * bump(ax, y, 0.44, -0.24, 0.2, 0.14)
    full = (0.02 + 1.2 * p.cheek_full) * bump(ax, y, 0.40, -0.56, 0.2, 0.2)
    out += cheek + 0.8 * full
    d[..., 0] += np.sign(x) * (0.5 * cheek + 0.7 * full)
    out += _nose(p, m, x, ax, y, d)
    out += 0.055 * bump(x, y, 0, m.mouth_y + 0.02, 0.26, 0.17)
    out -= 0.035 * bump(x, y, 0, m.mouth_y - 0.185, 0.2, 0.055)
    out += (0.06 + p.chin_out) * bump(x, y, 0, m.chin_y + 0.12, 0.15 + 0.6 * max(p.chin_w, -0.05), 0.12)
    out -= 0.014 * bump(x, y, 0, (m.base_y + m.mouth_y) / 2 + 0.03, 0.03, 0.07)
    fold = np.abs(ax - (0.18 + 0.42 * np.clip(m.tip_y - y, 0, 0.4)))
    out -= (
        (0.005 + 0.016 * p.wrinkles)
        * np.exp(-((fold / 0.05) ** 2))
        * smooth(m.mouth_y - 0.12, m.mouth_y + 0.05, y)
        * (1 - smooth(m.tip_y - 0.02, m.tip_y + 0.08, y))
    )
    d[..., 0] += p.asym[0] * bump(x, y, 0, m.tip_y, 0.3, 0.25)
    d[..., 1] += p.asym[1] * np.clip(x, -0.4, 0.4) * 2 * bump(x, y, 0, m.mouth_y, 0.4, 0.25)
    d[..., 1] += p.asym[2] * np.clip(x, -0.4, 0.4) * 2 * bump(x, y, 0, m.brow_y - 0.1, 0.6, 0.25)
    return d.astype(np.float32)


def _nose(p: Person, m: Marks, x: Arr, ax: Arr, y: Arr, d: Arr) -> Arr:
    """Outward relief of the nose; also lowers the tip in `d`."""
    reach = 0.185 + 0.9 * p.nose_out
    line = spline(
        [m.base_y - 0.03, m.base_y + 0.025, m.tip_y, m.tip_y + 0.14, -0.12, 0.05, 0.26],
        [0.0, 0.55 * reach, reach, 0.80 * reach, 0.100 + p.nose_hump + 0.2 * p.nose_out, 0.035, 0.0],
        y,
    )
    wide = spline(
        [m.base_y, m.tip_y, m.tip_y + 0.14, -0.08, 0.2],
        [0.10, 0.112 + 0.7 * p.nose_w, 0.084 + 0.5 * p.nose_w + 0.6 * p.bridge_w, 0.075 + p.bridge_w, 0.11],
        y,
    )
    ridge = np.maximum(line, 0) * np.exp(-(np.abs(ax / wide) ** 1.9))
    wing = 0.075 * bump(ax, y, 0.118 + p.nose_w, m.tip_y - 0.025, 0.058, 0.058)
    wing -= 0.010 * bump(ax, y, 0.205 + p.nose_w, m.tip_y + 0.0, 0.04, 0.07)
    d[..., 1] += (p.nose_tip - 0.03) * bump(x, y, 0, m.tip_y, 0.13, 0.09)
    hole = 0.03 * bump(ax, y, 0.065 + 0.5 * p.nose_w, m.base_y + 0.035, 0.035, 0.022)
    out: Arr = ridge + wing - hole
    return out


@dataclass(frozen=True)
class Mood:
    """An expression as weights."""

    smile: float = 0.0
    jaw: float = 0.0  # how far the mouth is open
    lids: float = 1.0  # how far the eyes are open, times the person's own
    brows: float = 0.0  # raised above zero, drawn down below
    gaze: tuple[float, float] = (0.0, 0.0)


def move(p: Person, h: Head, mood: Mood) -> F32:
    """The head's points under an expression."""
    m = marks(p)
    x, y = h.flat[..., 0], h.flat[..., 1]
    ax = np.abs(x)
    pos: F32 = h.pos.copy()
    if mood.smile:
        lift = mood.smile * h.front * bump(ax, y, 0.40, -0.36, 0.19, 0.15)
        pos[..., 2] += 0.055 * lift
        pos[..., 1] += 0.035 * lift
        pos[..., 0] += np.sign(x) * 0.03 * lift
        corner = mood.smile * h.front * bump(ax, y, m.mouth_w + 0.05, m.mouth_y, 0.09, 0.11)
        pos[..., 2] -= 0.03 * corner
    if mood.jaw:
        drop = (
            mood.jaw * (1 - smooth(m.mouth_y - 0.16, m.mouth_y + 0.07, y)) * smooth(-0.1, 0.5, h.flat[..., 2])
        )
        pos[..., 1] -= 0.14 * drop
        pos[..., 2] -= 0.05 * drop
    if mood.brows:
        pos[..., 1] += 0.03 * mood.brows * h.front * bump(ax, y, m.eye_x, m.brow_y + 0.05, 0.3, 0.14)
    return pos


def normals(pos: F32) -> F32:
    """Unit normals of a grid by central differences."""
    du, dv = np.empty_like(pos), np.empty_like(pos)
    du[:, 1:-1] = pos[:, 2:] - pos[:, :-2]
    du[:, 0], du[:, -1] = du[:, 1], du[:, -2]
    dv[1:-1] = pos[2:] - pos[:-2]
    dv[0], dv[-1] = dv[1], dv[-2]
    a, b, c = dv[..., 0], dv[..., 1], dv[..., 2]
    e, f, g = du[..., 0], du[..., 1], du[..., 2]
    n = np.empty_like(pos)
    n[..., 0], n[..., 1], n[..., 2] = b * g - c * f, c * e - a * g, a * f - b * e
    n /= np.sqrt((n * n).sum(-1, keepdims=True)) + 1e-9
    return n


def ear(p: Person, side: int) -> tuple[F32, F32]:
    """One ear's points and its inner shade (1 bright, 0 dark)."""
    v, u = np.meshgrid(np.linspace(-1, 1, 44), np.linspace(-1, 1, 36), indexing="ij")
    r = np.sqrt(u * u + v * v)
    size = 1 + p.ear_size
    high = 0.265 * size * v
    deep = 0.14 * size * u * (1 + 0.28 * v)
    rim = np.exp(-(((r - 0.82) / 0.13) ** 2)) - 0.8 * np.exp(-(((r - 0.5) / 0.22) ** 2))
    rim = rim * smooth(-0.9, -0.2, v + 0.25 * u) + 0.3 * bump(u, v, 0.55, -0.05, 0.3, 0.3)
    flare = 0.025 + (0.065 + 0.9 * p.ear_out) * (0.5 - 0.5 * u)
    off = flare + 0.045 * rim - 0.16 * np.clip(r - 0.9, 0, 1) - 0.12 * smooth(0.35, 1.0, u)
    root = 0.70 + p.head_w
    pos = np.stack([side * (root + off), -0.13 + high - 0.02 * u, 0.02 + deep + 0.05 * v], -1)
    if side < 0:
        pos = pos[:, ::-1]
        rim, r = rim[:, ::-1], r[:, ::-1]
    shade = np.clip(0.72 + 0.3 * rim, 0.35, 1.0)
    shade[r > 1.0] = -1.0
    # the grid runs with z as its columns, so that normals point outwards
    pos = pos[::-1, ::-1]
    return np.ascontiguousarray(pos, np.float32), np.ascontiguousarray(shade[::-1, ::-1], np.float32)


def neck(p: Person) -> tuple[F32, F32]:
    """The neck's points and how much each follows the head (1) or body (0)."""
    t = np.linspace(0, 1, 90)[:, None]
    theta = np.linspace(-np.pi, np.pi, 140)[None, :]
    y = -0.32 - 1.32 * t + 0.0 * theta
    rad = 0.455 + p.neck_w + 0.05 * smooth(0.55, 1.0, t) ** 2 - 0.03 * np.sin(np.pi * t)
    x = rad * np.sin(theta)
    z = rad * np.cos(theta) * 0.95 - 0.22
    z = z + 0.035 * bump(x, y, 0, -1.34, 0.12, 0.12) * (p.gender == "man") * (np.cos(theta) > 0)
    follow = 1 - smooth(0.35, 0.88, t) + 0.0 * theta
    return np.stack([x, y, z], -1).astype(np.float32), follow.astype(np.float32)


def torso(p: Person) -> F32:
    """Shoulders and chest down to the elbows."""
    t = np.linspace(0, 1, 130)[:, None]
    u = np.linspace(-1, 1, 260)[None, :]
    theta = np.pi * (0.5 * u + 0.5 * u**3)
    wide = 1.62 + p.shoulder_w
    y = spline([0, 0.12, 0.25, 0.4, 0.55, 1.0], [-1.32, -1.47, -1.63, -1.88, -2.3, -5.8], t)
    width = spline(
        [0, 0.12, 0.25, 0.4, 0.55, 1.0], [0.46, 0.80, wide * 0.74, wide * 0.965, wide, wide * 0.93], t
    )
    depth = spline([0, 0.12, 0.25, 0.4, 0.6, 1.0], [0.42, 0.50, 0.58, 0.68, 0.80, 0.86], t)
    s, c = np.sin(theta), np.cos(theta)
    x = width * s * (1.22 - 0.22 * s * s)
    z = depth * c * (1.3 - 0.3 * c * c) - 0.18
    y = y - 0.16 * np.clip(c, 0, 1) * (1 - smooth(0.1, 0.4, t)) + 0.12 * np.clip(-c, 0, 1)
    if p.gender == "woman":
        z = z + 0.14 * bump(np.abs(x), y, 0.55, -2.8, 0.42, 0.4) * (c > 0)
    return np.stack([x, y + 0.0 * x, z], -1).astype(np.float32)
