"""Degradations are pure, end, and never leave what a plan may be."""

from __future__ import annotations

import pytest

from oblik.generation.degrade import DEGRADATIONS, FEWEST_STEPS, SMALLEST_SIDE_PX, Degradation, degrade
from oblik.generation.plan import Plan

PLAN = Plan(
    pack="p", persona="sitter", prompt="photo", seeds=tuple(range(8)), steps=50, width_px=768, height_px=1152
)


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda degradation: degradation.name)
def test_they_are_pure_and_keep_the_seeds(degradation: Degradation) -> None:
    before = PLAN.model_dump()
    assert degradation.lowered(PLAN) == degradation.lowered(PLAN)
    assert PLAN.model_dump() == before
    assert degradation.lowered(PLAN).seeds == PLAN.seeds


def test_they_are_taken_in_order_until_nothing_is_left() -> None:
    plan, names = PLAN, []
    while following := degrade(plan):
        plan, name = following
        names.append(name)
        Plan.model_validate(plan.model_dump())
        assert len(names) < 20
    assert names[:3] == ["half the batch"] * 3
    assert set(names) == {degradation.name for degradation in DEGRADATIONS}
    assert (plan.batch, plan.steps, min(plan.width_px, plan.height_px)) == (1, FEWEST_STEPS, SMALLEST_SIDE_PX)


def test_the_shape_is_kept_and_sides_fit_the_grid() -> None:
    plan, _ = degrade(PLAN.model_copy(update={"batch": 1})) or (PLAN, "")
    assert (plan.width_px, plan.height_px) == (576, 864)


def test_a_small_picture_is_left_as_it_is() -> None:
    small = PLAN.model_copy(update={"width_px": 128, "height_px": 128, "batch": 1, "steps": 12})
    assert degrade(small) is None
