"""``oblik replay``: the same pictures again, and whether they are the same.

In: a record. Out: how many pictures have the same pixels, and what in the surroundings changed.
Knows nothing of tensors.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.progress import RichProgress
from oblik.settings import Settings


@click.command()
@click.argument("record", type=click.Path(exists=True, path_type=Path))
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the new pictures here.")
@click.pass_context
def command(ctx: click.Context, record: Path, keep: Path | None) -> None:
    """Run a record.json again, exactly as it ran.

    RECORD is the file or its folder. Exits with 1 when a picture came out different.
    """
    settings: Settings = ctx.obj
    found = studio.replay(settings, record, keep=keep, progress=RichProgress())
    click.echo(f"{sum(found.same)} of {len(found.same)} pictures have identical pixels")
    for difference in found.differences:
        click.echo(f"changed: {difference}")
    if not (found.identical or found.differences):
        click.echo(
            "changed: nothing that a record knows; files that were altered in place are found by: "
            f"oblik pack verify {found.record.plan.pack}"
        )
    if keep:
        click.echo(str(keep))
    ctx.exit(0 if found.identical else 1)
