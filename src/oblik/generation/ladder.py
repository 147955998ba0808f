"""The reliable mode: rungs, each a pure function ``Plan -> Plan``, climbed while likeness falls short.

In: a plan, what the pack and the persona offer, a way to run and judge a plan. Out: the rungs that are there,
a sentence for each that is not; the best attempt and the steps that led to it. Seeds and sampler stay as they
were asked. Knows nothing of engines, faces or files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from oblik.errors import BackendUnavailable
from oblik.generation.adapters import STEERING, Lack, editing, lack, usable
from oblik.generation.control import lack as control_lack
from oblik.generation.plan import AdapterName, Control, Plan, Reference
from oblik.generation.record import Step
from oblik.packs.manifest import OpenPack, Pack

FACE, LARGER, EDIT = 1, 2, 3
"""The numbers of the rungs."""
EDIT_PHOTOS = 2
"""How many photos an editing network is shown beside the frame; Qwen-Image-Edit takes three pictures."""


@dataclass(frozen=True)
class Rung:
    """One way to raise likeness. ``raised`` must return a new plan with the same seeds and sampler;
    ``reason`` may name values of that plan: "{steps} steps"."""

    name: str
    reason: str
    raised: Callable[[Plan], Plan]

    def said(self, raised: Plan) -> str:
        """The reason, with the values of the plan that was raised."""
        return self.reason.format_map(raised.model_dump())


class Heights(BaseModel):
    """What the rungs raise a plan of one family to; a pack's native size is never exceeded. ``pose_weight``
    is how closely a face that is drawn again keeps the pose of the one that it replaces; 0 leaves that free.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference_weight: float = Field(0.6, ge=0, le=1)
    edit_weight: float = Field(0.9, ge=0, le=1)
    pose_weight: float = Field(0.0, ge=0, le=2)
    short_side_px: int = Field(1024, ge=64, le=4096)
    steps: int = Field(60, ge=1, le=150)


class Ladder(NamedTuple):
    """The rungs that can be climbed, lowest first, and what is missing for the others."""

    rungs: tuple[Rung, ...]
    missing: tuple[Lack, ...] = ()


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


def on_face(plan: Plan, references: tuple[Reference, ...], pose: tuple[Control, ...] = ()) -> Plan:
    """Rungs 1 and 3: the references draw the face, and only the face, towards the person. A control of the
    plan's own stays; else the ``pose`` of each face is kept, where it is given."""
    controls = plan.controls or pose
    return plan.model_copy(update={"references": references, "controls": controls, "mode": "reliable"})


def larger(plan: Plan, heights: Heights, pack: Pack) -> Plan:
    """Rung 2: more steps, and the shorter side up to ``short_side_px`` or the pack's native size."""
    shorter = min(plan.width_px, plan.height_px)
    factor = max(1.0, min(heights.short_side_px, pack.native_size_px) / shorter)
    multiple = pack.side_multiple_px
    width_px, height_px = (
        round(side * factor / multiple) * multiple if factor > 1 else side
        for side in (plan.width_px, plan.height_px)
    )
    steps = max(plan.steps, heights.steps)
    raised = {"width_px": width_px, "height_px": height_px, "steps": steps, "mode": "reliable"}
    return plan.model_copy(update=raised)


def ladder(pack: OpenPack, photos: Sequence[str], heights: Heights, highest: int = EDIT) -> Ladder:
    """The rungs up to ``highest`` for a pack and a person's reference ``photos`` (paths as in `Reference`).

    A rung is in the table only where the pack has what it needs; else the sentence is in ``missing``.
    """
    rungs: list[Rung] = []
    missing: list[Lack] = []
    no_photo = Lack("no photo of the person to refer to", "build a dataset", "oblik dataset build PHOTOS")
    adapter, editor = usable(pack), editing(pack)
    pose, unposed = _pose(pack, heights)
    if photos and (adapter or (highest >= EDIT and editor)):
        missing += unposed
    if adapter and photos:
        references = shown(adapter, photos, heights.reference_weight)
        rungs.append(_face_rung(f"{FACE} reference", references, pose, "on the face only"))
    elif adapter:
        missing.append(no_photo._replace(what=f"rung {FACE}: {no_photo.what}"))
    else:
        unable = (lack(name, pack) for name in STEERING)
        missing += [each._replace(what=f"rung {FACE}, {each.what}") for each in unable if each]
    if highest >= LARGER:
        reason = "{width_px}x{height_px} px, {steps} steps"
        raised = partial(larger, heights=heights, pack=pack.manifest)
        rungs.append(Rung(f"{LARGER} larger and longer", reason, raised))
    if highest >= EDIT:
        if edit := lack("edit-reference", pack):
            missing.append(edit._replace(what=f"rung {EDIT}, {edit.what}"))
        if editor and photos:
            references = shown(editor, photos, heights.edit_weight)
            rungs.append(_face_rung(f"{EDIT} edit", references, pose, "the face drawn again inside its mask"))
        elif editor:
            missing.append(no_photo._replace(what=f"rung {EDIT}: {no_photo.what}"))
    return Ladder(tuple(rungs), tuple(missing))


