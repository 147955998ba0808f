"""What a set of photos shows of a person, and what to photograph next.

In: the attributes (view, side, pitch, light, how much is shown, background, expression, accessories...) of
each photo. Out: counts, sentences of advice, and whether there is enough to train on. Knows nothing of files.
What was never measured or captioned counts as "not said", never as absent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Attributes = Mapping[str, str]
WANTED_VIEWS = {
    "frontal": 10, "three-quarter left": 6, "three-quarter right": 6, "profile left": 2, "profile right": 2,
}  # fmt: skip
WANTED_SHOWN = {"full length": 2, "half length": 2}
WANTED_PHOTOS, FEWEST_PHOTOS = 40, 8
VARIED = 6.0
TOO_COMMON = 0.6
WORN = ("glasses", "sunglasses", "scarf", "hat", "mask")


@dataclass(frozen=True)
class Coverage:
    """Counts over the accepted photos; every mapping is in the order in which it should be shown."""

    photos: int
    views: dict[str, int]
    light: dict[str, int]
    expression: dict[str, int]
    worn: dict[str, int]
    scene: dict[str, int]
    shown: dict[str, int]
    pitch: dict[str, int]
    backdrops: tuple[int, ...]
    """How many photos have each background, the most common first; empty when nobody measured."""


@dataclass(frozen=True)
class Enough:
    """Whether to train on these photos, with the number that decided it, and why in words."""

    ok: bool
    variability: float
    sentence: str


def variability(photos: Sequence[Attributes]) -> float:
    """The effective number of different circumstances: exp(entropy), the Hill number of order 1 (Hill 1973),
    over view, light, background and how much is shown. From 1 (all alike) to the number of photos."""
    cells = Counter(
        (view_of(p), p.get("light", "even"), p.get("backdrop", ""), p.get("shows", "")) for p in photos
    )
    shares = [n / len(photos) for n in cells.values()]
    return math.exp(-sum(share * math.log(share) for share in shares)) if shares else 0.0


def judge(photos: Sequence[Attributes]) -> Enough:
    """40 photos are enough, fewer are when they vary, fewer than 8 never are."""
    n, varied = len(photos), variability(photos)
    number = f"variability {varied:.1f}, {VARIED:.1f} needed below {WANTED_PHOTOS} photos"
    if n < FEWEST_PHOTOS:
        return Enough(False, varied, f"{n} usable photos; {FEWEST_PHOTOS} are the fewest.")
    if n >= WANTED_PHOTOS:
        return Enough(True, varied, f"{n} usable photos, {WANTED_PHOTOS} wanted (variability {varied:.1f}).")
    if varied >= VARIED:
        return Enough(True, varied, f"{n} usable photos are few, and different enough ({number}).")
    return Enough(False, varied, f"{n} usable photos are few and too much alike ({number}).")


def cover(photos: Sequence[Attributes]) -> Coverage:
    """Count what the attributes of these photos say."""
    views = Counter(view_of(photo) for photo in photos)
    return Coverage(
        photos=len(photos),
        views={name: views.get(name, 0) for name in WANTED_VIEWS},
        light=_count(photos, "light", "even"),
        expression=_count(photos, "expression", "not said"),
        worn={
            name: n
            for name in WORN
            if (n := sum(name in p.get("accessories", "").split(", ") for p in photos))
        },
        scene=_count(photos, "scene", "not said"),
        shown=_count(photos, "shows", "not said"),
        pitch=_count(photos, "pitch", "level"),
        backdrops=tuple(_count([p for p in photos if "backdrop" in p], "backdrop", "").values()),
    )


def view_of(photo: Attributes) -> str:
    """``frontal``, ``profile left``..."""
    return " ".join(word for word in (photo.get("view", ""), photo.get("side", "")) if word)


def advice(coverage: Coverage) -> list[str]:
    """What to photograph next, most useful first; empty when nothing is missing."""
    said = []
    lacking = {name: want - coverage.views[name] for name, want in WANTED_VIEWS.items()}
    views = [f"{_number(n)} {_plural(name, n)}" for name, n in lacking.items() if n > 0]
    views += [
        f"{_number(want - coverage.shown.get(name, 0))} {name}"
        for name, want in WANTED_SHOWN.items()
        if set(coverage.shown) != {"not said"} and coverage.shown.get(name, 0) < want
    ]
    if views:
        said.append(f"Photograph {_joined(views)}.")
    if coverage.photos < WANTED_PHOTOS:
        said.append(
            f"{coverage.photos} usable photos is fewer than the {WANTED_PHOTOS} that give the best likeness; "
            "other days, clothes and rooms count for more than more of the same."
        )
    if coverage.light and max(coverage.light.values()) > 0.85 * coverage.photos:
        said.append("Nearly all photos have the same light: add some by a window and in the evening.")
    for table in (coverage.worn, {k: v for k, v in coverage.scene.items() if k != "not said"}):
        said += [
            f"{n / coverage.photos:.0%} of the photos have this in them: {name}. "
            f"Add {_number(_dilute(n, coverage.photos))} without it."
            for name, n in table.items()
            if n > TOO_COMMON * coverage.photos
        ]
    if coverage.backdrops and coverage.backdrops[0] > TOO_COMMON * coverage.photos:
        share = coverage.backdrops[0] / coverage.photos
        more = _number(_dilute(coverage.backdrops[0], coverage.photos))
        said.append(f"{share:.0%} of the photos have the same background. Add {more} in other places.")
    if coverage.photos >= FEWEST_PHOTOS and max(coverage.expression.values()) > 0.85 * coverage.photos:
        most = next(iter(coverage.expression))
        if most != "not said":
            said.append(f"Nearly all photos have the same expression ({most}): add others.")
    return said


def _count(photos: Sequence[Attributes], key: str, otherwise: str) -> dict[str, int]:
    counts = Counter(photo.get(key, otherwise) for photo in photos)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _dilute(n: int, photos: int) -> int:
    """How many other photos bring ``n`` of ``photos`` down to the share that is not too common."""
    return math.ceil(n / TOO_COMMON - photos)


def _number(n: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[n] if n < len(words) else str(n)


def _plural(view: str, n: int) -> str:
    kind, _, side = view.partition(" ")
    noun = {"frontal": "frontal view", "three-quarter": "three-quarter view", "profile": "profile"}[kind]
    turned = f" turned to the {side} of the picture" if side else ""
    return f"{noun}{'s' if n != 1 else ''}{turned}"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
