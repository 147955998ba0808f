"""A persona's pictures as they lie in the gallery, and the report of a day.

In: settings and plain values. Out: batches, pages, copies and where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oblik.studio.house import home_of
from oblik.studio.operations import operation
from oblik.studio.people import show_persona

if TYPE_CHECKING:
    from oblik.flows.day import DayReport
    from oblik.flows.gallery import Batch
    from oblik.settings import Settings


class Reported(NamedTuple):
    """A day, in one line, and its page and JSON."""

    report: DayReport
    sentence: str
    files: list[Path]


def list_gallery(settings: Settings, slug: str | None = None) -> list[Batch]:
    """Every batch of the persona, newest first."""
    from oblik.flows.gallery import batches

    return batches(home_of(settings).persona(show_persona(settings, slug).slug))


def draw_gallery(settings: Settings, slug: str | None = None) -> Path:
    """Write the gallery's page with its previews, and return it. Raises NotFound when it is empty."""
    from oblik.flows.gallery import draw

    persona = show_persona(settings, slug)
    return draw(home_of(settings).persona(persona.slug), persona.slug)


def export_gallery(
    settings: Settings,
    names: Sequence[str],
    destination: Path,
    slug: str | None = None,
    *,
    records: bool = False,
) -> list[Path]:
    """Copy batches to ``destination``. Raises ConsentError, NotFound, and Conflict when files are there."""
    from oblik.flows.gallery import chosen, export

    persona = show_persona(settings, slug)
    with operation(settings, "gallery export", persona.slug) as details:
        found = chosen(home_of(settings).persona(persona.slug), names)
        copies = export(found, destination, records=records)
        details.update(batches=len(found), files=len(copies))
    return copies


def delete_from_gallery(settings: Settings, names: Sequence[str], slug: str | None = None) -> int:
    """Remove batches; returns the number of pictures. No consent is needed for that. Raises NotFound."""
    from oblik.flows.gallery import chosen, delete

    persona = show_persona(settings, slug)
    folders = home_of(settings).persona(persona.slug)
    with operation(settings, "gallery delete", persona.slug) as details:
        found = chosen(folders, names)
        details.update(batches=len(found), pictures=delete(folders, found))
    return int(details["pictures"])


def report_day(
    settings: Settings, day: date | None = None, slug: str | None = None, *, out: Path | None = None
) -> Reported:
    """Write the report of a day (default: today) for everybody, or for one persona."""
    from oblik.errors import InvalidInput
    from oblik.flows.day import gather
    from oblik.flows.day_page import sentence, write_day

    today = date.today()
    day = day or today
    if day > today:
        raise InvalidInput(f"{day} has not come yet", hint="oblik report")
    home = home_of(settings)
    slug = show_persona(settings, slug).slug if slug else None
    report = gather(home, day, slug)
    return Reported(report, sentence(report), write_day(report, home, out, slug))
