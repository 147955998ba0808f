"""Which photos are the same picture, and which the same moment.

In: a `Look` at every photo with a face: how the head and the whole frame look, when it was taken, how sharp
it is, whose face it is. Out: groups of copies and of bursts, each with the one to keep. Knows no files.

Copies are found in two steps. Candidates: heads brought to one place by their landmarks whose coarse pictures
agree, and frames with nearly the same perceptual hash; mirrored ones too. Proof: the two are registered to a
fraction of a pixel (enhanced correlation coefficient, Evangelidis and Psarakis 2008, affine) and their fine
detail must agree. Re-encoding, scaling, cropping and brightness leave it; a head turned by 6 degrees not.
Not guaranteed: a copy under a heavy filter, a sticker or a frame may pass for another picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from oblik.faces.align import ARCFACE_52, similarity
from oblik.faces.stack import Image_HW3, Points_52

HEAD_PX = 128
HEAD_SCALE = 0.62
COARSE_PX = 16
ALIKE, HASH_BITS_APART, MAX_CANDIDATES = 0.7, 8, 4
ROUGHLY, SAME_HEAD, SAME_FRAME, SAME_EVERYWHERE = 0.75, 0.94, 0.97, 0.88
ROUGH_STEPS, FINE_STEPS, LEAST_SHARED = 40, 20, 0.4
BURST_S, BURST_NEXT = 3.0, 8
FINE_PX, BROAD_PX = 1.0, 4.0
ROWS = 256

Grey_HW = NDArray[np.uint8]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Appearance:
    """``head`` is grey, brought to one place and size by the landmarks, 0 outside the photo; ``frame`` is the
    whole photo squeezed into a square; the hashes are of the frame and of its mirror image."""

    head: Grey_HW
    frame: Grey_HW
    hash_64: int
    mirrored_64: int


@dataclass(frozen=True)
class Look:
    """What one photo looks like, in the eyes of this module."""

    appearance: Appearance
    captured_at: datetime | None
    sharpness: float
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Kept:
    """What grouping decided for one photo: its group, and, unless it is kept, by which one it was beaten."""

    group: int
    beaten_by: int | None = None
    kind: str = ""


def appearance(image: Image_HW3, landmarks: Points_52) -> Appearance:
    """How a picture looks around one face; ``landmarks`` in its pixels."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    frame = np.asarray(cv2.resize(grey, (HEAD_PX, HEAD_PX), interpolation=cv2.INTER_AREA), np.uint8)
    return Appearance(_head(grey, landmarks), frame, _hash(frame), _hash(frame[:, ::-1]))


def group_photos(looks: Sequence[Look], *, same_face: float = -1.0) -> list[Kept]:
    """Group copies and bursts; in each group the sharpest stays (the first of equals).

    Two photos of one moment are a burst when their faces are as alike as ``same_face``, a cosine.
    """
    if not looks:
        return []
    copies, bursts = _copies(looks), _bursts(looks, same_face)
    ends = np.array([*copies, *bursts] or np.empty((0, 2)), int)
    edges = coo_array((np.ones(len(ends), int), (ends[:, 0], ends[:, 1])), shape=(len(looks), len(looks)))
    groups = [int(group) for group in connected_components(edges, directed=False)[1]]
    best: dict[int, int] = {}
    for i, group in enumerate(groups):
        if group not in best or looks[i].sharpness > looks[best[group]].sharpness:
            best[group] = i
    copied = {i for pair in copies for i in pair}
    return [
        Kept(group) if best[group] == i else Kept(group, best[group], "duplicate" if i in copied else "burst")
        for i, group in enumerate(groups)
    ]


def _copies(looks: Sequence[Look]) -> list[Pair]:
    seen = [look.appearance for look in looks]
    found = [
        (i, j) for i, j, turned in _alike(seen) if _proven(seen[i].head, seen[j].head, turned, SAME_HEAD)
    ]
    known = set(found)
    return found + [
        (i, j)
        for i, j, turned in _same_hash(seen)
        if (i, j) not in known and _proven(seen[i].frame, seen[j].frame, turned, SAME_FRAME)
    ]


def _alike(seen: Sequence[Appearance]) -> Iterator[tuple[int, int, bool]]:
    """Pairs whose heads agree coarsely: of each photo at most the MAX_CANDIDATES best that come after it."""
    coarse = np.stack([_coarse(one.head) for one in seen])
    both = (coarse.reshape(len(seen), -1), coarse[:, :, ::-1].reshape(len(seen), -1))
    for start in range(0, len(seen), ROWS):
        rows = both[0][start : start + ROWS]
        scores_2RN = np.stack([rows @ vectors.T for vectors in both])
        turned_RN, score_RN = scores_2RN[1] > scores_2RN[0], scores_2RN.max(axis=0)
        score_RN[np.arange(len(seen)) <= np.arange(start, start + len(rows))[:, None]] = -1
        order_RK = np.argsort(-score_RN, axis=1, kind="stable")[:, :MAX_CANDIDATES]
        for row, best in enumerate(order_RK):
            yield from (
                (start + row, int(j), bool(turned_RN[row, j])) for j in best if score_RN[row, j] >= ALIKE
            )


def _same_hash(seen: Sequence[Appearance]) -> Iterator[tuple[int, int, bool]]:
    plain = np.array([one.hash_64 for one in seen], np.uint64)
    mirrored = np.array([one.mirrored_64 for one in seen], np.uint64)
    for i, value in enumerate(plain):
        apart_2M = np.bitwise_count(np.stack([plain[i + 1 :], mirrored[i + 1 :]]) ^ value)
        near = np.flatnonzero(apart_2M.min(axis=0) <= HASH_BITS_APART)[:MAX_CANDIDATES]
        yield from ((i, i + 1 + int(j), bool(apart_2M[1, j] < apart_2M[0, j])) for j in near)


