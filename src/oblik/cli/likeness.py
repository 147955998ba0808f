"""``oblik likeness``: is it them?

In: a folder of pictures, or a LoRA to test. Out: the verdict in a sentence; scores, ROC and histogram beside
the pictures. A low likeness is a result and exits with 0. Knows nothing of faces and tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oblik import studio
from oblik.progress import RichProgress
from oblik.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oblik.likeness.findings import Advice

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Calibrate the threshold and measure how alike pictures are.

    Without a sub-command the newest batch is measured. The threshold is the score that one stranger in a
    hundred would reach.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(measure)


@command.command()
@click.argument("folder", type=FOLDER, required=False)
@click.option("--persona", "slug", help="Persona to compare with.  [the active one]")
@click.option(
    "--without-token",
    type=FOLDER,
    help="Pictures of the same prompts and seeds made with --no-token: measures bleed.",
)
@click.pass_obj
def measure(
    settings: Settings,
    folder: Path | None = None,
    slug: str | None = None,
    without_token: Path | None = None,
) -> None:
    """Measure a batch or any folder of pictures, the newest batch without FOLDER."""
    found = studio.measure_likeness(
        settings, folder, slug, without_token=without_token, progress=RichProgress()
    )
    report = found.report
    copies = report.copying.suspects if report.copying else []
    for score in report.scores:
        line = score_line(score.name, score.centroid, report.calibration.threshold, score.name in copies)
        click.echo(line)
    click.secho(report.sentence, bold=True)
    click.echo(report.acceptance)
    _advise(report.advice)
    click.echo(f"{found.folder / 'scores.png'}\n{found.folder / 'roc.png'}")


@command.command()
@click.option("--persona", "slug", help="Persona whose LoRA is tested.  [the active one]")
@click.option("--version", metavar="VERSION", help="Version of the LoRA.  [the one in use]")
@click.option(
    "--images",
    type=click.IntRange(12, 2400),
    default=12,
    show_default=True,
    help="Test pictures, spread over 12 conditions; 200 are needed to claim anything.",
)
@click.option(
    "--mode",
    type=click.Choice(["fast", "reliable"]),
    default="fast",
    show_default=True,
    help="Mode of the pictures; reliable takes the first rung at once.",
)
@click.pass_obj
def accept(settings: Settings, slug: str | None, version: str | None, images: int, mode: str) -> None:
    """Test a LoRA with pictures under hard conditions, and say whether it is accepted.

    Accepted is a LoRA when at least 90 % of its pictures reach the threshold, proven by the lower end of the
    interval. The result is kept with the LoRA, apart for each mode; presets of your own called fast or
    reliable count.
    """
    tested = studio.accept(settings, slug, version=version, images=images, mode=mode, progress=RichProgress())
    found = tested.acceptance
    for row in found.conditions:
        scores = " ".join("no face" if score is None else f"{score:.2f}" for score in row.likeness[:8])
        more = " ..." if len(row.likeness) > 8 else ""
        click.echo(f"  {row.recognised:>3} of {len(row.likeness):<3} {row.name:<14} {scores}{more}")
    click.secho(found.line if mode == "fast" else f"in the reliable mode: {found.line}", bold=True)
    click.echo(f"{found.sentence}\n{found.photos}")
    if mode == "fast" and found.profile != "fast":
        click.echo(
            f"mode: pictures with {found.version} are {found.profile} from now on, unless --mode is given"
        )
    _advise(found.advice)
    click.echo(str(tested.folder / f"acceptance{'' if mode == 'fast' else '-reliable'}.png"))


@command.command()
@click.argument("folder", type=FOLDER, required=False)
@click.option(
    "--generate",
    "count",
    type=click.IntRange(1, 5000),
    metavar="N",
    help="Let the pack paint N strangers instead, without any token.",
)
@click.pass_obj
def impostors(settings: Settings, folder: Path | None, count: int | None) -> None:
    """Calibrate with other people's faces from now on.

    FOLDER holds a sub-folder for each person; a picture that lies in none is a person of its own. Only
    embeddings are kept, and where they come from. A claim needs 300 people and 3,000 scores: each picture is
    one, so N is 3,100 for strangers, some of whom will have no face.
    """
    if (folder is None) == (count is None):
        raise click.UsageError("give either FOLDER or --generate N")
    found = studio.gather_impostors(settings, folder, count=count or 0, progress=RichProgress())
    click.echo(found.impostors.source)
    if found.misses:
        click.echo(f"{found.misses} files without a face, or that cannot be read")
    if found.separation and found.closest:
        click.echo(found.separation.sentence + f" ({' and '.join(found.closest)})")
    click.echo(str(found.path))


def score_line(name: str, likeness: float | None, threshold: float, copy: bool) -> str:
    """A picture's likeness (None: no face), its name, whether the threshold is reached, and whether it
    is a ``copy``."""
    score = "no face" if likeness is None else f"{likeness:.3f}"
    reached = likeness is not None and likeness >= threshold
    said = "reached" if reached else f"below {threshold:.3f}"
    return f"  {score:>7}  {name}  {said}{', too close to one training photo' if copy else ''}"


def _advise(advice: Sequence[Advice]) -> None:
    for each in advice:
        click.echo(f"advice: {each.text}")
