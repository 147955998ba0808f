"""``oblik plan``: how a pack fits into a card's memory.

In: a pack's name, a card's size, a picture's size. Out: a table for each purpose and a sentence on what was
given up, or JSON. Knows nothing of how bytes are counted.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from oblik.errors import InvalidInput

if TYPE_CHECKING:
    from oblik.packs.memory_plan import MemoryPlan, Purpose
    from oblik.settings import Settings

GIB = 1024**3


@click.command()
@click.argument("pack", required=False)
@click.option(
    "--vram", "vram_gib", type=click.FloatRange(min=0, min_open=True),
    help="Memory of the card in GiB.  [this machine's card]",
)  # fmt: skip
@click.option("--train", "purpose", flag_value="train", help="Only the plan for training.")
@click.option("--generate", "purpose", flag_value="generate", help="Only the plan for portraits.")
@click.option("--size", metavar="WxH", help="Pixels of a picture.  [as the pack's]")
@click.option("--batch", type=click.IntRange(1, 100), help="Pictures at once.  [4]")
@click.option("--rank", type=click.IntRange(1, 256), help="Rank of the LoRA.  [16]")
@click.option("--json", "as_json", is_flag=True, help="Every number in bytes, as one JSON list.")
@click.pass_obj
def command(
    settings: Settings, /, pack: str | None, vram_gib: float | None, purpose: Purpose | None,
    size: str | None, batch: int | None, rank: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Compute how a pack fits into a card's memory, and what that gives up.

    Counted from the architecture, before anything is loaded: no weights are needed. PACK may be one that
    was not pulled yet.
    """
    from oblik import studio

    width_px, height_px = sides(size)
    asked = {
        "vram_bytes": round(vram_gib * GIB) if vram_gib else None, "batch": batch, "rank": rank,
        "width_px": width_px, "height_px": height_px,
    }  # fmt: skip
    purposes: tuple[Purpose, ...] = (purpose,) if purpose else ("train", "generate")
    name = pack or settings.pack
    plans = [studio.plan_memory(settings, name, {**asked, "purpose": each}) for each in purposes]
    if as_json:
        click.echo(
            json.dumps([{**plan.model_dump(), "peak_bytes": plan.peak_bytes} for plan in plans], indent=1)
        )
        return
    click.echo("\n\n".join(page(plan) for plan in plans))


def sides(size: str | None) -> tuple[int | None, int | None]:
    """Width and height of ``768x1024``."""
    if size is None:
        return None, None
    found = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size)
    if found is None or any(int(side) % 16 for side in found.groups()):
        raise InvalidInput(
            f"{size!r} is not a size such as 768x1024, in multiples of 16", hint="oblik plan --size 768x768"
        )
    return int(found[1]), int(found[2])


def page(plan: MemoryPlan) -> str:
    """The plan as plain text: the choices, bytes of each stage in GiB, one sentence."""
    from oblik.packs.memory_plan import described

    asked = plan.asked
    lines = [
        f"{asked.pack}, {asked.purpose}, {asked.width_px}x{asked.height_px} px: "
        f"{gib(plan.peak_bytes)} of {gib(plan.usable_bytes)} GiB usable "
        f"({gib(asked.vram_bytes)} on the card), {gib(plan.ram_bytes)} GiB of RAM",
        "",
        *(f"  {name:<18}{value}" for name, value in described(plan.configuration, asked.purpose).items()),
        "",
    ]
    names = list(dict.fromkeys(name for stage in plan.stages for name in stage.rows))
    lines.append("  " + f"{'GiB':<14}" + "".join(f"{stage.stage:>19}" for stage in plan.stages))
    for name in names:
        lines.append(f"  {name:<14}" + "".join(f"{cell(stage.rows.get(name)):>19}" for stage in plan.stages))
    lines.append("  " + f"{'total':<14}" + "".join(f"{gib(stage.total):>19}" for stage in plan.stages))
    return "\n".join(line.rstrip() for line in [*lines, "", plan.gave_up])


def cell(size: int | None) -> str:
    """A table's cell; nothing where nothing is needed."""
    return gib(size) if size else ""


def gib(size: int) -> str:
    """Bytes as GiB with two places."""
    return f"{size / GIB:.2f}"
