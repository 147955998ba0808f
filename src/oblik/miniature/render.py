"""Draws a person in a shot.

In: a `Person`, a `Shot`, a size.  Out: a `Rendering` with the sRGB image, five
landmarks, the mask of facial skin, depth and words.  It does not know
folders, files, models or training.

Every surface is a grid of points.  The points are projected, sorted by depth
and written far to near at twice the size; light is computed only for the
points that stay visible, and the result is reduced to the wanted size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oblik.miniature import hair, head, paint, scene, wear
from oblik.miniature.head import HAIR, SKIN, WET, Head, Mood, Surface
from oblik.miniature.people import Person
from oblik.miniature.raster import CAMERA, View, enlarge, fill, splat, turned, view
from oblik.miniature.shots import Shot

F32 = NDArray[np.float32]
Arr = NDArray[Any]

DENSITY = 30.0  # pixels per unit that the bare grids suffice for
MOODS = {
    "neutral": (0.0, 0.0, 1.0, 0.0),
    "smile": (0.85, 0.0, 0.86, 0.1),
    "laugh": (1.05, 0.75, 0.66, 0.25),
    "surprised": (0.0, 0.8, 1.25, 1.0),
    "serious": (-0.18, 0.0, 0.92, -0.55),
}


@dataclass(frozen=True)
class Rendering:
    """One finished photograph with its ground truth."""

    image: NDArray[np.uint8]
    landmarks: F32
    face_mask: NDArray[np.uint8]
    depth: F32
    descriptors: dict[str, str]


@dataclass(frozen=True, eq=False)
class Piece:
    """Points ready to be turned: positions, normals, colours."""

    pos: F32
    normal: F32
    albedo: F32
    matter: int | Arr
    follow: F32 | float
    two_sided: bool


@dataclass(frozen=True, eq=False)
class Kit:
    """What does not change between the shots of a person at one density."""

    base: Head
    x: F32
    y: F32
    skin: F32
    face: F32
    still: tuple[Piece, ...]


def piece(s: Surface, factor: float) -> Piece:
    """A surface at a density, without its hidden points."""
    keep = enlarge(s.keep, factor) > 0.5
    albedo = np.clip(enlarge(np.ascontiguousarray(s.albedo), factor), 0.001, 1.0)
    if s.matter == HAIR and factor > 1.2:
        shape = (albedo.shape[0], albedo.shape[1])
        albedo = (
            albedo * np.clip(1 + 0.16 * paint.noise(977, shape, (14, shape[1] // 3)), 0.5, 1.6)[..., None]
        )
    pos = np.ascontiguousarray(s.pos)
    follow = s.follow if isinstance(s.follow, float) else enlarge(s.follow, factor)[keep][:, None]
    return Piece(
        enlarge(pos, factor)[keep],
        enlarge(head.normals(pos), factor)[keep],
        albedo[keep].astype(np.float32),
        s.matter,
        follow,
        s.two_sided,
    )


@lru_cache(maxsize=8)
def _small_kit(p: Person, factor: float) -> Kit:
    return _kit(p, factor)


@lru_cache(maxsize=2)
def _large_kit(p: Person, factor: float) -> Kit:
    return _kit(p, factor)


def kit(p: Person, factor: float) -> Kit:
    """Geometry and paint of a person that every shot shares, kept for the next one."""
    return _small_kit(p, factor) if factor < 2.5 else _large_kit(p, factor)


def _kit(p: Person, factor: float) -> Kit:
    base = head.build(p)
    x, y = (
        enlarge(np.ascontiguousarray(base.flat[..., 0]), factor),
        enlarge(np.ascontiguousarray(base.flat[..., 1]), factor),
    )
    skin = paint.skin(p, x, y)
    line = hair.hairline(p, base.theta.astype(float))[None, :]
    if p.hair_style != "bald":  # no bare scalp under the hair
        scalp = head.smooth(0.04, 0.12, base.flat[..., 1] - line).astype(np.float32)
        paint.blend(skin, np.asarray(p.hair_rgb, np.float32) * 0.7, enlarge(scalp, factor))
    still = [piece(s, factor) for s in hair.surfaces(p, base)]
    tone = np.asarray(p.skin_rgb, np.float32) * np.array([1.0, 0.90, 0.90], np.float32)
    for side in (-1, 1):
        pos, shade = head.ear(p, side)
        colour = (tone * np.clip(shade, 0, 1)[..., None]).astype(np.float32)
        still.append(
            piece(Surface("ear", pos, colour, (shade > -0.5).astype(np.float32), SKIN, 1.0, True), factor)
        )
    pos, follow = head.neck(p)
    colour = np.broadcast_to(np.asarray(p.skin_rgb, np.float32) * np.float32(0.94), pos.shape).astype(
        np.float32
    )
    under = head.smooth(-1.30, -0.95, pos[..., 1]) * head.smooth(-0.3, 0.3, pos[..., 2])
    colour = colour * (1 - 0.42 * under[..., None]).astype(np.float32)
    still.append(
        piece(Surface("neck", pos, colour, np.ones(pos.shape[:2], np.float32), SKIN, follow), factor)
    )
    line = np.minimum(line, 0.62) if p.hair_style == "bald" else line
    facial = (base.flat[..., 1] < line) & (np.abs(base.theta)[None, :] < 1.45)
    return Kit(base, x, y, skin, enlarge(facial.astype(np.float32), factor), tuple(still))


def mood(shot: Shot) -> Mood:
    """The expression of a shot with a little variation."""
    rng = np.random.default_rng([shot.seed, 29])
    smile, jaw, lids, brows = MOODS[shot.expression]
    k = float(rng.uniform(0.8, 1.15))
    gx = float(np.clip(rng.normal(0, 0.05) - 0.004 * shot.yaw_deg, -0.3, 0.3))
    return Mood(
        smile * k,
        jaw * k,
        lids * float(rng.uniform(0.94, 1.05)),
        brows * k,
        (gx, float(rng.normal(0, 0.025) + 0.003 * shot.pitch_deg)),
    )


def _patch(k: Kit, cx: float, cy: float, rx: float, ry: float) -> tuple[slice, slice]:
    """The part of the grid that shows the front place (cx, cy)."""
    near = (np.abs(k.x - cx) < rx) & (np.abs(k.y - cy) < ry)
    middle = k.x.shape[1] // 2
    near[:, : middle // 2] = False
    near[:, middle + middle // 2 :] = False
    rows, cols = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)


def _head_pieces(p: Person, k: Kit, shot: Shot, factor: float, glint: float) -> tuple[list[Piece], F32, Arr]:
    """The head under the shot's expression; its low points; facial flags."""
    m, md = head.marks(p), mood(shot)
    low = head.move(p, k.base, md)
    colour = k.skin.copy()
    wet = np.zeros(k.x.shape, np.float32)
    for side in (-1.0, 1.0):
        r, c = _patch(k, side * m.eye_x, m.eye_y, m.eye_w * 1.5, m.eye_w * 1.3)
        wet[r, c] = np.maximum(wet[r, c], paint.eye(p, md, side, k.x[r, c], k.y[r, c], colour[r, c], glint))
    r, c = _patch(k, 0.0, m.mouth_y, m.mouth_w * 1.5, 0.3)
    relief = np.zeros(k.x.shape, np.float32)
    relief[r, c] = paint.mouth(p, md, k.x[r, c], k.y[r, c], colour[r, c])
    small = (
        cv2.resize(relief, (low.shape[1], low.shape[0]), interpolation=cv2.INTER_AREA)
        if factor != 1.0
        else relief
    )
    low[..., 2] += small
    pos, normal = enlarge(low, factor), enlarge(head.normals(low), factor)
    matter = np.where(wet.reshape(-1) > 0.5, WET, SKIN).astype(np.uint8)
    parts = [Piece(pos.reshape(-1, 3), normal.reshape(-1, 3), colour.reshape(-1, 3), matter, 1.0, False)]
    flags = k.face.reshape(-1) > 0.5
    if p.beard == "beard":
        parts.append(piece(hair.beard(p, k.base, low), factor))
    return parts, low, flags


