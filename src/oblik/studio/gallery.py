"""A persona's pictures as they lie in the gallery, and the report of a day.

In: settings and plain values. Out: batches, pages, copies and where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oblik.studio.house import face_stack_of, home_of, labels_of, now, pack_of
from oblik.studio.operations import operation
from oblik.studio.people import show_persona

if TYPE_CHECKING:
    from oblik.flows.day_report import DayReport
    from oblik.flows.gallery import Batch
    from oblik.generation.record import Record
    from oblik.paths import Home
    from oblik.progress import Progress
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


def restore_faces(
    settings: Settings, name: str, weights: Path, *, network: str, weight: float,
    accepted: Sequence[str] = (), slug: str | None = None, progress: Progress | None = None,
) -> tuple[Record, Path]:  # fmt: skip
    """Restore the faces of a batch a little, where they passed the likeness check, and measure them again.

    Raises ConsentError, NotFound, Conflict, InvalidInput (see `oblik.flows.restore`), BackendUnavailable.
    """
    from oblik.flows.calibrate import Ruler, dataset_of, open_ruler
    from oblik.flows.gallery import chosen
    from oblik.flows.restore import Means, restore
    from oblik.generation.restoration import open_restorer
    from oblik.paths import sha256_file
    from oblik.progress import SilentProgress

    persona, home = show_persona(settings, slug), home_of(settings)
    with operation(settings, "restore", persona.slug) as details:
        restorer = open_restorer(network, weights, device=settings.device, accepted=accepted)
        (batch,) = chosen(home.persona(persona.slug), [name])[:1]

        def ruler() -> Ruler:
            pack = pack_of(settings)
            dataset = dataset_of(persona, batch.folder, home)
            stack = face_stack_of(pack, settings)
            return open_ruler(persona, home=home, pack=pack, stack=stack, dataset=dataset)

        record, folder = restore(
            persona, batch, Means(network, sha256_file(weights), weight), restorer=restorer,
            ruler=ruler, labels=labels_of(settings), home=home, progress=progress or SilentProgress(),
            now=now(),
        )  # fmt: skip
        details.update(pictures=len(record.pictures), batch=batch.name, network=network)
    return record, folder


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


def report_due(settings: Settings) -> list[Reported]:
    """Write the reports of the last days that have none yet, or one from before they had ended, and on which
    something happened; then remove logs that have been kept long enough. Today is left out."""
    from oblik.flows.day import DAYS
    from oblik.flows.day_page import is_whole
    from oblik.flows.logs import Journal

    home, today = home_of(settings), date.today()
    days = [today - timedelta(days=back) for back in range(DAYS - 1, 0, -1)]
    found = [made for day in days if not is_whole(home, day) and (made := _report(home, day))]
    Journal(home, settings.log_days, settings.log_mib << 20).retain(today)
    return found


def schedule_report(settings: Settings, *, off: bool = False) -> list[str]:
    """Have `report_due` run every night, or no more; what was done or is to be typed, line by line."""
    from oblik.flows.schedule import Scheduler

    return Scheduler().unschedule() if off else Scheduler().schedule(home_of(settings).root)


def _report(home: Home, day: date) -> Reported | None:
    """The report of a day; None when nothing happened."""
    from oblik.flows.day import gather
    from oblik.flows.day_page import sentence, write_day

    report = gather(home, day)
    if not (report.pictures or report.failures or report.operations):
        return None
    return Reported(report, sentence(report), write_day(report, home))
