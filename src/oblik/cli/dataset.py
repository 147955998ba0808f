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
    from oblik.studio import BuiltDataset


def pictures(value: str) -> int | Path:
    """A number of pictures, or a folder that holds them."""
    if value.isdecimal():
        return int(value)
    if not Path(value).is_dir():
        raise click.BadParameter(f"{value!r} is neither a number nor a folder")
    return Path(value)


@click.group(name="dataset")
def command() -> None:
    """Turn a folder of photos into a curated, captioned dataset."""


@command.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[PERSONA] PHOTOS")
@click.option(
    "--captions",
    type=click.Choice(["words", "measured", "network", "model"]),
    help="Where captions come from: your .txt and CSV files, measurement alone, the pack's caption network "
    "or its vision-language model.  [network where there is one, else words]",
)
@click.option(
    "--class-images",
    type=pictures,
    metavar="N|FOLDER",
    help="Other people: 200 to 400 of them, or a folder; 0: none.  [as the pack advises]",
)
@click.option(
    "--negatives",
    type=pictures,
    metavar="N|FOLDER",
    help="Contrasting people: several dozen, or a folder; 0: none.  [as the pack advises]",
)
@click.option(
    "--augment", type=click.IntRange(0, 8), metavar="N", help="Varied copies of each training photo."
)
@click.option(
    "--flip", is_flag=True, help="Mirror half of the copies; refused while the face is not symmetric."
)
@click.option("--seed", type=int, default=0, help="Seed of the variations.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.pass_obj
def build(
    settings: Settings, /, arguments: tuple[str, ...], quiet: bool, captions: str | None, seed: int,
    flip: bool, augment: int | None, class_images: int | Path | None, negatives: int | Path | None,
) -> None:  # fmt: skip
    """Build the next version of a dataset from the folder PHOTOS.

    PERSONA may be left out: then it is the active one. The same photos again make no new version.
    """
    if len(arguments) > 2:
        raise click.UsageError("expected [PERSONA] PHOTOS")
    if flip and not augment:
        raise click.UsageError("--flip mirrors the copies of --augment N")
    from oblik import studio
    from oblik.cli import note
    from oblik.progress import RichProgress, SilentProgress

    slug, photos = (arguments[0], arguments[1]) if len(arguments) == 2 else (None, arguments[0])
    progress = SilentProgress() if quiet else RichProgress()
    note(studio.caution(settings, slug))
    wishes = studio.DatasetWishes(captions, class_images, negatives, augment, flip, seed)
    built = studio.build_dataset(settings, Path(photos), slug, wishes=wishes, progress=progress, say=note)
    _say(built)


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


@command.command()
@click.argument("version", required=False)
@click.pass_obj
def show(settings: Settings, version: str | None) -> None:
    """Show what became of every photo of VERSION, the newest unless named."""
    from oblik import studio

    dataset, folder = studio.show_dataset(settings, version)
    for line in _summary(dataset):
        click.echo(line)
    for photo in dataset.photos:
        fate = photo.split.value if photo.split else photo.status.value.replace("_", " ")
        why = photo.caption or photo.reason
        decided = f"  [{photo.decision}]" if photo.decision else ""
        click.echo(f"{fate:<11} {photo.source}: {why}{decided}")
    click.echo(f"report   {folder / 'report.html'}")


@command.command()
@click.argument("version", required=False)
@click.pass_obj
def verify(settings: Settings, version: str | None) -> None:
    """Check every file of VERSION against its hash; exit status 1 when one differs."""
    from oblik import studio

    problems = studio.verify_dataset(settings, version)
    for problem in problems:
        click.echo(problem)
    if problems:
        raise SystemExit(1)
    click.echo("every file is as it was written")


@command.command()
@click.argument("persona")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def keep(settings: Settings, persona: str, names: tuple[str, ...]) -> None:
    """Keep photos that were set aside, from the next version on."""
    from oblik import studio

    _decided("kept", studio.decide_photos(settings, names, "keep", persona), persona)


@command.command()
@click.argument("persona")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", default="", help="Why, for the report.")
@click.pass_obj
def drop(settings: Settings, persona: str, names: tuple[str, ...], reason: str) -> None:
    """Set photos aside, from the next version on."""
    from oblik import studio

    _decided("dropped", studio.decide_photos(settings, names, "drop", persona, reason=reason), persona)


@command.command()
@click.argument("persona")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def undo(settings: Settings, persona: str, names: tuple[str, ...]) -> None:
    """Take back the last keep or drop, or every one about the photos named."""
    from oblik import studio

    _decided("as before", studio.undo_decisions(settings, names, persona), persona)


@command.command()
@click.argument("persona")
@click.option("--export", "export", type=click.Path(path_type=Path), metavar="FILE.csv", help="Write them.")
@click.option("--import", "import_", type=click.Path(path_type=Path), metavar="FILE.csv", help="Read them.")
@click.pass_obj
def captions(settings: Settings, persona: str, export: Path | None, import_: Path | None) -> None:
    """Edit captions: as one CSV, or in place in the folder datasets/captions.

    Without an option the .txt files that you edited there are picked up. Other captions make a new
    version; an old one never changes.
    """
    from oblik import studio

    if export and import_:
        raise click.UsageError("give --export or --import, not both")
    if export:
        click.echo(f"{studio.export_captions(settings, export, persona)} captions in {export}")
        return
    made = studio.edit_captions(settings, import_, persona)
    _say(made)
    if made.unchanged:
        click.echo(f"edit the files in {made.folder.parent / 'captions'}, then run this command again")


def _say(built: BuiltDataset) -> None:
    for line in _summary(built.dataset):
        click.echo(line)
    if built.unchanged:
        click.echo(f"unchanged, {built.dataset.version}")
    click.echo(f"report   {built.folder / 'report.html'}")


def _decided(what: str, sources: list[str], persona: str) -> None:
    for source in sources:
        click.echo(f"{what:<9} {source}")
    click.echo(f"next: oblik dataset build {persona} PHOTOS" if sources else "nothing was decided about them")


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
    beside = Counter(extra.kind.value for extra in dataset.extras)
    if beside:
        lines.append("beside   " + ", ".join(f"{count} {kind}" for kind, count in beside.items()))
    return lines + [f"  {count:>4}  {reason}" for reason, count in reasons.most_common()]
