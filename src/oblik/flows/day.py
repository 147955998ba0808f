"""What happened on one day: the numbers behind `oblik report`.

In: a home folder and a day. Out: a `DayReport`, gathered from the records in the galleries (and in the
folders that the log names), the acceptance tests of the LoRAs, the reports of orders and the log. Nothing
is measured here, and neither pictures nor prompts are taken over: the report may outlive the person's
files. Knows no HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from oblik.errors import BackendUnavailable, JobCancelled, OblikError, RequestError
from oblik.flows.day_report import Ascent, DayReport, PersonaDay, RungDay, TrendPoint, Trouble, What, mean_of
from oblik.flows.logs import Journal
from oblik.generation.order_report import FILE_NAME as ORDER_REPORT
from oblik.generation.order_report import read_order_report
from oblik.generation.record import FILE_NAME, USUAL, Kind, Record, read_record
from oblik.likeness.acceptance import FAST, RELIABLE, read_acceptance
from oblik.paths import Home
from oblik.personas.store import PersonaStore
from oblik.training.artifact import latest_artifact

DAYS = 14
"""So many days the trend looks back."""
_REFUSED: tuple[type[OblikError], ...] = (RequestError, *RequestError.__subclasses__(), BackendUnavailable)
REFUSALS = {error.code for error in _REFUSED}
"""Codes of what was not begun: a wish that cannot be met as asked, an extra or a file that is missing."""


def gather(home: Home, day: date, slug: str | None = None) -> DayReport:
    """The day ``day`` of the local time zone, for everybody or for one persona."""
    since = datetime.combine(day, time()).astimezone()
    until = datetime.combine(day + timedelta(days=1), time()).astimezone()
    first = datetime.combine(day - timedelta(days=DAYS - 1), time()).astimezone()
    lines = [line for line in Journal(home).lines(first, until) if slug in (None, line.get("persona"))]
    of_day = [line for line in lines if line["time"] >= since]
    store = PersonaStore(home)
    people = [store.get(slug)] if slug else store.list()
    triggers = {persona.slug: persona.trigger for persona in people}
    slugs = list(triggers)
    places = [home.persona(name).gallery for name in slugs]
    places += [Path(line["folder"]) for line in lines if "folder" in line]
    batches = list(_batches(places, first, until, triggers))
    today = [batch for batch in batches if batch.record.started_at >= since]
    orders = list(_orders(places, since, until))
    failed = Counter(failure.code for report in orders for failure in report.failures)
    return DayReport(
        day=day,
        personas=[_person(home, name, today) for name in slugs],
        troubles=[*_troubles(of_day), *(_failed(code, times) for code, times in sorted(failed.items()))],
        operations=dict(Counter(line["what"] for line in of_day if line.get("outcome") == "done")),
        hottest_c=max((r.machine.hottest_c for r in orders if r.machine.hottest_c is not None), default=None),
        trend=_trend([batch.record for batch in batches], day),
    )


def switched(record: Record) -> bool:
    """Whether the reliable mode came in by itself: fast pictures climbed, or the LoRA's test called."""
    climbed = record.plan.mode == "reliable" or any(step.kind == "rung" for step in record.steps)
    usual = any(step.name == USUAL for step in record.steps)
    return usual or (record.asked.mode == "fast" and climbed)


class _Batch(NamedTuple):
    """A record, and its folder as `oblik gallery` calls it."""

    name: str
    record: Record


def _batches(
    places: Sequence[Path], since: datetime, until: datetime, triggers: Mapping[str, str]
) -> Iterator[_Batch]:
    """Batches of these days, oldest first. A file that was not touched since then is not opened.

    Pictures without the token or the LoRA, made to compare with, are not pictures of the person.
    """
    names = {
        file.resolve(): file.parent.relative_to(place).as_posix()
        for place in reversed(places) if place.is_dir()
        for file in place.rglob(FILE_NAME)
        if not any(part.startswith(".") for part in file.relative_to(place).parts)  # attempts of a climb
    }  # fmt: skip
    found = []
    for file, name in sorted(names.items()):
        if file.stat().st_mtime < since.timestamp():
            continue
        try:
            record = read_record(file)
        except OblikError:
            continue
        trigger = triggers.get(record.plan.persona or "")
        shown = trigger is not None and trigger in record.plan.prompt and record.plan.lora_scale > 0
        if shown and since <= record.started_at < until:
            found.append(_Batch(name, record))
    yield from sorted(found, key=lambda batch: batch.record.started_at)


def _orders(places: Sequence[Path], since: datetime, until: datetime) -> Iterator[Any]:
    files = {file.resolve() for place in places if place.is_dir() for file in place.rglob(ORDER_REPORT)}
    for file in sorted(files):
        try:
            report = read_order_report(file.parent)
        except OblikError:
            continue
        if report is not None and since <= report.started_at < until:
            yield report


