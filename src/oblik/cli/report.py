"""``oblik report``: what happened on a day.

In: a command line. Out: the day in a sentence, its page and its JSON. Knows nothing of charts.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from oblik import studio
from oblik.settings import Settings


@click.command()
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), metavar="YYYY-MM-DD", help="Which day.  [today]")
@click.option("--persona", "slug", help="Only this persona.  [everybody]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder.  [reports in the home]"
)
@click.option("--open", "opened", is_flag=True, help="Open the page in the browser.")
@click.option("--due", is_flag=True, help="Every day of the last two weeks that has none yet, without today.")
@click.option("--schedule", is_flag=True, help="Have --due run every night, by the system's own timer.")
@click.option("--unschedule", is_flag=True, help="Take --schedule back.")
@click.pass_obj
def command(
    settings: Settings, /, day: datetime | None, slug: str | None, out: Path | None, opened: bool, due: bool,
    schedule: bool, unschedule: bool,
) -> None:  # fmt: skip
    """Report a day: likeness, mode switches, failures, acceptance.

    A day is one of the local time zone. The page holds neither pictures nor prompts.
    """
    if due + schedule + unschedule + any((day, slug, out, opened)) > 1:
        raise click.UsageError("--due, --schedule and --unschedule stand alone")
    if schedule or unschedule:
        click.echo("\n".join(studio.schedule_report(settings, off=unschedule)))
        return
    if due:
        for written in studio.report_due(settings):
            click.echo(f"{written.report.day}: {written.sentence}\n{written.files[0]}")
        return
    found = studio.report_day(settings, day.date() if day else None, slug, out=out)
    for entry in found.report.personas:
        click.echo(f"{entry.persona}: {entry.acceptance}")
    click.secho(f"{found.report.day}: {found.sentence}", bold=True)
    for path in found.files:
        click.echo(str(path))
    if opened:
        click.launch(found.files[0].absolute().as_uri())
