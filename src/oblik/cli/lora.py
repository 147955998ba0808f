"""``oblik lora``: the versions of a person's LoRA, and their copies in other programs.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oblik import studio
from oblik.cli import note

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oblik.settings import Settings

FORMATS = ("comfyui", "diffusers", "kohya")


@click.group()
def command() -> None:
    """List, compare, choose, export and install trained LoRAs."""


def persona_option(function: Callable[..., None]) -> Callable[..., None]:
    """Whose LoRAs are meant."""
    return click.option("--persona", "slug", help="Whose LoRA.  [the active one's]")(function)


@command.command("list")
@persona_option
@click.pass_obj
def list_(settings: Settings, slug: str | None) -> None:
    """List every version; the one in use is marked."""
    found = studio.list_loras(settings, slug)
    for entry in found:
        made, copies = entry.artifact, len(entry.copies)
        elsewhere = f", {copies} {'copy' if copies == 1 else 'copies'} elsewhere" if copies else ""
        click.echo(
            f"{'*' if entry.used else ' '} {made.version}  {made.created_at:%Y-%m-%d %H:%M}  {made.trainer}, "
            f"{made.pack}, {made.steps} steps, dataset {made.dataset}{elsewhere}"
        )
        click.echo(
            f"        likeness {entry.likeness_words}; test: {entry.acceptance_words.partition(' at ')[0]}"
        )
    if not found:
        click.echo("none yet: oblik train")


@command.command()
@click.argument("version", required=False)
@persona_option
@click.pass_obj
def show(settings: Settings, version: str | None, slug: str | None) -> None:
    """Show everything about VERSION, else about the one in use."""
    for name, words in studio.show_lora(settings, version, slug):
        click.echo(f"{name:<14} {words}")


@command.command()
@click.argument("one")
@click.argument("other")
@persona_option
@click.pass_obj
def compare(settings: Settings, one: str, other: str, slug: str | None) -> None:
    """Show ONE and OTHER side by side: settings that differ, losses, likeness, tests."""
    _table(("", one, other), studio.compare_loras(settings, one, other, slug))


@command.command()
@click.argument("version")
@persona_option
@click.pass_obj
def use(settings: Settings, version: str, slug: str | None) -> None:
    """Make VERSION the one that pictures are made with; `newest` takes that back."""
    click.echo(f"in use: {studio.use_lora(settings, version, slug)}")


@command.command()
@click.argument("version")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="comfyui", show_default=True)
@persona_option
@click.pass_obj
def export(settings: Settings, version: str, folder: Path, form: str, slug: str | None) -> None:
    """Write VERSION for another program into FOLDER, with a README of consent and licences.

    The files are remembered: `oblik persona delete` removes them as long as they lie there unchanged.
    """
    made = studio.export_lora(settings, version, folder, form, slug)
    _tell(made)


@command.command()
@click.argument("version", required=False)
@click.option(
    "--to",
    required=True,
    metavar="easy-diffusion|comfyui|DIR",
    help="A program of the settings, or a folder.",
)
@persona_option
@click.pass_obj
def install(settings: Settings, version: str | None, to: str, slug: str | None) -> None:
    """Copy VERSION, else the one in use, into another program.

    In a folder, models/loras or models/lora is looked for, else the folder itself is taken. The copy is
    remembered: `oblik persona delete` removes it as long as it lies there unchanged.
    """
    _tell(studio.install_lora(settings, to, version, slug))


@command.command()
@click.argument("version", required=False)
@click.option(
    "--from", "program", metavar="PROGRAM", help="easy-diffusion, comfyui, folder or export.  [everywhere]"
)
@persona_option
@click.pass_obj
def uninstall(settings: Settings, version: str | None, program: str | None, slug: str | None) -> None:
    """Remove the copies of VERSION, else of every version, that Oblik made elsewhere."""
    fates = studio.uninstall_loras(settings, version, program, slug)
    for known, fate in fates:
        click.echo(f"{known.path}: {fate.value}")
    if not fates:
        click.echo("no copy is known")


def _tell(made: studio.Copies) -> None:
    for path in made.paths:
        click.echo(str(path))
    for line in made.licences:
        if "NOT allowed" in line:
            note(f"licence of {line}")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(highlight=False).print(table)
