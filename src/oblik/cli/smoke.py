"""``oblik smoke``: ten pictures, and how the machine bore it.

In: a command line. Out: pictures in ``outputs/smoke``, a report in words and as JSON; exit status 1 when a
picture failed. Knows nothing of plans and engines.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.cli.order import machine_words
from oblik.progress import RichProgress
from oblik.settings import Settings


@click.command()
@click.option(
    "--persona", "slug", help="Use this persona's LoRA.  [nobody: strangers, painted by the bare pack]"
)
@click.option("--quality", help="Quality level or preset.  [standard]")
@click.option("--count", type=click.IntRange(1, 1000), help="That many pictures.  [10]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder.  [outputs/smoke]")
@click.pass_context
def command(
    ctx: click.Context, slug: str | None, quality: str | None, count: int | None, out: Path | None
) -> None:
    """Make ten pictures with one command, and see how the machine bears it.

    One at a time, with the pauses of the quality level. What an earlier smoke test left in the folder is
    removed first, and nothing else. Exits with 1 when a picture failed.
    """
    settings: Settings = ctx.obj
    made = studio.smoke(settings, slug, out=out, quality=quality, count=count, progress=RichProgress())
    report = made.report
    for failure in report.failures:
        click.echo(f"failed: seed {failure.seed}: {failure.message}")
    seconds = [picture.seconds for picture in report.pictures]
    click.secho(report.sentence, bold=True)
    if seconds:
        click.echo(f"first {seconds[0]:.2f} s, fastest {min(seconds):.2f} s, slowest {max(seconds):.2f} s")
    click.echo(machine_words(report))
    click.echo(str(made.folder / "generation_report.json"))
    ctx.exit(0 if report.state == "done" else 1)
