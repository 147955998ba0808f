"""``oblik likeness``: is it them?

In: a folder of pictures. Out: the verdict in a sentence; scores, ROC and histogram beside the
pictures. A low likeness is a result and exits with 0. Knows nothing of faces and tensors.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.progress import RichProgress
from oblik.settings import Settings


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--persona", "slug", help="Persona to compare with.  [the active one]")
@click.option(
    "--without-token",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Pictures of the same prompts and seeds made with --no-token: measures bleed.",
)
@click.pass_obj
def command(settings: Settings, folder: Path | None, slug: str | None, without_token: Path | None) -> None:
    """Calibrate the threshold and measure how alike pictures are.

    FOLDER is a batch or any folder of pictures; without it the newest batch is measured. The threshold
    is the score that one stranger in a hundred would reach.
    """
    found = studio.measure_likeness(
        settings, folder, slug, without_token=without_token, progress=RichProgress()
    )
    report = found.report
    for score in report.scores:
        text = "no face" if score.centroid is None else f"{score.centroid:.2f}"
        click.echo(f"  {text:>7}  {score.name}")
    click.secho(report.sentence, bold=True)
    click.echo(report.acceptance)
    for advice in report.advice:
        click.echo(f"advice: {advice.text}")
    click.echo(f"{found.folder / 'scores.png'}\n{found.folder / 'roc.png'}")
