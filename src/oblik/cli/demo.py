"""``oblik demo``: everything once, on somebody who does not exist.

In: a folder and a seed. Out: a report page and a line that sums it up. Knows nothing of the stages.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.progress import RichProgress
from oblik.settings import Settings


@click.command()
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True
)
@click.option("--seed", type=click.IntRange(min=0), help="Who sits for the photos.  [900007]")
@click.option("--photos", type=click.IntRange(min=16), help="Photos to shoot.  [48]")
@click.option("--portraits", type=click.IntRange(1, 8), help="Portraits to make.  [8]")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [as the pack advises]")
@click.pass_obj
def command(
    settings: Settings,
    out: Path,
    seed: int | None,
    photos: int | None,
    portraits: int | None,
    steps: int | None,
) -> None:
    """The whole flow on a rendered stranger, ending in a report.

    Shoots photos, curates them, trains a LoRA, makes portraits, measures them. Run again, it does
    only what is not done yet.
    """
    result = studio.run_demo(
        settings, out, seed=seed, photos=photos, portraits=portraits, training={"steps": steps},
        progress=RichProgress(),
    )  # fmt: skip
    if result.reused:
        click.echo(f"already done: {', '.join(name.replace('_', ' ') for name in result.reused)}")
    click.secho(f"\n{result.summary}", bold=True)
    click.echo(f"report: {result.page}")
    click.echo(f'go on:  oblik --home {result.home} generate "on a beach, smiling"')
