"""What a climb says while it goes on, a line at a time.

In: likeness, threshold, the steps of a climb. Out: sentences for a person. Knows nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

from oblik.generation.adapters import Lack
from oblik.generation.record import Guards, Step


def first_line(likeness: float, threshold: float, guards: Guards | None, *, climbs_on: bool) -> str:
    """How the pictures before any rung came out. ``climbs_on``: a rung is climbed in any case."""
    reached = "reached" if likeness >= threshold else "not reached"
    if likeness >= threshold and climbs_on:
        reached += ", and the reliable mode climbs one rung all the same"
    beside = f"; {guards.words}" if guards else ""
    return f"likeness {likeness:.3f}, threshold {threshold:.3f}: {reached}{beside}"


def rung_line(step: Step, threshold: float) -> str:
    """What a rung brought, or why it was not climbed."""
    if step.likeness_before is None or step.likeness_after is None:
        return f"rung {step.name}: {step.reason}"
    before, after = step.likeness_before, step.likeness_after
    beside = f"; {step.guards}" if step.guards else ""
    likeness = f"likeness {before:.3f} -> {after:.3f}, threshold {threshold:.3f}{beside}"
    return f"rung {step.name}: {likeness} ({step.reason})"


def kept_line(way: Sequence[Step], best: float, threshold: float) -> str:
    """Whose pictures stay: those of the rung that came out best."""
    names = (step.name for step in way if step.likeness_after == best)
    kept = f"rung {name}" if (name := next(names, None)) else "the first pictures"
    return f"kept: {kept}, likeness {best:.3f}, threshold {threshold:.3f}"


def lack_line(missed: Sequence[Lack]) -> str:
    """What was missed on the way, in short."""
    more = f", and {len(missed) - 1} more" if len(missed) > 1 else ""
    return f"not available: {missed[0].what}{more}"
