"""``oblik restore``: faces of finished pictures, restored a little.

In: a batch, a file of weights. Out: copies in the gallery, likeness before and after. Knows nothing of
networks.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.progress import RichProgress
from oblik.settings import Settings


@click.command()
@click.argument("batch")
@click.option(
    "--weights", required=True, type=click.Path(path_type=Path), help="The network's weights, which you have."
)
@click.option("--network", type=click.Choice(["gfpgan", "codeformer"]), default="gfpgan", show_default=True)
@click.option(
    "--weight",
    type=click.FloatRange(0, 0.2, min_open=True),
    default=0.1,
    show_default=True,
    help="Share of the restored face.",
)
@click.option(
    "--accept-licence", "accepted", multiple=True, help="Accept a licence that forbids commercial use."
)
@click.option("--persona", "slug", help="Whose batch.  [the active one's]")
@click.pass_obj
def command(
    settings: Settings, batch: str, weights: Path, network: str, weight: float, accepted: tuple[str, ...],
    slug: str | None,
) -> None:  # fmt: skip
    """Restore faces of a BATCH a little, where they passed the likeness check.

    Copies go to restored/BATCH in the gallery and are measured again; what falls below the threshold is not
    kept. Needs `oblik[restore]`. CodeFormer is for non-commercial use only.
    """
    record, folder = studio.restore_faces(
        settings, batch, weights, network=network, weight=weight, accepted=accepted, slug=slug,
        progress=RichProgress(),
    )  # fmt: skip
    done = record.restoration
    if done is not None:
        dropped = f", {done.dropped} dropped" if done.dropped else ""
        click.echo(
            f"{len(record.pictures)} pictures{dropped}: mean likeness {done.likeness_before:.3f} -> "
            f"{done.likeness_after:.3f}, threshold {record.threshold or 0:.3f}"
        )
    click.echo(str(folder))
