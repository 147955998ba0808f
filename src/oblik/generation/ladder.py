"""The reliable mode: rungs, each a pure function ``Plan -> Plan``, climbed while likeness falls short.

In: a plan and a way to run and judge one. Out: the best attempt and the steps that led to it. Seeds
and sampler stay as they were asked. Knows nothing of engines, faces or files.

The table is empty in this version: a rung enters it together with the adapter it needs, and what
a pack cannot do is never silently skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oblik.generation.plan import Plan
from oblik.generation.record import Step


@dataclass(frozen=True)
class Rung:
    """One way to raise likeness. ``raised`` must return a new plan with the same seeds and sampler."""

    name: str
    reason: str
    raised: Callable[[Plan], Plan]


@dataclass(frozen=True)
class Attempt:
    """A plan that ran and the mean likeness of its pictures (misses count as 0)."""

    plan: Plan
    likeness: float


@dataclass(frozen=True)
class Climb:
    """What climbing led to. ``exhausted``: no rung was left and the threshold is still not met."""

    best: Attempt
    steps: tuple[Step, ...]
    exhausted: bool


LADDER: tuple[Rung, ...] = ()


def climb(
    plan: Plan,
    run: Callable[[Plan], float],
    threshold: float,
    *,
    rungs: Sequence[Rung] = LADDER,
) -> Climb:
    """Run ``plan``; while its likeness is below ``threshold``, raise it by the next rung and run again.

    ``run`` makes the pictures and returns their mean likeness. Rungs build on each other; the best
    attempt wins, which need not be the last.
    """
    attempt = best = Attempt(plan, run(plan))
    steps: list[Step] = []
    for rung in rungs:
        if attempt.likeness >= threshold:
            break
        raised = _raised(rung, attempt.plan)
        following = Attempt(raised, run(raised))
        steps.append(
            Step(
                name=rung.name,
                reason=rung.reason,
                likeness_before=attempt.likeness,
                likeness_after=following.likeness,
            )
        )
        attempt = following
        best = max(best, attempt, key=lambda tried: tried.likeness)
    return Climb(best, tuple(steps), exhausted=best.likeness < threshold)


def _raised(rung: Rung, plan: Plan) -> Plan:
    raised = rung.raised(plan)
    assert (raised.seeds, raised.sampler) == (plan.seeds, plan.sampler), (
        f"{rung.name} changed seeds or sampler"
    )
    return raised
