"""Hair as surfaces around the head.

In: a `Person` and the bare `Head`.  Out: a list of `Surface` (cap, curtain,
bun, beard).  It does not know pose, light or pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oblik.miniature.head import HAIR, Head, Surface, bump, marks, normals, smooth, spline
from oblik.miniature.paint import beard_cover, noise
from oblik.miniature.people import Person

F32 = NDArray[np.float32]
Arr = NDArray[Any]


def hairline(p: Person, theta: Arr) -> Arr:
    """Height where the hair begins, by azimuth (0 is the front)."""
    m = marks(p)
    a = np.abs(theta)
    covers = p.hair_style in ("long", "bob") or (p.hair_style == "curly" and p.gender == "woman")
    temple = m.hair_y - 0.10 + 0.5 * p.recede
    burn = -0.14 if p.beard != "none" else -0.02
    over = 0.02 if covers else 0.13
    nape = -0.72 if covers else -0.56
    line = spline(
        [0, 0.35, 0.70, 0.92, 1.12, 1.28, 1.45, 1.75, 2.05, 2.4, 3.15],
        [
            m.hair_y - 0.3 * p.recede,
            m.hair_y + 0.3 * p.recede,
            temple + 0.7 * p.recede,
            0.36,
            0.12,
            burn,
            over,
            over + 0.02,
            -0.2,
            -0.46,
            nape,
        ],
        a,
    )
    if p.fringe:
        sweep = 0.10 * p.parting * np.clip(theta, -0.7, 0.7)
        low = 0.33 + 0.10 * (1 - p.fringe) + sweep + 0.05 * np.cos(theta * 2)
        line = np.where(a < 1.15, np.minimum(line, low + 0.3 * smooth(0.75, 1.15, a)), line)
    return line


def tint(p: Person, shape: tuple[int, int], seed: int, across: int, along: int) -> F32:
    """Strand colours over a grid whose rows run along the hair."""
    n = noise(p.seed + seed, shape, (along, across)) * 0.14 + noise(p.seed + seed + 1, shape, (5, 14)) * 0.10
    out: F32 = (np.asarray(p.hair_rgb, np.float32) * np.clip(1 + n, 0.45, 1.7)[..., None]).astype(np.float32)
    return out


def cap(p: Person, h: Head) -> Surface:
    """The hair that lies on the skull."""
    flat, theta = h.flat, h.theta[None, :]
    y = flat[..., 1]
    shape = (y.shape[0], y.shape[1])
    line = hairline(p, h.theta.astype(float))[None, :]
    jag = 0.010 * noise(p.seed + 20, shape, (4, 60)) + 0.009 * noise(p.seed + 21, shape, (60, 110))
    above = y - line + jag
    v, man = p.hair_volume, p.gender == "man"
    thick: Arr | float = {
        "short": (0.05 if man else 0.11) + 0.10 * v,
        "curly": 0.14 + 0.16 * v,
        "long": 0.09 + 0.07 * v,
        "bob": 0.10 + 0.07 * v,
        "bun": 0.05 + 0.02 * v,
        "bald": 0.0,
    }[p.hair_style]
    if p.hair_style == "short" and man:  # fuller on top, cut at the sides
        thick = 0.035 + (thick - 0.035) * smooth(0.25, 0.75, y) + 0.0 * y
        thick = thick + 0.07 * v * bump(flat[..., 0], y, 0.3 * p.parting, 0.85, 0.45, 0.3) * (
            flat[..., 2] > 0
        )
    reach = 0.14 if p.fringe or p.hair_style == "curly" else 0.34
    rise = smooth(-0.02, reach, above)
    lump = 1.0 + 0.06 * noise(p.seed + 22, shape, (5, 26))
    if p.hair_style == "curly":
        lump = 1.0 + 0.26 * noise(p.seed + 23, shape, (26, 34)) + 0.12 * noise(p.seed + 24, shape, (50, 60))
    elif p.hair_style not in ("bun", "bald"):
        part = flat[..., 0] - 0.34 * np.sign(p.parting) * max(abs(p.parting), 0.25)
        lump = lump - (0.30 if man else 0.5) * np.exp(-((part / 0.045) ** 2)) * smooth(0.55, 0.85, y) * (
            not p.fringe
        ) * (flat[..., 2] > -0.3)
    lump = 1 + (lump - 1) * (1 - smooth(1.06, 1.14, y))
    n = normals(flat)
    pos = flat + (h.pos - flat) * smooth(0.2, 0.34, y)[..., None]
    pos = pos + n * (0.022 + rise * thick * lump)[..., None].astype(np.float32)
    if p.fringe:
        pos[..., 2] += 0.05 * smooth(0.0, 0.15, above) * (1 - smooth(0.6, 1.3, np.abs(theta)))
    colour = tint(p, shape, 30, 90 if p.hair_style != "curly" else 46, 10 if p.hair_style != "curly" else 36)
    colour *= (0.70 + 0.30 * smooth(0.0, 0.14, above))[..., None]
    if not p.fringe:  # the first hairs let skin through
        colour += (np.asarray(p.skin_rgb, np.float32) * 0.8 - colour) * (
            0.75 * (1 - smooth(0.0, 0.055, above))
        )[..., None]
    if p.hair_style == "short" and man:  # short sides let the scalp through
        sides = (1 - smooth(0.15, 0.6, y)) * 0.42
        colour += (np.asarray(p.skin_rgb, np.float32) * 0.6 - colour) * sides[..., None]
    keep = smooth(-0.02, 0.02, above)
    return Surface(
        "cap",
        pos.astype(np.float32),
        colour.astype(np.float32),
        keep.astype(np.float32),
        HAIR,
        1.0,
        p.hair_style == "curly",
    )


def curtain(p: Person) -> Surface:
    """Hair hanging beside the face and down the back."""
    rows, cols = 130, 190
    t = np.linspace(0, 1, rows)[:, None]
    g = np.linspace(-1, 1, cols)[None, :]
    end = {
        "long": -1.45 - 0.9 * p.hair_length,
        "bob": -0.72 - 0.40 * p.hair_length,
        "curly": -0.55 - 0.65 * p.hair_length,
    }[p.hair_style]
    curly = p.hair_style == "curly"
    y = 0.80 + (end - 0.80) * t + 0.02 * noise(p.seed + 41, (rows, cols), (2, 50)) * t
    v = p.hair_volume
    start = spline([-2.6, -1.4, -0.9, -0.4, 0.1, 0.5, 0.8], [1.15, 1.10, 1.12, 1.16, 1.20, 1.02, 0.78], y)
    start = start + 0.10 * (p.fringe > 0) - 0.08 * v
    a = np.pi + g * (np.pi - start)  # around the back, from side to side
    wide = (
        spline(
            [-2.6, -1.6, -1.1, -0.6, 0.0, 0.4, 0.8],
            [0.86, 0.84, 0.86, 0.86 + 0.06 * v, 0.86 + 0.06 * v, 0.83, 0.60],
            y,
        )
        + p.head_w
    )
    deep = spline([-2.6, -1.6, -0.9, -0.3, 0.3, 0.8], [0.85, 0.85, 0.88, 1.02, 1.08, 0.80], y)
    wave = (
        1
        + 0.020 * noise(p.seed + 42, (rows, cols), (5, 22))
        + 0.006 * noise(p.seed + 43, (rows, cols), (4, 80))
    )
    if curly:
        wide, deep = wide + 0.10 + 0.12 * v, deep + 0.10 + 0.1 * v
        wave = (
            1
            + 0.055 * noise(p.seed + 44, (rows, cols), (22, 30))
            + 0.02 * noise(p.seed + 45, (rows, cols), (44, 60))
        )
    if p.hair_style == "bob":
        wide = wide + 0.07 * smooth(-0.2, -0.75, y) * (0.3 + v)
    x, z = wide * wave * np.sin(a), wave * np.cos(a)
    z = np.where(z > 0, z * 0.84, z * deep)
    z = z - 0.10 * smooth(-0.4, -1.3, y)
    front = smooth(0.2, 0.9, np.abs(g)) * smooth(-1.2, -1.9, y)
    z = z + 0.34 * front
    fray = (1 - t) * (end - 0.8) * -1 + 0.03 * noise(p.seed + 46, (rows, cols), (2, 60)) - 0.02
    edge = 1 - np.abs(g) + 0.006 * noise(p.seed + 47, (rows, cols), (20, 3)) - 0.006
    keep = smooth(-0.01, 0.03, fray) * smooth(-0.01, 0.02, edge)
    colour = tint(p, (rows, cols), 50, 80 if not curly else 40, 6 if not curly else 30)
    colour *= (0.78 + 0.22 * smooth(0.0, 0.2, 1 - np.abs(g)) + 0.0 * t)[..., None]
    follow = smooth(-1.7, -0.7, y)
    pos = np.stack([x, y, z], -1).astype(np.float32)
    return Surface(
        "curtain",
        pos,
        colour.astype(np.float32),
        keep.astype(np.float32),
        HAIR,
        follow.astype(np.float32),
        True,
    )


def ball(centre: tuple[float, float, float], radius: tuple[float, float, float], rows: int = 40) -> F32:
    """An ellipsoid's points, outward normals."""
    v = np.linspace(0.02, np.pi - 0.02, rows)[:, None]
    u = np.linspace(-np.pi, np.pi, 2 * rows)[None, :]
    pos = np.stack([np.sin(v) * np.sin(u), np.cos(v) + 0 * u, np.sin(v) * np.cos(u)], -1)
    out: F32 = (pos * np.array(radius) + np.array(centre)).astype(np.float32)
    return out


