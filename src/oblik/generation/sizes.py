"""The size of a picture, asked for as its short side and its shape.

In: what presets and a pack say (width and height), what was asked. Out: width and height, each a multiple of
what the pack can draw. Knows nothing of plans but the names of their values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oblik.errors import InvalidInput

SHORT_SIDE, ASPECT, SIDES = "short_side_px", "aspect", ("width_px", "height_px")
WAYS = (SIDES, (SHORT_SIDE, ASPECT))
"""The two ways to ask for a size."""
NARROWEST = 1 / 4
"""Sides from 1:4 to 4:1: what lies beyond no base model was trained on."""
SHORTEST_PX, LONGEST_PX = 64, 4096


def with_size(said: Mapping[str, Any], asked: Mapping[str, Any], multiple_px: int) -> dict[str, Any]:
    """``said`` overruled by ``asked``, with both sides in place of a short side and an aspect.

    What was not asked of the two is that of the size that was said.

    Raises:
        InvalidInput: sides and short side or aspect are both asked for, or a value is out of its range.
    """
    refuse_two_ways(asked)
    values = _resolved(dict(said), said, multiple_px)
    values = _resolved(values | dict(asked), asked, multiple_px)
    for name in SIDES:
        side_px = values.get(name)
        if isinstance(side_px, int) and SHORTEST_PX <= side_px <= LONGEST_PX:
            values[name] = snapped(side_px, multiple_px)
    return values


def refuse_two_ways(asked: Mapping[str, Any]) -> None:
    """Raise InvalidInput where a size is asked for by its sides and by its shape at once."""
    if all(any(name in asked for name in way) for way in WAYS):
        raise InvalidInput(
            "a size is either width and height, or short side and aspect",
            hint="oblik generate PROMPT --short-side 768 --aspect 3:4",
        )


def laid_over(said: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """``said`` overruled by ``asked``; a size in one way takes the place of one in the other."""
    gone = {name for way, other in (WAYS, WAYS[::-1]) if any(name in asked for name in way) for name in other}
    return {name: value for name, value in said.items() if name not in gone} | dict(asked)


def snapped(length_px: float, multiple_px: int) -> int:
    """The nearest multiple, one at least."""
    return max(multiple_px, round(length_px / multiple_px) * multiple_px)


def aspect_of(text: str) -> float:
    """``3:4`` or ``3x4`` as width over height. Raises InvalidInput, with the range."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[:x/]\s*(\d+(?:\.\d+)?)", str(text).strip())
    width, height = (float(part) for part in found.groups()) if found else (0.0, 0.0)
    if not height or not NARROWEST <= width / height <= 1 / NARROWEST:
        raise InvalidInput(f"aspect: 1:4 to 4:1, as width:height, not {text!r}", hint="--aspect 3:4")
    return width / height


def _resolved(values: dict[str, Any], given: Mapping[str, Any], multiple_px: int) -> dict[str, Any]:
    """``values`` with the sides of the short side and aspect that were ``given``."""
    short_px, aspect = values.pop(SHORT_SIDE, None), values.pop(ASPECT, None)
    if SHORT_SIDE not in given and ASPECT not in given:
        return values
    width_px, height_px = (values.get(name, 768) for name in SIDES)
    short_px = min(width_px, height_px) if short_px is None else short_px
    if not isinstance(short_px, int) or not SHORTEST_PX <= short_px <= LONGEST_PX:
        raise InvalidInput(
            f"short side: {SHORTEST_PX} to {LONGEST_PX}, not {short_px!r}", hint="--short-side 768"
        )
    shape = width_px / height_px if aspect is None else aspect_of(aspect)
    sides = (short_px * max(1.0, shape), short_px * max(1.0, 1 / shape))
    return values | {name: snapped(side, multiple_px) for name, side in zip(SIDES, sides, strict=True)}
