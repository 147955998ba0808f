"""Splits: sizes, groups, determinism."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oblik.datasets.manifest import Split
from oblik.datasets.splits import Item, split_items


def items(number: int, hard: int = 0, group_of: int = 1) -> list[Item]:
    return [
        Item(f"{i:064x}", i // group_of, 0.1 * (i + 1) if i < hard else 0.0, ("frontal", "profile")[i % 2])
        for i in range(number)
    ]


@pytest.mark.parametrize(
    ("number", "hard", "sizes"),
    [(8, 0, (4, 4, 0)), (8, 8, (4, 4, 0)), (12, 12, (6, 4, 2)), (40, 3, (30, 7, 3)), (40, 30, (26, 6, 8)),
     (200, 200, (144, 36, 20))],
)  # fmt: skip
def test_sizes(number: int, hard: int, sizes: tuple[int, int, int]) -> None:
    count = Counter(split_items(items(number, hard)))
    assert (count[Split.train], count[Split.validation], count[Split.stress]) == sizes


def test_the_hardest_are_the_stress_set() -> None:
    splits = split_items(items(40, hard=20))
    assert [i for i, split in enumerate(splits) if split is Split.stress] == list(range(12, 20))


def test_no_group_is_on_both_sides() -> None:
    grouped = items(60, hard=12, group_of=3)
    splits = split_items(grouped)
    of_group: dict[int, set[Split]] = {}
    for item, split in zip(grouped, splits, strict=True):
        of_group.setdefault(item.group, set()).add(split)
    assert all(len(found) == 1 for found in of_group.values())
    assert len(set(splits)) == 3


def test_the_order_of_the_photos_does_not_matter() -> None:
    ordered = items(50, hard=9)
    expected = dict(zip((item.key for item in ordered), split_items(ordered), strict=True))
    for seed in range(5):
        mixed = random.Random(seed).sample(ordered, len(ordered))
        assert dict(zip((item.key for item in mixed), split_items(mixed), strict=True)) == expected


def test_validation_takes_from_every_stratum() -> None:
    ordered = items(40)
    splits = split_items(ordered)
    strata = [item.stratum for item, split in zip(ordered, splits, strict=True) if split is Split.validation]
    assert Counter(strata) == {"frontal": 4, "profile": 4}


def test_nothing_is_nothing() -> None:
    assert split_items([]) == []


ITEMS = st.lists(
    st.tuples(st.integers(0, 30), st.floats(0, 2), st.sampled_from(["frontal", "profile left"])), max_size=80
).map(lambda rows: [Item(f"{i:064x}", group, hard, view) for i, (group, hard, view) in enumerate(rows)])


@given(ITEMS)
def test_nothing_leaks_and_something_is_always_taught(drawn: list[Item]) -> None:
    splits = split_items(drawn)
    of_group: dict[int, set[Split]] = {}
    for item, split in zip(drawn, splits, strict=True):
        of_group.setdefault(item.group, set()).add(split)
    assert all(len(found) == 1 for found in of_group.values())
    assert splits.count(Split.stress) <= min(20, len(drawn) // 5)
    assert not drawn or Split.train in splits


@given(ITEMS.map(lambda drawn: [Item(i.key, n, i.hardness, i.stratum) for n, i in enumerate(drawn)]))
def test_of_eight_moments_four_are_held_out(drawn: list[Item]) -> None:
    count = Counter(split_items(drawn))
    if len(drawn) >= 8:
        assert count[Split.validation] >= 4
        assert count[Split.train] >= 4
