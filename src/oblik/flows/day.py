"""What happened on one day: the numbers behind `oblik report`.

In: a home folder and a day. Out: a `DayReport`, gathered from the records in the galleries (and in the
folders that the log names), the acceptance tests of the LoRAs, the reports of orders and the log. Nothing
is measured here, and neither pictures nor prompts are taken over: the report may outlive the person's
files. Knows no HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from oblik.errors import BackendUnavailable, JobCancelled, OblikError, RequestError
from oblik.flows.acceptance import read_acceptance
from oblik.flows.logs import Journal
from oblik.generation.order_report import FILE_NAME as ORDER_REPORT
from oblik.generation.order_report import read_order_report
from oblik.generation.record import FILE_NAME, USUAL, Kind, Record, read_record
from oblik.likeness.gate import MISS
from oblik.paths import Home
from oblik.personas.store import PersonaStore
from oblik.training.artifact import latest_artifact

DAYS = 14
"""So many days the trend looks back."""
REFUSALS = {error.code for error in (RequestError, *RequestError.__subclasses__(), BackendUnavailable)}
"""Codes of what was not begun: a wish that cannot be met as asked, an extra or a file that is missing."""
What = Literal["failure", "refusal", "stop"]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PersonaDay(_Plain):
    """One person's pictures. ``scores`` are in the order they were made, None where no face was found."""

    persona: str
    batches: int
    pictures: int
    scores: list[float | None]
    mean_likeness: float | None
    recognised: int
    threshold: float | None
    reliable: int
    switches: int
    rungs: dict[str, int]
    degradations: dict[str, int]
    lacks: dict[str, int]
    flags: int
    lora: str | None
    accepted: bool | None
    acceptance: str


class Trouble(_Plain):
    """An operation that did not end well, or pictures that failed, and how often. A refusal is no failure:
    something asked for cannot be, or an extra is missing. A stop is somebody's wish."""

    kind: What
    what: str
    level: str
    code: str
    times: int


class TrendPoint(_Plain):
    """All persons together on one day."""

    day: date
    pictures: int
    mean_likeness: float | None


class DayReport(_Plain):
    """One day. ``hottest_c`` is of the orders of the day."""

    day: date
    personas: list[PersonaDay]
    troubles: list[Trouble]
    operations: dict[str, int]
    hottest_c: float | None
    trend: list[TrendPoint]

    @property
    def pictures(self) -> int:
        return sum(entry.pictures for entry in self.personas)

    @property
    def mean_likeness(self) -> float | None:
        return mean_of([score for entry in self.personas for score in entry.scores])

    @property
    def switches(self) -> int:
        return sum(entry.switches for entry in self.personas)

    @property
    def degradations(self) -> int:
        return sum(sum(entry.degradations.values()) for entry in self.personas)

    @property
    def flags(self) -> int:
        return sum(entry.flags for entry in self.personas)

    @property
    def failures(self) -> int:
        return self._times("failure")

    @property
    def refusals(self) -> int:
        return self._times("refusal")

    @property
    def stops(self) -> int:
        return self._times("stop")

    def _times(self, kind: What) -> int:
        return sum(trouble.times for trouble in self.troubles if trouble.kind == kind)


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
    records = list(_records(places, first, until, triggers))
    today = [record for record in records if record.started_at >= since]
    orders = list(_orders(places, since, until))
    failed = Counter(failure.code for report in orders for failure in report.failures)
    return DayReport(
        day=day,
        personas=[_person(home, name, today) for name in slugs],
        troubles=[*_troubles(of_day), *(_failed(code, times) for code, times in sorted(failed.items()))],
        operations=dict(Counter(line["what"] for line in of_day if line.get("outcome") == "done")),
        hottest_c=max((r.machine.hottest_c for r in orders if r.machine.hottest_c is not None), default=None),
        trend=_trend(records, day),
    )


def mean_of(scores: Sequence[float | None]) -> float | None:
    """Mean of likeness scores, a picture without a face counting as a miss; None of nothing."""
    values = [MISS if score is None else score for score in scores]
    return sum(values) / len(values) if values else None


def switched(record: Record) -> bool:
    """Whether the reliable mode came in by itself: fast pictures climbed, or the LoRA's test called for it."""
    climbed = record.plan.mode == "reliable" or any(step.kind == "rung" for step in record.steps)
    usual = any(step.name == USUAL for step in record.steps)
    return usual or (record.asked.mode == "fast" and climbed)


def _records(
    places: Sequence[Path], since: datetime, until: datetime, triggers: Mapping[str, str]
) -> Iterator[Record]:
    """Records of these days, oldest first. A file that was not touched since then is not opened.

    Pictures without the token or the LoRA, made to compare with, are not pictures of the person.
    """
    files = {
        file.resolve()
        for place in places if place.is_dir()
        for file in place.rglob(FILE_NAME)
        if not any(part.startswith(".") for part in file.relative_to(place).parts)  # attempts of a climb
    }  # fmt: skip
    found = []
    for file in sorted(files):
        if file.stat().st_mtime < since.timestamp():
            continue
        try:
            record = read_record(file)
        except OblikError:
            continue
        trigger = triggers.get(record.plan.persona or "")
        shown = trigger is not None and trigger in record.plan.prompt and record.plan.lora_scale > 0
        if shown and since <= record.started_at < until:
            found.append(record)
    yield from sorted(found, key=lambda record: record.started_at)


def _orders(places: Sequence[Path], since: datetime, until: datetime) -> Iterator[Any]:
    files = {file.resolve() for place in places if place.is_dir() for file in place.rglob(ORDER_REPORT)}
    for file in sorted(files):
        try:
            report = read_order_report(file.parent)
        except OblikError:
            continue
        if report is not None and since <= report.started_at < until:
            yield report


def _person(home: Home, slug: str, records: Sequence[Record]) -> PersonaDay:
    own = [record for record in records if record.plan.persona == slug]
    pictures = [picture for record in own for picture in record.pictures]
    scores = [picture.likeness for picture in pictures if picture.face_found is not None]
    recognised = sum(
        picture.likeness is not None and record.threshold is not None and picture.likeness >= record.threshold
        for record in own
        for picture in record.pictures
    )
    lora, accepted, words = _acceptance(home, slug)
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
        lora=lora,
        accepted=accepted,
        acceptance=words,
    )


def _steps(records: Sequence[Record], kind: Kind) -> dict[str, int]:
    """How often steps of a kind stand in these records, by name."""
    return dict(Counter(step.name for record in records for step in record.steps if step.kind == kind))


def _acceptance(home: Home, slug: str) -> tuple[str | None, bool | None, str]:
    """The LoRA in use, whether it was accepted, and the line of its test."""
    loras = home.persona(slug).loras
    try:
        version = latest_artifact(loras)
    except OblikError:
        return None, None, "no LoRA yet"
    try:
        found = read_acceptance(loras / version)
    except OblikError:
        return version, None, "not tested yet: oblik likeness accept"
    return version, found.accepted, found.line


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
