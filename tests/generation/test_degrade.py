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
    assert degradation.lowered(PLAN, 16) == degradation.lowered(PLAN, 16)
    assert PLAN.model_dump() == before
    assert degradation.lowered(PLAN, 16).seeds == PLAN.seeds


def test_they_are_taken_in_order_until_nothing_is_left() -> None:
    plan, names = PLAN, []
    while following := degrade(plan):
        plan, name = following
        names.append(name)
        Plan.model_validate(plan.model_dump())
        assert len(names) < 20
    assert names[:4] == ["two passes of guidance"] + ["half the batch"] * 3
    assert list(dict.fromkeys(names)) == [degradation.name for degradation in DEGRADATIONS]
    assert (plan.batch, plan.steps, min(plan.width_px, plan.height_px)) == (1, FEWEST_STEPS, SMALLEST_SIDE_PX)


def test_a_stage_gives_up_only_what_helps_it() -> None:
    """No picture gets smaller because its prompt, or the weights, did not fit."""
    assert degrade(PLAN, "encode text") is None
    assert degrade(PLAN, "load") is None
    alone = PLAN.model_copy(update={"batch": 1, "width_px": 512, "height_px": 512})
    assert degrade(alone, "decode") is None


def test_half_of_a_batch_is_half_of_what_really_ran() -> None:
    """Eight at once were allowed, three were there: six or four would be no less."""
    three = PLAN.model_copy(update={"seeds": (1, 2, 3), "guidance_at_once": False})
    lowered, _ = degrade(three) or (three, "")
    assert lowered.batch == 1


def test_the_shape_is_kept_and_sides_fit_the_grid() -> None:
    alone = PLAN.model_copy(update={"batch": 1, "guidance_at_once": False})
    sizes = [degrade(alone, "denoise", multiple_px) for multiple_px in (16, 64)]
    assert [(plan.width_px, plan.height_px) for plan, _ in filter(None, sizes)] == [(576, 864), (576, 896)]


def test_a_small_picture_is_left_as_it_is() -> None:
    changes = {"width_px": 128, "height_px": 128, "batch": 1, "steps": 12, "guidance": 1.0}
    assert degrade(PLAN.model_copy(update=changes)) is None