def _person(home: Home, slug: str, batches: Sequence[_Batch]) -> PersonaDay:
    mine = [batch for batch in batches if batch.record.plan.persona == slug]
    own = [batch.record for batch in mine]
    pictures = [picture for record in own for picture in record.pictures]
    scores = [picture.likeness for picture in pictures if picture.face_found is not None]
    recognised = sum(
        picture.likeness is not None and record.threshold is not None and picture.likeness >= record.threshold
        for record in own
        for picture in record.pictures
    )
    return PersonaDay(
        persona=slug,
        batches=len(own),
        pictures=len(pictures),
        scores=scores,
        mean_likeness=mean_of(scores),
        recognised=recognised,
        threshold=next((r.threshold for r in reversed(own) if r.threshold is not None), None),
        reliable=sum(record.plan.mode == "reliable" for record in own),
        switches=sum(switched(record) for record in own),
        rungs=_steps(own, "rung"),
        degradations=_steps(own, "degradation"),
        lacks=dict(Counter(step.reason for record in own for step in record.steps if step.kind == "lack")),
        flags=sum(_steps(own, "flag").values()),
        climbs=[climb for batch in mine if (climb := _climb(batch))],
        **_acceptance(home, slug),
    )


def _steps(records: Sequence[Record], kind: Kind) -> dict[str, int]:
    """How often steps of a kind stand in these records, by name."""
    return dict(Counter(step.name for record in records for step in record.steps if step.kind == kind))


def _climb(batch: _Batch) -> Ascent | None:
    """The way up of a batch that climbed; None of one that did not have to, or was not measured."""
    steps = batch.record.steps
    if not any(step.kind == "flag" or step.likeness_after is not None for step in steps):
        return None
    return Ascent(
        batch=batch.name,
        at=batch.record.started_at,
        asked=batch.record.asked.mode,
        usual=next((step.reason for step in steps if step.name == USUAL), ""),
        threshold=batch.record.threshold,
        rungs=[
            RungDay(name=step.name, reason=step.reason, before=step.likeness_before,
                    after=step.likeness_after, guards=step.guards)
            for step in steps if step.kind == "rung"
        ],
        lacks=[step.reason for step in steps if step.kind == "lack"],
        flag=next((step.reason for step in steps if step.kind == "flag"), ""),
        advice=batch.record.advice,
    )  # fmt: skip


def _acceptance(home: Home, slug: str) -> dict[str, Any]:
    """The LoRA in use, whether it was accepted, the line of its test, and what that calls for."""
    unknown: dict[str, Any] = {"lora": None, "accepted": None, "profile": FAST, "advice": []}
    loras = home.persona(slug).loras
    try:
        version = latest_artifact(loras)
    except OblikError:
        return unknown | {"acceptance": "no LoRA yet"}
    try:
        found = read_acceptance(loras / version)
    except OblikError:
        return unknown | {"lora": version, "acceptance": "not tested yet: oblik likeness accept"}
    words = found.line
    with suppress(OblikError):
        words += f"; in the reliable mode {read_acceptance(loras / version, RELIABLE).line}"
    return {
        "lora": version, "accepted": found.accepted, "acceptance": words, "profile": found.profile,
        "advice": [advice.text for advice in found.advice],
    }  # fmt: skip


def _troubles(lines: Sequence[dict[str, Any]]) -> list[Trouble]:
    counted = Counter(
        (str(line["what"]), str(line["level"]), str(line.get("error", line.get("outcome", ""))))
        for line in lines
        if line.get("level") in ("warning", "error")
    )
    return [
        Trouble(kind=_what(code), what=what, level=level, code=code, times=times)
        for (what, level, code), times in sorted(counted.items())
    ]


def _failed(code: str, times: int) -> Trouble:
    return Trouble(kind=_what(code), what="pictures of orders", level="error", code=code, times=times)


def _what(code: str) -> What:
    """What an operation that did not end well is, by its error's code (a stop from the keyboard has none)."""
    if code in REFUSALS:
        return "refusal"
    return "stop" if code in ("stopped", JobCancelled.code) else "failure"


def _trend(records: Sequence[Record], day: date) -> list[TrendPoint]:
    points = []
    for back in reversed(range(DAYS)):
        that = day - timedelta(days=back)
        pictures = [p for r in records if r.started_at.astimezone().date() == that for p in r.pictures]
        scores = [picture.likeness for picture in pictures if picture.face_found is not None]
        points.append(TrendPoint(day=that, pictures=len(pictures), mean_likeness=mean_of(scores)))
    return points
