"""``oblik audit``: who did what with which persona, and whether the log was tampered with.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oblik.settings import Settings


@click.group(name="audit")
def command() -> None:
    """Show and verify the log of what was done with whom."""


@command.command()
@click.option("--persona", "slug", help="Only what concerns this persona, a deleted one too.")
@click.pass_obj
def show(settings: Settings, slug: str | None) -> None:
    """Print the log, oldest line first."""
    from oblik import studio

    for line in studio.read_audit(settings, slug or settings.persona):
        said = " ".join(f"{key}={value}" for key, value in line.details.items())
        consent = f"consent {line.consent[:12]}" if line.consent else ""
        about = f"{line.persona or '-':<20} {consent:<20}"
        click.echo(f"{line.n:>5}  {line.time}  {line.who:<12} {line.what:<16} {about} {said}")


@command.command()
@click.option("--noted", metavar="HASH", help="The last hash of an earlier time, which you kept elsewhere.")
@click.pass_context
def verify(ctx: click.Context, noted: str | None) -> None:
    """Follow the chain of hashes; exit status 2 when a line was changed, removed, moved or added."""
    from oblik import studio

    verdict = studio.verify_audit(ctx.obj, noted)
    for text in verdict.notes:
        click.echo(f"note: {text}")
    for text in verdict.problems:
        click.secho(f"broken: {text}", fg="red", err=True)
    if not verdict.intact:
        ctx.exit(2)
    click.echo(f"intact: {verdict.lines} lines, the last is {verdict.last}")
