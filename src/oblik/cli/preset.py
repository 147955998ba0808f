"""``oblik preset``: presets and quality levels.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from oblik import studio
from oblik.settings import Settings


@click.group()
def command() -> None:
    """List, show, save and export presets and quality levels."""


@command.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """List every preset with the values it has on the active pack."""
    for (name, preset, _, shipped), plan, _ in studio.list_presets(settings):
        own = "" if shipped else "  (your own)"
        click.echo(f"{name:<14} {preset.about}{own}")
        click.echo(
            f"{'':<14} {plan.width_px}x{plan.height_px}, {plan.steps} steps, guidance {plan.guidance:g}, "
            f"LoRA {plan.lora_scale:g}, {plan.batch} at once, pause {preset.pace.pause_s:g} s"
        )


@command.command()
@click.argument("name")
@click.pass_obj
def show(settings: Settings, name: str) -> None:
    """Show the file of the preset NAME, and the plan it makes on the active pack."""
    (_, _, path, _), plan, ranges = studio.show_preset(settings, name)
    click.echo(f"# {path}\n{path.read_text(encoding='utf-8')}")
    click.echo(f"# on the pack {plan.pack}")
    hidden = {"pack", "persona", "prompt", "lora", "references", "controls", "edit"}
    for key, value in plan.model_dump(mode="json", exclude=hidden).items():
        told = "  ({:g} to {:g} may be asked for)".format(*ranges[key]) if key in ranges else ""
        click.echo(f"#   {key} = {json.dumps(value)}{told}")


@command.command()
@click.argument("name")
@click.option("--from", "start", metavar="PRESET", help="Preset to start from.  [standard]")
@click.option(
    "--record", type=click.Path(exists=True, path_type=Path), help="Start from the plan of pictures you like."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a value, such as steps=36."
)
@click.option("--about", help="What it is for, in a sentence.")
@click.option("--replace", is_flag=True, help="Overwrite the one of that name.")
@click.pass_obj
def save(
    settings: Settings,
    /,
    name: str,
    start: str | None,
    record: Path | None,
    changes: tuple[str, ...],
    about: str | None,
    replace: bool,
) -> None:
    """Keep a preset of your own as NAME."""
    if start and record:
        raise click.UsageError("--from excludes --record")
    click.echo(
        studio.save_preset(
            settings, name, start=start, record=record, values=dict(map(_change, changes)), about=about,
            replace=replace,
        )
    )  # fmt: skip


@command.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_obj
def export(settings: Settings, name: str, target: Path) -> None:
    """Copy the preset NAME to TARGET, a file or a folder, to give it to somebody."""
    click.echo(studio.export_preset(settings, name, target))


def _change(text: str) -> tuple[str, Any]:
    """``steps=36``: the value is JSON where it can be, else a word."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{text!r} is not like steps=36")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
