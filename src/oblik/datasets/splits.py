"""Train, validation and stress, by group, so that no moment is on both sides.

In: items with a group, a key that is the photo's own (its hash) and how hard it is. Out: a split for each.
No randomness: the order follows from the keys, so the same photos always fall the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from oblik.datasets.manifest import Split

MIN_VALIDATION = 4
VALIDATION_SHARE = 0.2
STRESS_SHARE = 0.2
MAX_STRESS = 20
STRESS_FROM = 12


@dataclass(frozen=True)
class Item:
    """One photo. ``hardness`` 0 is an ordinary one; ``stratum`` (its view) is spread over the splits."""

    key: str
    group: int
    hardness: float = 0.0
    stratum: str = ""


def split_items(items: Sequence[Item]) -> list[Split]:
    """A split for each item.

    The hardest groups, at most a fifth of the photos (none below 12 photos), are ``stress``; of the rest
    a fifth, at least 4, is ``validation``, taken in turn from every stratum. A group is never torn apart,
    so a few large groups can leave fewer; one single group is all ``train``.
    """
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    chosen: dict[int, Split] = dict.fromkeys(groups, Split.train)
    _fill(chosen, groups, _hardest(groups), Split.stress, _stress_room(len(items)))
    rest = {number: group for number, group in groups.items() if chosen[number] is Split.train}
    photos = sum(len(group) for group in rest.values())
    wanted = max(MIN_VALIDATION, round(VALIDATION_SHARE * photos))
    _fill(chosen, groups, _in_turn(rest), Split.validation, min(wanted, photos // 2), over=True)
    return [chosen[item.group] for item in items]


def _stress_room(photos: int) -> int:
    return min(MAX_STRESS, int(STRESS_SHARE * photos)) if photos >= STRESS_FROM else 0


def _fill(
    chosen: dict[int, Split], groups: dict[int, list[Item]], order: list[int], split: Split, room: int,
    *, over: bool = False,
) -> None:  # fmt: skip
    """Give ``split`` whole groups, in order, while there is room; with ``over`` the last, smallest one may
    reach beyond it as long as as many photos are left."""
    late = []
    for number in order:
        if len(groups[number]) <= room:
            chosen[number] = split
            room -= len(groups[number])
        else:
            late.append(number)
    left = sum(len(groups[number]) for number in late)
    smallest = min(late, key=lambda number: len(groups[number]), default=None)
    if over and room > 0 and smallest is not None and left > len(groups[smallest]):
        chosen[smallest] = split


def _hardest(groups: dict[int, list[Item]]) -> list[int]:
    worst = {number: max(item.hardness for item in group) for number, group in groups.items()}
    hard = [number for number in groups if worst[number] > 0]
    return sorted(hard, key=lambda number: (-worst[number], _rank(groups[number])))


def _in_turn(groups: dict[int, list[Item]]) -> list[int]:
    """Groups by their place within their stratum, so that the first few come from all strata."""
    strata: dict[str, list[int]] = {}
    for number in sorted(groups, key=lambda number: _rank(groups[number])):
        strata.setdefault(groups[number][0].stratum, []).append(number)
    places = [
        ((place + 0.5) / len(numbers), _rank(groups[number]), number)
        for numbers in strata.values()
        for place, number in enumerate(numbers)
    ]
    return [number for _, _, number in sorted(places)]


def _rank(group: list[Item]) -> str:
    return hashlib.sha256("".join(sorted(item.key for item in group)).encode()).hexdigest()