def shown(adapter: AdapterName, photos: Sequence[str], weight: float) -> tuple[Reference, ...]:
    """The references of ``photos``: two for an editing network; the other adapters say more with all."""
    seen = photos[:EDIT_PHOTOS] if adapter == "edit-reference" else photos
    return tuple(Reference(image=image, weight=weight, adapter=adapter) for image in seen)


def _face_rung(name: str, references: tuple[Reference, ...], pose: tuple[Control, ...], where: str) -> Rung:
    first = references[0]
    kept = f", its pose kept at {pose[0].weight:g}" if pose else ""
    reason = f"{first.adapter}, {len(references)} photos at weight {first.weight:g}, {where}{kept}"
    return Rung(name, reason, partial(on_face, references=references, pose=pose))


def _pose(pack: OpenPack, heights: Heights) -> tuple[tuple[Control, ...], list[Lack]]:
    """The control that keeps poses, where one is wished for and the pack can; else what it lacks."""
    if not heights.pose_weight:
        return (), []
    if lacking := control_lack("pose", pack):
        return (), [lacking._replace(what=f"the pose of a face that is drawn again: {lacking.what}")]
    return (Control(kind="pose", weight=heights.pose_weight),), []


def climb(
    plan: Plan,
    run: Callable[[Plan], float],
    threshold: float,
    *,
    rungs: Sequence[Rung],
    at_least: int = 0,
    note: Callable[[Step], object] = bool,
) -> Climb:
    """Run ``plan``; while its likeness is below ``threshold``, raise it by the next rung and run again.

    ``run`` makes the pictures and returns their mean likeness. Rungs build on each other; the best
    attempt wins, which need not be the last. The first ``at_least`` rungs are climbed whatever the likeness.
    A rung that changes nothing is not run again, and one that the engine cannot run is passed over; both are
    said. ``note`` is told each step as it is made.
    """
    attempt = best = Attempt(plan, run(plan))
    steps: list[Step] = []
    for place, rung in enumerate(rungs):
        if best.likeness >= threshold and place >= at_least:
            break
        before, raised = attempt.likeness, raise_by(rung, attempt.plan)
        if raised == attempt.plan:
            step = Step(name=rung.name, kind="note", reason="changes nothing: the plan is as high already")
        else:
            try:
                attempt = Attempt(raised, run(raised))
            except BackendUnavailable as lacking:
                reason = f"not available: {lacking.message}; {lacking.hint}"
                step = Step(name=rung.name, kind="lack", reason=reason)
            else:
                best = max(best, attempt, key=lambda tried: tried.likeness)
                likeness = {"likeness_before": before, "likeness_after": attempt.likeness}
                step = Step(name=rung.name, kind="rung", reason=rung.said(raised), **likeness)
        steps.append(step)
        note(step)
    return Climb(best, tuple(steps), exhausted=best.likeness < threshold)


def raise_by(rung: Rung, plan: Plan) -> Plan:
    """The plan one rung higher; a rung that changes seeds or sampler is a mistake of its author."""
    raised = rung.raised(plan)
    assert (raised.seeds, raised.sampler) == (plan.seeds, plan.sampler), (
        f"{rung.name} changed seeds or sampler"
    )
    return raised


def number_of(step: Step) -> int:
    """1 of "1 reference"; 0 of a step that is no rung's."""
    found = re.match(r"(\d) ", step.name)
    return int(found[1]) if found else 0


def mattering(missing: Sequence[Lack], climbed: Sequence[Step], reached: int) -> list[Lack]:
    """Of what is missing, what a climb up to the rung ``reached`` missed: a rung that nothing else
    climbed, and what the rungs that draw faces did without."""
    there = {number_of(step) for step in climbed if step.kind == "rung"}
    found = []
    for each in missing:
        rung = re.match(r"rung (\d)", each.what)
        wanted = int(rung[1]) <= reached and int(rung[1]) not in there if rung else bool({FACE, EDIT} & there)
        found += [each] if wanted else []
    return found
