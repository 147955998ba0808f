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
from typing import Any

from pydantic import BaseModel, ConfigDict

from oblik.errors import OblikError
from oblik.flows.acceptance import read_acceptance
from oblik.flows.logs import Journal
from oblik.flows.reliable import BY_ITSELF, EXHAUSTED, UNAVAILABLE
from oblik.generation.degrade import DEGRADATIONS, OFFLOAD
from oblik.generation.order_report import FILE_NAME as ORDER_REPORT
from oblik.generation.order_report import read_order_report
from oblik.generation.record import FILE_NAME, Record, Step, read_record
from oblik.likeness.acceptance import FAST
from oblik.likeness.gate import MISS
from oblik.paths import Home
from oblik.personas.store import PersonaStore
from oblik.training.artifact import latest_artifact

DAYS = 14
"""So many days the trend looks back."""
GIVEN_UP = {each.name for each in DEGRADATIONS} | {OFFLOAD}
"""Steps of a record that a shortage of memory made."""


TOLD = (BY_ITSELF, EXHAUSTED, UNAVAILABLE)


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Climbed(_Plain):
    """A batch that rungs were climbed for: where it lies in the gallery, and what each came to, and why."""

    batch: str
    mode: str
    likeness: float | None
    threshold: float | None
    steps: list[Step]


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
    climbs: list[Climbed]
    lora: str | None
    accepted: bool | None
    acceptance: str


class Trouble(_Plain):
    """An operation that did not end well, or pictures that failed, and how often."""

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
    def failures(self) -> int:
        return sum(trouble.times for trouble in self.troubles)


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
    found = dict(_records(places, first, until, triggers))
    records = list(found.values())
    today = {place: record for place, record in found.items() if record.started_at >= since}
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
    """Whether the reliable mode came in by itself: nobody asked for it, and it was."""
    climbed = record.plan.mode != FAST or any(map(is_rung, record.steps))
    return (climbed and record.asked.mode == FAST) or any(step.name == BY_ITSELF for step in record.steps)


def _records(
    places: Sequence[Path], since: datetime, until: datetime, triggers: Mapping[str, str]
) -> Iterator[tuple[Path, Record]]:
    """Folders and records of these days, oldest first. A file that was not touched since then is not opened.

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
            found.append((file.parent, record))
    yield from sorted(found, key=lambda pair: pair[1].started_at)


def _orders(places: Sequence[Path], since: datetime, until: datetime) -> Iterator[Any]:
    files = {file.resolve() for place in places if place.is_dir() for file in place.rglob(ORDER_REPORT)}
    for file in sorted(files):
        try:
            report = read_order_report(file.parent)
        except OblikError:
            continue
        if report is not None and since <= report.started_at < until:
            yield report


def _person(home: Home, slug: str, records: Mapping[Path, Record]) -> PersonaDay:
    places = {place: record for place, record in records.items() if record.plan.persona == slug}
    own = list(places.values())
    pictures = [picture for record in own for picture in record.pictures]
    scores = [picture.likeness for picture in pictures if picture.face_found is not None]
    recognised = sum(
        picture.likeness is not None and record.threshold is not None and picture.likeness >= record.threshold
        for record in own
        for picture in record.pictures
    )
    steps = [step for record in own for step in record.steps]
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
        rungs=dict(Counter(step.name for step in steps if is_rung(step))),
        degradations=dict(Counter(step.name for step in steps if step.name in GIVEN_UP)),
        climbs=[
            _climbed(place, record) for place, record in places.items() if any(map(is_rung, record.steps))
        ],
        lora=lora,
        accepted=accepted,
        acceptance=words,
    )


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
        Trouble(what=what, level=level, code=code, times=times)
        for (what, level, code), times in sorted(counted.items())
    ]


def _failed(code: str, times: int) -> Trouble:
    return Trouble(what="pictures of orders", level="error", code=code, times=times)


def _trend(records: Sequence[Record], day: date) -> list[TrendPoint]:
    points = []
    for back in reversed(range(DAYS)):
        that = day - timedelta(days=back)
        pictures = [p for r in records if r.started_at.astimezone().date() == that for p in r.pictures]
        scores = [picture.likeness for picture in pictures if picture.face_found is not None]
        points.append(TrendPoint(day=that, pictures=len(pictures), mean_likeness=mean_of(scores)))
    return points


def _climbed(place: Path, record: Record) -> Climbed:
    scores = [picture.likeness for picture in record.pictures if picture.face_found is not None]
    return Climbed(
        batch=place.name,
        mode=record.asked.mode,
        likeness=mean_of(scores),
        threshold=record.threshold,
        steps=[step for step in record.steps if is_rung(step) or step.name in TOLD],
    )


def is_rung(step: Step) -> bool:
    """Whether a step is a rung of the ladder: `oblik.generation.ladder` numbers them."""
    return step.name[:1].isdigit()
