"""``oblik dataset``: from a folder of photos to a dataset one can trust.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oblik.datasets.manifest import Dataset
    from oblik.settings import Settings


@click.group(name="dataset")
def command() -> None:
    """Turn a folder of photos into a curated, captioned dataset."""


@command.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[PERSONA] PHOTOS")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.pass_obj
def build(settings: Settings, arguments: tuple[str, ...], quiet: bool) -> None:
    """Build the next version of a dataset from the folder PHOTOS.

    PERSONA may be left out: then it is the active one. The same photos again make no new version.
    """
    if len(arguments) > 2:
        raise click.UsageError("expected [PERSONA] PHOTOS")
    from oblik import studio
    from oblik.cli import note
    from oblik.progress import RichProgress, SilentProgress

    slug, photos = (arguments[0], arguments[1]) if len(arguments) == 2 else (None, arguments[0])
    progress = SilentProgress() if quiet else RichProgress()
    note(studio.caution(settings, slug))
    built = studio.build_dataset(settings, Path(photos), slug, progress=progress)
    for line in _summary(built.dataset):
        click.echo(line)
    if built.unchanged:
        click.echo(f"unchanged, {built.dataset.version}")
    click.echo(f"report   {built.folder / 'report.html'}")


@command.command(name="list")
@click.argument("persona", required=False)
@click.pass_obj
def list_(settings: Settings, persona: str | None) -> None:
    """List the versions of a persona's dataset."""
    from oblik import studio

    for dataset in studio.list_datasets(settings, persona):
        click.echo(
            f"{dataset.version}  {dataset.created_at:%Y-%m-%d %H:%M}  {len(dataset.accepted())} photos"
        )


def _summary(dataset: Dataset) -> list[str]:
    accepted = dataset.accepted()
    splits = Counter(photo.split.value for photo in accepted if photo.split)
    reasons = Counter(
        photo.reason.split(" (")[0].split(" as ")[0] for photo in dataset.photos if photo.path is None
    )
    lines = [
        f"dataset  {dataset.persona} {dataset.version}: {len(accepted)} of {len(dataset.photos)} files ready "
        f"({splits['train']} training, {splits['validation']} validation, {splits['stress']} stress)"
    ]
    return lines + [f"  {count:>4}  {reason}" for reason, count in reasons.most_common()]