def _proven(first: Grey_HW, second: Grey_HW, turned: bool, enough: float) -> bool:
    """Whether fine detail agrees, everywhere, once the second picture lies on the first."""
    a, b = first, np.ascontiguousarray(second[:, ::-1]) if turned else second
    half = (HEAD_PX // 2, HEAD_PX // 2)
    small = [np.asarray(cv2.resize(one, half, interpolation=cv2.INTER_AREA), np.uint8) for one in (a, b)]
    rough_23 = _registered(small[0], small[1], np.eye(2, 3, dtype=np.float32), ROUGH_STEPS, 5)
    if rough_23 is None or _agreement(small[0], small[1], rough_23)[0] < ROUGHLY:
        return False
    affine_23 = _registered(a, b, rough_23 * np.array([[1, 1, 2], [1, 1, 2]], np.float32), FINE_STEPS, 3)
    if affine_23 is None:
        return False
    overall, worst = _agreement(a, b, affine_23)
    return overall >= enough and worst >= SAME_EVERYWHERE


def _registered(
    a: Grey_HW, b: Grey_HW, start_23: NDArray[np.float32], steps: int, blur_px: int
) -> NDArray[np.float32] | None:
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-3)
    try:
        _, found_23 = cv2.findTransformECC(
            a, b, start_23.copy(), cv2.MOTION_AFFINE, until, _inside(a), blur_px
        )
    except cv2.error:  # the two have nothing in common
        return None
    return np.asarray(found_23, np.float32) if np.isfinite(found_23).all() else None


def _agreement(a: Grey_HW, b: Grey_HW, affine_23: NDArray[np.float32]) -> tuple[float, float]:
    """Normalised correlation of fine detail: overall, and that of the worst twentieth of the places."""
    size, back = a.shape[::-1], cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(b.astype(np.float32), affine_23, size, flags=cv2.INTER_LINEAR | back)
    whole = cv2.warpAffine(_inside(b), affine_23, size, flags=cv2.INTER_NEAREST | back)
    both = cv2.erode(_inside(a) & whole, np.ones((9, 9), np.uint8), borderValue=0)
    if both.mean() < LEAST_SHARED:
        return -1.0, -1.0
    x, y = _detail(a.astype(np.float32), _inside(a)) * both, _detail(laid, whole) * both
    xx, yy, xy = (_near(part) for part in (x * x, y * y, x * y))
    energy = np.sqrt(xx * yy)
    places = (both > 0) & (energy > 0.15 * energy.mean())
    local = xy[places] / np.maximum(energy[places], 1e-6)
    worst = float(np.quantile(local, 0.05)) if local.size else -1.0
    return float(_unit(x.ravel()) @ _unit(y.ravel())), worst


def _near(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), 8.0), np.float32)


def _detail(grey: NDArray[np.float32], inside: Grey_HW) -> NDArray[np.float32]:
    """Difference of two blurs, of the inside only (normalised convolution, Knutsson and Westin 1993)."""
    weight = inside.astype(np.float32)
    fine, broad = (
        cv2.GaussianBlur(grey * weight, (0, 0), px) / np.maximum(cv2.GaussianBlur(weight, (0, 0), px), 1e-3)
        for px in (FINE_PX, BROAD_PX)
    )
    return np.asarray(fine - broad, np.float32)


def _inside(grey: Grey_HW) -> Grey_HW:
    return np.asarray(grey > 0, np.uint8)


def _bursts(looks: Sequence[Look], same_face: float) -> list[Pair]:
    """Pairs taken within BURST_S, each photo with the next few in time."""
    timed = sorted((at, i) for i, look in enumerate(looks) if (at := look.captured_at) is not None)
    return [
        (i, j)
        for place, (at, i) in enumerate(timed)
        for later, j in timed[place + 1 : place + 1 + BURST_NEXT]
        if (later - at).total_seconds() <= BURST_S
        and float(looks[i].embedding @ looks[j].embedding) >= same_face
    ]


def _head(grey: Grey_HW, landmarks: Points_52) -> Grey_HW:
    """The head in a square of HEAD_PX; black becomes 1, so that 0 is the outside of the photo."""
    place = (ARCFACE_52 - np.array([56, 66], np.float32)) * HEAD_SCALE * HEAD_PX / 112 + HEAD_PX / 2
    affine = similarity(landmarks, place)
    shrink = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    if shrink < 0.7:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.45 / shrink), np.uint8)
    size = (HEAD_PX, HEAD_PX)
    return np.asarray(cv2.warpAffine(np.maximum(grey, 1), affine, size, flags=cv2.INTER_LINEAR), np.uint8)


def _coarse(head: Grey_HW) -> NDArray[np.float32]:
    """A small copy, the outside at the mean of the inside, zero mean, unit length."""
    grey = head.astype(np.float32)
    grey[head == 0] = grey[head > 0].mean() if head.any() else 0.0
    small = cv2.resize(grey, (COARSE_PX, COARSE_PX), interpolation=cv2.INTER_AREA)
    return _unit(small - small.mean())


def _hash(grey: Grey_HW) -> int:
    import imagehash

    bits = imagehash.phash(Image.fromarray(grey), hash_size=8).hash.ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-9), dtype=np.float32)
