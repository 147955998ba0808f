"""``oblik scene``: names for places, to be used as ``@park`` in a prompt.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

import click

from oblik import studio
from oblik.settings import Settings


@click.group()
def command() -> None:
    """List, save and remove scenes: @park in a prompt stands for their words."""


@command.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """List every scene with its words."""
    for name, (words, own) in studio.list_scenes(settings).items():
        click.echo(f"@{name:<12} {words}{'  (your own)' if own else ''}")


@command.command()
@click.argument("name")
@click.argument("words")
@click.option("--replace", is_flag=True, help="Overwrite the one of that name.")
@click.pass_obj
def save(settings: Settings, name: str, words: str, replace: bool) -> None:
    """Keep WORDS as the scene NAME; one that ships with Oblik is covered by yours."""
    click.echo(studio.save_scene(settings, name, words, replace=replace))


@command.command()
@click.argument("name")
@click.pass_obj
def remove(settings: Settings, name: str) -> None:
    """Delete the scene NAME of your own; a covered one comes back."""
    studio.remove_scene(settings, name)
    click.echo(f"removed @{name}")
