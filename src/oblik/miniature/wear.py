"""Clothes and accessories as surfaces.

In: a `Person`, the bare `Head`, a `Shot`.  Out: `Surface` lists (garment,
glasses, scarf, hat, mask, hand).  It does not know pose, light or pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oblik.miniature.hair import ball
from oblik.miniature.head import CLOTH, GLOSS, SKIN, Head, Surface, bump, marks, normals, smooth, torso
from oblik.miniature.paint import blend, noise
from oblik.miniature.people import Person, linear
from oblik.miniature.shots import Shot

F32 = NDArray[np.float32]
Arr = NDArray[Any]


def _colour(rgb: tuple[float, float, float]) -> F32:
    return np.asarray(linear(rgb), np.float32)


def garment(p: Person, shot: Shot) -> Surface:
    """The torso in a t-shirt, V-neck, shirt or jacket."""
    pos = torso(p)
    x, y, z = pos[..., 0], pos[..., 1], pos[..., 2]
    rng = np.random.default_rng([shot.seed, 11])
    kind = int(rng.integers(4))
    shape = (x.shape[0], x.shape[1])
    cloth = _colour(shot.clothing_rgb)
    out = np.empty((*shape, 3), np.float32)
    out[:] = np.asarray(p.skin_rgb, np.float32)
    ax = np.abs(x)
    front = z > -0.15
    drop = (0.0, 0.42, 0.22, 0.50)[kind]
    dip = (0.07 + drop) * np.clip(1 - ax / 0.44, 0, 1) ** (0.9 if kind else 0.5)
    line = y[:1] - 0.03 - dip * smooth(-0.2, 0.2, z)
    cover = smooth(-0.012, 0.02, line - y)
    weave = 1 + 0.05 * noise(shot.seed, shape, (30, 40)) + 0.10 * noise(shot.seed + 1, shape, (7, 9))
    dye: Arr = cloth * weave[..., None]
    if kind == 0 and rng.random() < 0.25:  # stripes
        dye = dye * (1 - 0.45 * smooth(-0.2, 0.2, np.sin(y * 26)))[..., None]
    if kind == 3:  # jacket over a light shirt
        shirt = np.float32(0.55) * np.ones(3, np.float32) * rng.uniform(0.5, 1.1, 3).astype(np.float32).mean()
        lapel = smooth(-0.01, 0.01, 0.30 - ax - 0.28 * (-1.5 - y)) * front
        blend(dye, shirt, lapel)
        dye *= (1 - 0.5 * bump(ax + 0.28 * (-1.5 - y), y, 0.31, -1.8, 0.025, 0.8) * front)[..., None]
    rim = np.exp(-(((line - y - 0.05) / 0.035) ** 2)) * (kind in (0, 1))
    dye = dye * (1 - 0.22 * rim)[..., None]
    if kind == 2:  # a shirt with a placket
        dye = dye * (1 - 0.4 * np.exp(-(((x - 0.02) / 0.014) ** 2)) * front)[..., None]
    blend(out, dye, cover)
    return Surface("torso", pos, out, np.ones(shape, np.float32), CLOTH, 0.0)


def collar(p: Person, shot: Shot) -> list[Surface]:
    """A shirt collar, where the garment has one."""
    kind = int(np.random.default_rng([shot.seed, 11]).integers(4))
    if kind < 2:
        return []
    t = np.linspace(0, 1, 26)[:, None]
    a = np.linspace(-np.pi, np.pi, 120)[None, :]
    gap = np.abs(a)
    r = 0.50 + p.neck_w + 0.10 * t**1.5 + 0.04
    y = -1.12 - 0.24 * t - 0.16 * np.clip(np.cos(a), 0, 1) + 0.10 * np.clip(-np.cos(a), 0, 1)
    x, z = r * np.sin(a), r * np.cos(a) * 0.92 - 0.20 + 0.10 * t
    keep = smooth(-0.03, 0.03, gap - 0.16 - 0.35 * (1 - t) * 0.5 - 0.55 * np.clip(t - 0.7, 0, 1))
    base = _colour(shot.clothing_rgb) if kind == 2 else np.float32(0.5) * np.ones(3, np.float32)
    colour = base * (0.82 + 0.2 * t + 0 * a)[..., None]
    return [
        Surface(
            "collar",
            np.stack([x, y + 0 * t, z], -1).astype(np.float32),
            colour.astype(np.float32),
            keep.astype(np.float32),
            CLOTH,
            0.0,
            True,
        )
    ]


def tube(path: Arr, radius: float, colour: F32, matter: int = GLOSS, name: str = "tube") -> Surface:
    """A thin tube along a path of points."""
    d = np.gradient(path, axis=0)
    d /= np.linalg.norm(d, axis=1, keepdims=True) + 1e-9
    up = np.where(np.abs(d[:, 2:3]) > 0.8, np.array([[0.0, 1, 0]]), np.array([[0.0, 0, 1]]))
    a = np.cross(d, up)
    a /= np.linalg.norm(a, axis=1, keepdims=True) + 1e-9
    b = np.cross(d, a)
    k = np.linspace(0, 2 * np.pi, 9)[None, :, None]
    pos = path[:, None] + radius * (a[:, None] * np.cos(k) + b[:, None] * np.sin(k))
    shape = (pos.shape[0], pos.shape[1])
    return Surface(
        name,
        pos.astype(np.float32),
        np.broadcast_to(colour, (*shape, 3)).astype(np.float32),
        np.ones(shape, np.float32),
        matter,
        1.0,
        True,
    )


def glasses(p: Person, h: Head, shot: Shot) -> list[Surface]:
    """Frames, and dark lenses when they are sunglasses."""
    m = marks(p)
    rng = np.random.default_rng([shot.seed, 13])
    colour = _colour([(22, 20, 20), (70, 42, 26), (120, 112, 100), (30, 36, 60)][int(rng.integers(4))])
    wide, high = 0.235 + rng.uniform(-0.01, 0.03), 0.15 + rng.uniform(-0.01, 0.05)
    thick = rng.uniform(0.011, 0.021)
    power = rng.choice([2.0, 2.6, 3.6])
    sun = shot.sunglasses
    if sun:
        wide, high = wide + 0.03, high + 0.04
    out: list[Surface] = []
    k = np.linspace(-np.pi, np.pi, 150)
    front = float(h.pos[np.abs(h.flat[..., 1] - 0.02) < 0.1][:, 2].max()) + 0.05
    for side in (-1.0, 1.0):
        cx, cy = side * (m.eye_x + 0.02), m.eye_y - 0.035
        x = cx + wide * np.sign(np.cos(k)) * np.abs(np.cos(k)) ** (2 / power)
        y = cy + high * np.sign(np.sin(k)) * np.abs(np.sin(k)) ** (2 / power)
        z = front - 0.30 * x * x
        out.append(tube(np.stack([x, y, z], -1), thick, colour))
        if sun:
            f = np.linspace(0, 1, 34)[:, None]
            lx, ly = cx + (x[None] - cx) * f, cy + (y[None] - cy) * f
            pos = np.stack([lx, ly, front - 0.3 * lx * lx + 0.01], -1).astype(np.float32)
            tone = (
                np.broadcast_to(_colour((22, 20, 20)), pos.shape)
                * (0.6 + 0.6 * (ly - cy + high) / high)[..., None]
            )
            out.append(
                Surface("lens", pos, tone.astype(np.float32), np.ones(lx.shape, np.float32), GLOSS, 1.0, True)
            )
        s = np.linspace(0, 1, 110)
        ex = abs(cx) + wide
        arm = np.stack(
            [
                side * (ex + (0.80 + p.head_w - ex) * np.sqrt(s)),
                cy + 0.05 + 0.02 * s,
                (front - 0.3 * ex * ex) * (1 - s) + 0.0 * s,
            ],
            -1,
        )
        out.append(tube(arm, thick * 0.9, colour))
    bx = np.linspace(-(m.eye_x + 0.02 - wide), m.eye_x + 0.02 - wide, 30)
    span = max(float(bx.max()), 0.01)
    out.append(
        tube(np.stack([bx, 0.02 + 0.03 * (1 - (bx / span) ** 2), front + 0.0 * bx], -1), thick, colour)
    )
    return out


def hat(p: Person, h: Head, shot: Shot) -> list[Surface]:
    """A knitted cap or a brimmed hat."""
    rng = np.random.default_rng([shot.seed, 17])
    colour = _colour((float(rng.uniform(25, 180)), float(rng.uniform(25, 130)), float(rng.uniform(25, 150))))
    y = h.flat[..., 1]
    brim = rng.random() < 0.4
    line = 0.46 - 0.12 * (1 - np.cos(h.theta))[None, :] * (0.3 if brim else 1)
    lift = 0.11 + 0.03 * p.hair_volume
    band = np.exp(-(((y - line - 0.10) / 0.10) ** 4))
    pos = h.flat + normals(h.flat) * (lift + 0.04 * band)[..., None]
    pos[..., 1] += (0.10 if brim else 0.03) * smooth(0.6, 1.1, y)
    ribs = 1 + (0.03 if brim else 0.16) * np.sin(np.arange(y.shape[1]) * 1.3)[None, :]
    tone = colour * (ribs * (1 - (0.45 if brim else 0.12) * band))[..., None]
    out = [
        Surface(
            "hat",
            pos.astype(np.float32),
            tone.astype(np.float32),
            smooth(-0.01, 0.01, y - line).astype(np.float32),
            CLOTH,
        )
    ]
    if brim:
        r = np.linspace(0.95, 1.55, 44)[:, None]
        a = np.linspace(-np.pi, np.pi, 260)[None, :]
        flat = np.stack(
            [
                r * 0.82 * np.sin(a),
                0.47 - 0.10 * (r - 1) + 0.10 * np.sin(a) ** 2 * (r - 0.95),
                r * np.cos(a) - 0.03,
            ],
            -1,
        )
        out.append(
            Surface(
                "brim",
                flat.astype(np.float32),
                np.broadcast_to(colour, flat.shape).astype(np.float32),
                np.ones(flat.shape[:2], np.float32),
                CLOTH,
                1.0,
                True,
            )
        )
    return out


def scarf(p: Person, shot: Shot) -> Surface:
    """A thick scarf around the neck, up to the chin."""
    rng = np.random.default_rng([shot.seed, 19])
    colour = _colour((float(rng.uniform(60, 210)), float(rng.uniform(40, 170)), float(rng.uniform(40, 180))))
    v = np.linspace(0, 2 * np.pi, 70)[:, None]
    u = np.linspace(-np.pi, np.pi, 180)[None, :]
    fat = 0.21 + 0.03 * np.sin(u * 3 + 1)
    r = 0.66 + p.neck_w + fat * np.cos(v)
    y = -1.22 + 0.26 * np.sin(v) - 0.12 * np.cos(u) + 0.03 * np.sin(2 * u)
    pos = np.stack([r * np.sin(u), y, r * np.cos(u) - 0.15], -1)
    folds = 1 + 0.22 * np.sin(v * 5 + 2 * np.sin(u * 2))
    return Surface(
        "scarf",
        pos.astype(np.float32),
        (colour * folds[..., None]).astype(np.float32),
        np.ones(folds.shape, np.float32),
        CLOTH,
        0.35,
        True,
    )


def mask(p: Person, h: Head, pos: F32, shot: Shot) -> list[Surface]:
    """A cloth mask over nose and mouth."""
    m = marks(p)
    x, y = h.flat[..., 0], h.flat[..., 1]
    ax = np.abs(x)
    colour = _colour([(170, 196, 214), (226, 226, 224), (36, 38, 44)][shot.seed % 3])
    out = h.flat.copy()
    out[..., 2] += 0.10 + 0.20 * bump(x, y, 0, m.tip_y - 0.02, 0.22, 0.3) * h.front
    out[..., 0] *= 1.05
    out = np.where((out[..., 2:] > pos[..., 2:] + 0.02), out, pos + normals(h.flat) * 0.03)
    top = m.tip_y + 0.20 - 0.32 * ax**1.5
    keep = smooth(-0.01, 0.01, top - y) * (1 - smooth(0.54, 0.56, ax)) * (h.flat[..., 2] > 0.05)
    pleat = 1 - 0.10 * (np.cos(y * 42) > 0.7)
    made = [
        Surface(
            "mask",
            out.astype(np.float32),
            (colour * pleat[..., None]).astype(np.float32),
            keep.astype(np.float32),
            CLOTH,
        )
    ]
    for side in (-1.0, 1.0):
        s = np.linspace(0, 1, 80)
        path = np.stack([side * (0.56 + (0.24 + p.head_w) * np.sqrt(s)), -0.55 + 0.5 * s, 0.56 * (1 - s)], -1)
        made.append(tube(path, 0.012, colour, CLOTH))
    return made


def hand(p: Person, shot: Shot) -> list[Surface]:
    """A hand resting against the chin or cheek."""
    rng = np.random.default_rng([shot.seed, 23])
    side = float(rng.choice([-1, 1]))
    cx, cy = side * rng.uniform(0.12, 0.34), -1.0 + rng.uniform(-0.1, 0.12)
    tone = np.asarray(p.skin_rgb, np.float32) * 0.92
    parts = [
        ball((cx + side * 0.14, cy - 0.34, 0.80), (0.30, 0.36, 0.16), 44),
        ball((cx + side * 0.26, cy - 1.05, 0.62), (0.22, 0.80, 0.20), 50),
    ]
    for i in range(4):
        lean = (i - 1.5) * 0.125
        parts.append(
            ball(
                (cx + lean - side * 0.02, cy + 0.10 - 0.03 * (i - 1.5) ** 2, 0.93 - 0.03 * abs(lean)),
                (0.066, 0.30, 0.07),
                36,
            )
        )
    return [
        Surface(
            "hand",
            q,
            np.broadcast_to(tone, q.shape).astype(np.float32),
            np.ones(q.shape[:2], np.float32),
            SKIN,
            1.0,
        )
        for q in parts
    ]


def extras(p: Person, h: Head, pos: F32, shot: Shot) -> list[Surface]:
    """Everything worn in this shot, over the moved head `pos`."""
    out = collar(p, shot)
    if shot.glasses or shot.sunglasses:
        out += glasses(p, h, shot)
    if shot.hat:
        out += hat(p, h, shot)
    if shot.scarf:
        out.append(scarf(p, shot))
    if shot.mask:
        out += mask(p, h, pos, shot)
    if shot.hand:
        out += hand(p, shot)
    return out
