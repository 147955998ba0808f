"""Degradations: smaller plans for a machine that is short of memory, each a pure ``Plan -> Plan``.

In: a plan that did not fit. Out: the next smaller one, or None when nothing is left to give up.
Each is tried again until it changes nothing, in the order of the table: what costs least of the
picture comes first. Knows nothing of devices; who runs out of memory asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oblik.generation.plan import Plan

SMALLEST_SIDE_PX = 512
FEWEST_STEPS = 20
SIDE_MULTIPLE_PX = 16


@dataclass(frozen=True)
class Degradation:
    """One thing to give up. ``lowered`` returns the plan unchanged when it has nothing left to give."""

    name: str
    lowered: Callable[[Plan], Plan]


def halve_batch(plan: Plan) -> Plan:
    """Half as many pictures at once; all seeds still run."""
    return plan.model_copy(update={"batch": max(1, plan.batch // 2)})


def shrink(plan: Plan) -> Plan:
    """Three quarters of each side, the shape kept, never below `SMALLEST_SIDE_PX`."""
    shorter = min(plan.width_px, plan.height_px)
    factor = max(0.75, SMALLEST_SIDE_PX / shorter)
    if factor >= 1:
        return plan
    sides = {"width_px": _side(plan.width_px * factor), "height_px": _side(plan.height_px * factor)}
    return plan.model_copy(update=sides)


def fewer_steps(plan: Plan) -> Plan:
    """Two thirds of the steps, never below `FEWEST_STEPS`."""
    return plan.model_copy(update={"steps": min(plan.steps, max(FEWEST_STEPS, plan.steps * 2 // 3))})


DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation("half the batch", halve_batch),
    Degradation("smaller pictures", shrink),
    Degradation("fewer steps", fewer_steps),
)


def degrade(plan: Plan, table: Sequence[Degradation] = DEGRADATIONS) -> tuple[Plan, str] | None:
    """The next smaller plan and the name of what was given up; None when nothing is left."""
    for degradation in table:
        lowered = degradation.lowered(plan)
        if lowered != plan:
            return lowered, degradation.name
    return None


def _side(length_px: float) -> int:
    return round(length_px / SIDE_MULTIPLE_PX) * SIDE_MULTIPLE_PX
