"""What a set of photos shows of a person, and what to photograph next.

In: the attributes (view, side, light, expression, accessories...) of each photo. Out: counts, and sentences
of advice. Knows nothing of files. What was never measured or captioned counts as "not said", never as absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Attributes = Mapping[str, str]
WANTED_VIEWS = {
    "frontal": 10, "three-quarter left": 6, "three-quarter right": 6, "profile left": 2, "profile right": 2,
}  # fmt: skip
WANTED_PHOTOS = 40
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
    )


def view_of(photo: Attributes) -> str:
    """``frontal``, ``profile left``..."""
    return " ".join(word for word in (photo.get("view", ""), photo.get("side", "")) if word)


def advice(coverage: Coverage) -> list[str]:
    """What to photograph next, most useful first; empty when nothing is missing."""
    said = []
    lacking = {name: want - coverage.views[name] for name, want in WANTED_VIEWS.items()}
    views = [f"{_number(n)} {_plural(name, n)}" for name, n in lacking.items() if n > 0]
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
            f"{n / coverage.photos:.0%} of the photos have this in them: {name}. Add photos without it."
            for name, n in table.items()
            if n > TOO_COMMON * coverage.photos
        ]
    return said


def _count(photos: Sequence[Attributes], key: str, otherwise: str) -> dict[str, int]:
    counts = Counter(photo.get(key, otherwise) for photo in photos)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


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
