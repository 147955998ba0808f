"""What to do when memory is short: the one way down, before a run and in the middle of it.

In: a plan, who plans memory, the stage that ran out. Out: the next `Fit`: a smaller plan, and when nothing
that helps is left to give up, a memory plan that moves weights off the card. Whoever asks is told each step.
Knows nothing of pipelines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from oblik.errors import OutOfMemory
from oblik.generation.degrade import OFFLOAD, SIZE, Stage, degrade
from oblik.generation.plan import Plan
from oblik.packs.memory_plan import MemoryPlan, replan

Planner = Callable[[Plan], MemoryPlan | None]
Note = Callable[[str, str], object]
SIGNS = ("out of memory", "DefaultCPUAllocator", "not enough memory", "ALLOC_FAILED")
"""How libraries that have no error class of their own say it."""


class Fit(NamedTuple):
    """A plan, and how the weights are held for it (None: as they are)."""

    plan: Plan
    memory: MemoryPlan | None


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    return isinstance(error, RuntimeError) and any(sign.lower() in str(error).lower() for sign in SIGNS)


def fitting(plan: Plan, planner: Planner, note: Note, multiple_px: int) -> Fit:
    """The plan, or the first with smaller pictures that there is a memory plan for; batches it halves itself.

    Raises:
        OutOfMemory: there is none for the smallest.
    """
    while True:
        try:
            return Fit(plan, planner(plan))
        except OutOfMemory as short:
            lowered = degrade(plan, "denoise", multiple_px, (SIZE,))
            if lowered is None:
                raise
            plan, name = lowered
            note(name, short.message)


def smaller(fit: Fit, stage: Stage, note: Note, multiple_px: int) -> Fit:
    """What to try next after ``stage`` ran out of memory. A smaller plan keeps its memory plan, which is
    enough for more than that.

    Raises:
        OutOfMemory: nothing is left to give up.
    """
    plan, memory = fit
    said = f"out of memory in {stage!r}"
    if lowered := degrade(plan, stage, multiple_px):
        smaller_plan, name = lowered
        note(name, said)
        return Fit(smaller_plan, memory)
    if memory is not None:
        memory = replan(memory, "decode" if stage == "load" else stage)  # least beside the weights
        note(OFFLOAD, f"{said}; going on with a smaller memory plan. {memory.gave_up}")
        return Fit(plan, memory)
    raise OutOfMemory(
        f"{plan.width_px}x{plan.height_px} px do not fit into memory, not even one at a time: {said}",
        hint="close other programs, or ask for a smaller picture: --short-side 512",
    )
