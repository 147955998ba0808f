"""The page of one day: a single HTML file with its charts, readable without Oblik and without a network.

In: a `DayReport`. Out: ``reports/2026-01-02.html`` and ``.json`` in the home folder. The same day gives the
same bytes. Knows nothing of where the numbers come from.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from oblik import __version__
from oblik.flows.charts import Marks, climb_chart, day_strip, trend_chart
from oblik.flows.day_report import Ascent, DayReport
from oblik.flows.report import TEMPLATES
from oblik.generation.record import FLAG
from oblik.likeness.gate import MISS
from oblik.paths import Home, atomic_write

FOLDER = "reports"
TROUBLES = (
    ("failure", "Failed: the machine could not do it"),
    ("refusal", "Refused: it cannot be as asked, or something is not installed"),
    ("stop", "Stopped by somebody"),
)


def write_day(report: DayReport, home: Home, out: Path | None = None, slug: str | None = None) -> list[Path]:
    """Write page and JSON; return their paths, the page first."""
    first = page_of(home, report.day, out, slug)
    files = {first: page(report), first.with_suffix(".json"): summary(report)}
    for path, text in files.items():
        atomic_write(path, text)
    return list(files)


def page_of(home: Home, day: date, out: Path | None = None, slug: str | None = None) -> Path:
    """Where the page of a day lies, or will lie."""
    return (out or home.root / FOLDER) / f"{day}{f'-{slug}' if slug else ''}.html"


def is_whole(home: Home, day: date) -> bool:
    """Whether a day has a page that was written after the day had ended."""
    path = page_of(home, day)
    return path.is_file() and datetime.fromtimestamp(path.stat().st_mtime).astimezone().date() > day


def page(report: DayReport) -> str:
    """The day as HTML."""
    measured = [entry for entry in report.personas if entry.scores]
    rows = [
        Marks(entry.persona, "", tuple(MISS if score is None else score for score in entry.scores))
        for entry in measured
    ]
    words = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return words.get_template("day.html").render(
        report=report,
        sentence=sentence(report),
        flag=FLAG,
        way=way,
        troubles=[pair for pair in TROUBLES if any(t.kind == pair[0] for t in report.troubles)],
        strip=day_strip(rows, [entry.threshold for entry in measured]) if rows else "",
        trend=trend_chart(
            [f"{point.day:%d.%m.}" for point in report.trend],
            [point.pictures for point in report.trend],
            [point.mean_likeness for point in report.trend],
        ),
        version=__version__,
    )


def way(climb: Ascent) -> str:
    """The chart of a climb; nothing where no rung was measured."""
    if not climb.likeness:
        return ""
    rungs = [f"rung {rung.name[0]}" for rung in climb.rungs if rung.after is not None]
    return climb_chart(
        climb.likeness, [f"{climb.asked}, first" if climb.asked else "", *rungs], climb.threshold
    )


def summary(report: DayReport) -> str:
    """The day as JSON: the report and its sums."""
    sums = (
        "pictures", "mean_likeness", "switches", "degradations", "flags", "failures", "refusals", "stops",
    )  # fmt: skip
    values = {name: getattr(report, name) for name in sums} | report.model_dump(mode="json")
    return json.dumps(values, indent=2) + "\n"


def sentence(report: DayReport) -> str:
    """The day in one line."""
    if not (report.pictures or report.troubles):
        return "nothing was made"
    mean = "not measured" if report.mean_likeness is None else f"mean likeness {report.mean_likeness:.2f}"
    parts = [
        f"mode switches {report.switches}", f"degradations {report.degradations}",
        f"failures {report.failures}", f"refusals {report.refusals}",
    ]  # fmt: skip
    parts += [f"stopped {report.stops}"] if report.stops else []
    parts += [f"flags {report.flags} ({FLAG})"] if report.flags else []
    return f"{report.pictures} pictures, {mean}; {', '.join(parts)}"
