"""``oblik order``: one YAML file, many pictures.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words; exit status 1 when
pictures are missing in the end. Knows nothing of plans and engines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oblik import studio
from oblik.cli import note
from oblik.progress import RichProgress
from oblik.settings import Settings

if TYPE_CHECKING:
    from oblik.generation.order_report import OrderReport

ORDER = click.Path(dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Make the pictures of an ORDER.yaml, and go on where it stopped."""


@command.command()
@click.argument("order", type=ORDER)
@click.pass_context
def run(ctx: click.Context, order: Path) -> None:
    """Make the pictures of ORDER that are not there yet.

    Given again after a crash or a stop, the same command goes on and repeats no finished picture. Exits with
    1 when some pictures could not be made.
    """
    settings: Settings = ctx.obj
    made = studio.run_order(settings, order, progress=RichProgress())
    report = made.report
    note(studio.caution(settings, report.persona))
    for failure in report.failures:
        click.echo(f"failed: {failure.item}, seed {failure.seed}: {failure.message}")
    for change in report.changes:
        click.echo(f"{change.folder}: {change.step.name} ({change.step.reason})")
    click.secho(report.sentence, bold=True)
    click.echo(machine_words(report))
    click.echo(str(made.folder / (report.grid or "generation_report.json")))
    if report.pictures:
        click.echo(f"next: oblik likeness measure {made.folder} --persona {report.persona}")
    ctx.exit(0 if report.state == "done" else 1)


@command.command()
@click.argument("order", type=ORDER)
@click.pass_obj
def check(settings: Settings, order: Path) -> None:
    """Check ORDER without making a picture: every line, prompt, preset and value."""
    found = studio.check_order(settings, order)
    for batch in found.batches:
        plan = batch.plan
        click.echo(
            f"{batch.item:<16} {len(plan.seeds):>4} pictures  {plan.width_px}x{plan.height_px}  "
            f"{plan.steps} steps  guidance {plan.guidance:g}  {plan.prompt}"
        )
    total = sum(len(batch.plan.seeds) for batch in found.batches)
    click.secho(f"{total} pictures into {found.folder}", bold=True)


@command.command()
@click.option("--out", type=ORDER, help="Write it there instead of printing it.")
def schema(out: Path | None) -> None:
    """Print the JSON Schema of orders, for editors that complete and check YAML."""
    text = json.dumps(studio.order_schema(), indent=2)
    if out is None:
        click.echo(text)
        return
    out.write_text(text + "\n", encoding="utf-8")
    click.echo(str(out))


def machine_words(report: OrderReport) -> str:
    """Times, temperature and memory in one line."""
    machine, each_s = report.machine, report.seconds_per_picture
    parts = [f"{report.seconds:.1f} s"]
    parts += [f"{each_s:.2f} s a picture"] if each_s is not None else []
    parts += [f"{machine.rested_s:.0f} s of rest"] if machine.rested_s else []
    hottest = machine.hottest_c
    parts.append("no thermometer" if hottest is None else f"hottest {hottest:.0f} C")
    if memory := machine.memory_bytes:
        first, last = (value / 2**20 for value in (memory[0], memory[-1]))
        parts.append(f"memory {first:.0f} MiB after the first batch, {last:.0f} after the last")
    if machine.most_vram_bytes is not None:
        parts.append(f"{machine.most_vram_bytes / 2**30:.1f} GiB of the card in use")
    return ", ".join(parts)
