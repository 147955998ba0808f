"""Climbing: rungs are pure, keep seeds and sampler, and are tried until likeness suffices."""

from __future__ import annotations

import pytest

from oblik.generation.ladder import LADDER, Rung, climb
from oblik.generation.plan import Plan

PLAN = Plan(pack="p", persona="sitter", prompt="photo", seeds=(1, 2), steps=30)


def more_steps(plan: Plan) -> Plan:
    return plan.model_copy(update={"steps": plan.steps + 10})


RUNGS = (Rung("more", "r1", more_steps), Rung("again", "r2", more_steps), Rung("last", "r3", more_steps))


def likeness_of(plan: Plan) -> float:
    return {30: 0.4, 40: 0.6, 50: 0.55, 60: 0.5}[plan.steps]


def test_nothing_is_climbed_when_the_first_run_suffices() -> None:
    result = climb(PLAN, likeness_of, 0.3, rungs=RUNGS)
    assert (result.best.plan, result.steps, result.exhausted) == (PLAN, (), False)


def test_it_stops_at_the_first_rung_that_suffices() -> None:
    result = climb(PLAN, likeness_of, 0.6, rungs=RUNGS)
    assert [step.name for step in result.steps] == ["more"]
    assert (result.steps[0].likeness_before, result.steps[0].likeness_after) == (0.4, 0.6)
    assert not result.exhausted


def test_the_best_attempt_wins_and_exhaustion_is_said() -> None:
    result = climb(PLAN, likeness_of, 0.9, rungs=RUNGS)
    assert len(result.steps) == 3
    assert result.best.plan.steps == 40
    assert result.exhausted


def test_a_rung_that_changes_the_seeds_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="seeds"):
        climb(
            PLAN,
            likeness_of,
            0.9,
            rungs=[Rung("bad", "", lambda plan: plan.model_copy(update={"seeds": (3,)}))],
        )


@pytest.mark.parametrize("rung", [*LADDER, *RUNGS], ids=lambda rung: rung.name)
def test_rungs_are_pure(rung: Rung) -> None:
    before = PLAN.model_dump()
    assert rung.raised(PLAN) == rung.raised(PLAN)
    assert PLAN.model_dump() == before
