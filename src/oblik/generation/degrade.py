"""Degradations: smaller plans for a machine that is short of memory, each a pure ``Plan -> Plan``.

In: a plan that did not fit, and the stage at which it did not. Out: the next smaller one, or None when
nothing that helps this stage is left to give up; then the weights must make room
(`oblik.packs.memory_plan.replan`). Each is tried again until it changes nothing, in the order of the table:
what costs least of the picture comes first. Knows nothing of devices; who runs out of memory asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from oblik.generation.plan import Plan

Stage = Literal["load", "encode text", "denoise", "decode"]
SMALLEST_SIDE_PX = 512
FEWEST_STEPS = 20
SIDE_MULTIPLE_PX = 16
OFFLOAD = "offload"
"""What is given up after all of the table: the weights make room."""
PICTURES: tuple[Stage, ...] = ("denoise", "decode")


@dataclass(frozen=True)
class Degradation:
    """One thing to give up, and the stages that need less memory then. ``lowered`` (plan, the multiple of its
    sides) returns the plan unchanged when it has nothing left to give."""

    name: str
    lowered: Callable[[Plan, int], Plan]
    helps: tuple[Stage, ...] = PICTURES


def two_passes(plan: Plan, _multiple_px: int) -> Plan:
    """Guidance with two calls of the network instead of one: the same picture, in half the memory."""
    return plan.model_copy(update={"guidance_at_once": False}) if plan.guidance > 1 else plan


def halve_batch(plan: Plan, _multiple_px: int) -> Plan:
    """Half as many pictures at once; all seeds still run."""
    at_once = min(plan.batch, len(plan.seeds))
    return plan.model_copy(update={"batch": at_once // 2}) if at_once > 1 else plan


def shrink(plan: Plan, multiple_px: int) -> Plan:
    """Three quarters of each side, the shape kept, never below `SMALLEST_SIDE_PX`."""
    shorter = min(plan.width_px, plan.height_px)
    factor = max(0.75, SMALLEST_SIDE_PX / shorter)
    if factor >= 1:
        return plan
    width_px, height_px = (
        round(side * factor / multiple_px) * multiple_px for side in (plan.width_px, plan.height_px)
    )
    return plan.model_copy(update={"width_px": width_px, "height_px": height_px})


def fewer_steps(plan: Plan, _multiple_px: int) -> Plan:
    """Two thirds of the steps, never below `FEWEST_STEPS`: references keep the latents of every step."""
    return plan.model_copy(update={"steps": min(plan.steps, max(FEWEST_STEPS, plan.steps * 2 // 3))})


SIZE = Degradation("smaller pictures", shrink)
DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation("two passes of guidance", two_passes, ("denoise",)),
    Degradation("half the batch", halve_batch),
    SIZE,
    Degradation("fewer steps", fewer_steps, ("denoise",)),
)


def degrade(
    plan: Plan,
    stage: Stage = "denoise",
    multiple_px: int = SIDE_MULTIPLE_PX,
    table: Sequence[Degradation] = DEGRADATIONS,
) -> tuple[Plan, str] | None:
    """The next smaller plan and the name of what was given up; None when nothing that helps is left.

    No picture gets smaller because its prompt, or the weights, did not fit.
    """
    for degradation in table:
        if stage in degradation.helps:
            lowered = degradation.lowered(plan, multiple_px)
            if lowered != plan:
                return lowered, degradation.name
    return None
