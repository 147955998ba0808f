"""``oblik adapter``: what lets the reliable mode refer to photos, trained for a pack that lacks it.

In: a folder of many people, flags. Out: an adapter under the home folder. Knows nothing of tensors.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.progress import RichProgress
from oblik.settings import Settings


@click.group()
def command() -> None:
    """Train the identity adapter of a base model; list and remove those that were."""


@command.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--permission", is_flag=True, help="Everybody in FOLDER agreed to this use of their photos. Required."
)
@click.option(
    "--rendered", type=click.IntRange(2, 6000), help="Learn from this many rendered people instead."
)
@click.option("--noun", default="person", show_default=True, help="What the people of FOLDER are called.")
@click.option(
    "--side", "side_px", type=click.IntRange(64, 2048), help="Side of a portrait.  [the pack's size]"
)
@click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [2000]")
@click.option("--batch", type=click.IntRange(1, 256), help="Portraits in one step.  [8]")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Learning rate.  [0.001]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="The base model's type.  [float32]")
@click.option("--seed", type=int, help="Seed of everything that is drawn.  [0]")
@click.option("--restart", is_flag=True, help="Drop the training that was begun.")
@click.pass_obj
def train(
    settings: Settings, /, folder: Path | None, permission: bool, rendered: int | None, noun: str,
    side_px: int | None, restart: bool, **asked: int | float | str | None,
) -> None:  # fmt: skip
    """Train the identity adapter of the active pack from FOLDER: one sub-folder for each person.

    A small network learns which word a face is; the base model stands still. It needs many people (hundreds),
    two photos of each at least, and none of them the person whose portraits are made. Photos are read, not
    kept. Ctrl-C finishes the step and saves; the same command goes on.
    """
    if (folder is None) == (rendered is None):
        raise click.UsageError("give either FOLDER or --rendered")
    if folder and not permission:
        raise click.UsageError("faces are learned from: --permission says that everybody in FOLDER agreed")
    made = studio.train_adapter(
        settings, folder, rendered=rendered or 0, noun=noun, side_px=side_px, restart=restart, asked=asked,
        progress=RichProgress(),
    )  # fmt: skip
    first, last = next(iter(made.losses.values())), list(made.losses.values())[-1]
    click.echo(
        f"identity adapter of {made.pack}: {made.config.steps} steps on {made.people} people, "
        f"{made.pictures} pictures; loss {first:.4f} -> {last:.4f}"
    )
    click.echo("next: oblik generate PROMPT --mode reliable --max-rung 1")


@command.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """List the adapters that were trained here: their packs, from whom, and their hashes."""
    found = studio.list_adapters(settings)
    for made in found:
        click.echo(
            f"{made.pack} {made.pack_version}  {made.created_at:%Y-%m-%d %H:%M}  {made.kind}, "
            f"{made.people} people ({made.source}), {made.config.steps} steps, faces by {made.face_stack}, "
            f"sha256 {made.sha256[:12]}"
        )
    if not found:
        click.echo("none was trained here; a pack may bring its own: oblik pack show")


@command.command()
@click.argument("pack")
@click.pass_obj
def remove(settings: Settings, pack: str) -> None:
    """Forget the adapter that was trained here for PACK; the pack's own is used again."""
    studio.remove_adapter(settings, pack)
    click.echo(f"removed: the adapter trained for {pack}")
