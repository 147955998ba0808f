"""``oblik gallery``: the pictures that were made of a persona.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.settings import Settings


@click.group()
def command() -> None:
    """List, open, export and delete the pictures of a persona."""


@command.command("list")
@click.option("--persona", "slug", help="Whose pictures.  [the active persona's]")
@click.pass_obj
def list_(settings: Settings, slug: str | None) -> None:
    """List every batch, newest first."""
    found = studio.list_gallery(settings, slug)
    for batch in found:
        record, likeness = batch.record, batch.likeness
        threshold = "" if record.threshold is None else f" (threshold {record.threshold:.2f})"
        measured = "not measured" if likeness is None else f"likeness {likeness:.2f}{threshold}"
        click.echo(
            f"{batch.name:<24} {record.started_at.astimezone():%Y-%m-%d %H:%M}  "
            f"{len(batch.pictures):>3} pictures, {measured}"
        )
        click.echo(f"{'':<24} {record.plan.prompt}")
    if not found:
        click.echo('none yet: oblik generate "in a park"')


@command.command("open")
@click.option("--persona", "slug", help="Whose pictures.  [the active persona's]")
@click.option("--no-browser", is_flag=True, help="Only write the page and print where it lies.")
@click.pass_obj
def open_(settings: Settings, slug: str | None, no_browser: bool) -> None:
    """Open a page of all batches with previews in the browser."""
    page = studio.draw_gallery(settings, slug)
    click.echo(str(page))
    if not no_browser:
        click.launch(page.as_uri())


@command.command()
@click.argument("batches", nargs=-1, required=True)
@click.option(
    "--to", "destination", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder."
)
@click.option("--persona", "slug", help="Whose pictures.  [the active persona's]")
@click.option("--records", is_flag=True, help="The records too: they hold the prompts.")
@click.pass_obj
def export(
    settings: Settings, batches: tuple[str, ...], destination: Path, slug: str | None, records: bool
) -> None:
    """Copy BATCHES, such as v003 or orders/spring, to a folder."""
    copies = studio.export_gallery(settings, batches, destination, slug, records=records)
    click.echo(f"{len(copies)} files in {destination}")


@command.command()
@click.argument("batches", nargs=-1, required=True)
@click.option("--persona", "slug", help="Whose pictures.  [the active persona's]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(settings: Settings, batches: tuple[str, ...], slug: str | None, yes: bool) -> None:
    """Delete BATCHES, such as v003 or orders/spring, for good."""
    if not yes:
        click.confirm(f"delete {', '.join(batches)} for good?", abort=True)
    click.echo(f"{studio.delete_from_gallery(settings, batches, slug)} pictures deleted")