def _landmarks(p: Person, k: Kit, low: F32, md: Mood, v: View) -> F32:
    """Five points of the face in pixels, left to right in the image."""
    m = head.marks(p)
    corner = m.mouth_w * (1 + 0.20 * md.smile - 0.05 * md.jaw * (1 - md.smile)) * 0.97
    lift = m.mouth_y + 0.05 * md.smile + p.mouth_curve
    flat, middle = k.base.flat, slice(head.COLS // 4, -head.COLS // 4)
    found = []
    for x, y in ((-m.eye_x, 0.0), (m.eye_x, 0.0), (0.0, m.tip_y + 0.045), (-corner, lift), (corner, lift)):
        gap = (flat[:, middle, 0] - x) ** 2 + (flat[:, middle, 1] - y) ** 2
        near = np.argpartition(gap.reshape(-1), 4)[:4]
        weight = 1 / (gap.reshape(-1)[near] + 1e-5)
        found.append((low[:, middle].reshape(-1, 3)[near] * weight[:, None]).sum(0) / weight.sum())
    px, py = v.project(v.place(np.asarray(found, np.float32), 1.0))
    return np.stack([px, py], -1).astype(np.float32)


def _tucked(q: Piece) -> Piece:
    """Hair under a hat: only what hangs below it."""
    below = q.pos[:, 1] < 0.47
    follow = q.follow if isinstance(q.follow, float) else q.follow[below]
    return Piece(q.pos[below], q.normal[below], q.albedo[below], q.matter, follow, q.two_sided)


def _gather(pieces: list[Piece], v: View) -> tuple[F32, F32, F32, Arr, Arr]:
    """All points of all pieces, turned."""
    pos = np.concatenate([v.place(q.pos, q.follow) for q in pieces])
    normal = []
    for q in pieces:
        turn = v.turn_head if not (isinstance(q.follow, float) and q.follow < 0.5) else v.turn_body
        n = turned(q.normal, turn, np.zeros(3, np.float32))
        normal.append(n * np.where(n[:, 2:] < 0, np.float32(-1), np.float32(1)) if q.two_sided else n)
    matter = np.concatenate([np.broadcast_to(np.asarray(q.matter, np.uint8), (len(q.pos),)) for q in pieces])
    return (
        pos,
        np.concatenate(normal),
        np.concatenate([q.albedo for q in pieces]),
        matter,
        np.arange(len(pos)),
    )


def render(person: Person, shot: Shot, size_px: int | tuple[int, int] = 128) -> Rendering:
    """Draw `person` in `shot`; `size_px` is a side or (width, height)."""
    width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
    big_w, big_h = width * 2, height * 2
    v2 = view(shot, big_w, big_h)
    factor = 2.0 ** (np.ceil(2 * np.log2(max(v2.scale / (2 * DENSITY), 1.0)) - 0.6) / 2)
    factor = float(np.clip(factor, 1.0, 8.0))
    k = kit(person, factor)
    lit, side = scene.light(shot)
    parts, low, flags = _head_pieces(person, k, shot, factor, side)
    pieces = (
        parts
        + [_tucked(q) if shot.hat and q.matter == HAIR else q for q in k.still]
        + [piece(wear.garment(person, shot), factor if factor == 1.0 else 1.5 * factor)]
    )
    pieces += [piece(s, factor) for s in wear.extras(person, k.base, low, shot)]
    pos, normal, albedo, matter, ids = _gather(pieces, v2)
    px, py = v2.project(pos)
    seen = (
        (normal[:, 2] + pos[:, 0] * np.float32(-1 / CAMERA) * normal[:, 0] > -0.02)
        & (px > 0)
        & (py > 0)
        & (px < big_w)
        & (py < big_h)
    )
    ids = ids[seen]
    index = fill(splat(px[seen], py[seen], pos[seen, 2], big_w, big_h))
    solid = index >= 0
    near = ids[index[solid]]
    depth = np.full((big_h, big_w), -2.5, np.float32)
    depth[solid] = pos[near, 2]
    wide = max(2.0, v2.scale * 0.10)
    small = cv2.resize(depth, (max(8, big_w // 4), max(8, big_h // 4)), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(
        solid.astype(np.float32), (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA
    )
    around = cv2.GaussianBlur(np.maximum(small, -1.2) * cover, (0, 0), wide / 4) / np.maximum(
        cv2.GaussianBlur(cover, (0, 0), wide / 4), 0.02
    )
    around = cv2.resize(around, (big_w, big_h), interpolation=cv2.INTER_LINEAR)
    ao = np.clip(1 - 1.5 * np.clip(around[solid] - depth[solid] - 0.015, 0, 0.5), 0.30, 1).astype(np.float32)
    canvas = scene.background(shot, big_w, big_h)
    canvas[solid] = scene.shade(normal[near], albedo[near], matter[near], ao, lit, side)
    out = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    facial = np.zeros((big_h, big_w), np.float32)
    facial[solid] = np.concatenate([flags, np.zeros(len(pos) - len(flags), bool)])[near]
    mask = cv2.resize(facial, (width, height), interpolation=cv2.INTER_AREA) > 0.5
    solidity = cv2.resize(
        np.where(solid, np.clip((depth + 2.3) / 3.7, 0.02, 1), 0).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_AREA,
    )
    marks = _landmarks(person, k, low, mood(shot), v2) / 2
    return Rendering(
        scene.develop(out, shot, lit.exposure),
        marks.astype(np.float32),
        (mask * 255).astype(np.uint8),
        np.clip(solidity, 0, 1),
        {**person.descriptors, **shot.descriptors},
    )