def bun(p: Person) -> Surface:
    """A knot of hair on the crown or at the back."""
    high = p.hair_length > 0.4
    r = 0.27 + 0.1 * p.hair_volume
    pos = ball((0, 1.22, -0.28) if high else (0, 0.35, -1.15), (r, r * 0.85, r), 48)
    shape = (pos.shape[0], pos.shape[1])
    pos = pos + normals(pos) * (0.02 * noise(p.seed + 61, shape, (12, 8)))[..., None]
    return Surface(
        "bun", pos.astype(np.float32), tint(p, shape, 60, 10, 30), np.ones(shape, np.float32), HAIR
    )


def beard(p: Person, h: Head, pos: F32) -> Surface:
    """The relief of a full beard over the (moved) head."""
    x, y = h.flat[..., 0], h.flat[..., 1]
    shape = (x.shape[0], x.shape[1])
    cover, thick = beard_cover(p, x, y)
    n = noise(p.seed + 71, shape, (70, 90))
    depth = (0.02 + (0.05 + 0.06 * p.hair_length) * thick) * cover * (1 + 0.08 * n)
    out = pos + normals(h.flat) * depth[..., None].astype(np.float32)
    out[..., 1] -= 0.05 * thick * p.hair_length
    keep = smooth(0.45, 0.75, cover + 0.05 * n) * (h.flat[..., 2] > -0.1)
    return Surface(
        "beard", out.astype(np.float32), tint(p, shape, 70, 60, 40) * 0.85, keep.astype(np.float32), HAIR
    )


def surfaces(p: Person, h: Head) -> list[Surface]:
    """All hair of a person that does not move with the expression."""
    if p.hair_style == "bald":
        return []
    out = [cap(p, h)]
    if p.hair_style in ("long", "bob") or (p.hair_style == "curly" and p.gender == "woman"):
        out.append(curtain(p))
    if p.hair_style == "bun":
        out.append(bun(p))
    return out
