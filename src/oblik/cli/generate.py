"""``oblik generate``: portraits from words.

In: a prompt and the values of a plan. Out: pictures, a grid and a record in the persona's gallery.
Knows nothing of tensors.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oblik import studio
from oblik.cli import note
from oblik.cli.likeness import score_line
from oblik.progress import RichProgress
from oblik.settings import Settings

if TYPE_CHECKING:
    from oblik.generation.record import Record

MOST_PICTURES = 1000
SHOWN = 8
"""So many lines name pictures with their likeness."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def seed_list(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Seeds written as ``1,2,3`` or ``1-8``."""
    if value is None:
        return None
    seeds: list[int] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdigit() and (last.isdigit() or not dash)):
            raise click.BadParameter(f"{value!r} is neither like 1,2,3 nor like 1-8", ctx, param)
        seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    if not 0 < len(seeds) <= MOST_PICTURES:
        raise click.BadParameter(f"{value!r} names {len(seeds)} seeds, not 1 to {MOST_PICTURES}", ctx, param)
    return tuple(seeds)


def whom_and_what(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> tuple[str | None, str]:
    """``[PERSONA] PROMPT`` as (persona, prompt)."""
    if len(words) > 2:
        raise click.UsageError('write the prompt in quotes: oblik generate "smiling, in a park"', ctx)
    return (words[0] if len(words) == 2 else None), words[-1]


@click.command()
@click.argument("said", nargs=-1, required=True, metavar="[PERSONA] PROMPT", callback=whom_and_what)
@click.option("--persona", "slug", help="Persona to show.  [the active one]")
@click.option("--seeds", callback=seed_list, metavar="1,2,3|1-8", help="One picture for each seed.  [1-8]")
@click.option(
    "--count", type=click.IntRange(1, MOST_PICTURES), help="That many pictures, seeds counted up from --seed."
)
@click.option("--seed", type=click.IntRange(min=0), help="The first seed of --count.  [1]")
@click.option(
    "--sampler", type=click.Choice(["euler", "euler_ancestral"]), help="How noise becomes a picture.  [euler]"
)
@click.option("--steps", type=int, help="Sampling steps, 30 to 50; 30 to 70 in reliable.")
@click.option(
    "--guidance", type=float,
    help="Guidance scale, 2.5 to 4 for Qwen-Image (true_cfg_scale), 4 to 8 for Stable Diffusion.",
)  # fmt: skip
@click.option("--lora", metavar="VERSION", help="LoRA version.  [the one in use]")
@click.option("--lora-scale", type=float, help="Strength of the LoRA, 0.6 to 0.9.")
@click.option("--short-side", "short_side_px", type=int, help="Shorter side in pixels, 64 to 4096.")
@click.option("--aspect", metavar="W:H", help="Shape, 1:4 to 4:1, for example 3:4.")
@click.option("--width", "width_px", type=int, help="Width in pixels, 64 to 4096.")
@click.option("--height", "height_px", type=int, help="Height in pixels, 64 to 4096.")
@click.option("--batch", type=int, help="Pictures at once, 1 to 100.")
@click.option(
    "--attention", type=click.Choice(["native", "flash", "xformers", "sage"]),
    help="How attention is computed; all but native need packages of their own.  [native]",
)  # fmt: skip
@click.option(
    "--cache", "cache_threshold", type=float,
    help="First-block cache, 0 (off) to 1: faster, and the picture changes.  [0]",
)  # fmt: skip
@click.option(
    "--compile", "compiled", is_flag=True, default=None, help="Compile the blocks: for long runs of one size."
)
@click.option("--negative", "negative_prompt", help="What should not be seen.")
@click.option("--preset", help="A preset's name or TOML file.  [the one of --mode]")
@click.option(
    "--mode",
    type=click.Choice(["fast", "reliable"]),
    help="reliable refers to the person's photos.  [fast, reliable after a failed test]",
)
@click.option(
    "--max-rung", type=click.IntRange(1, 3), help="How far likeness below the threshold is raised.  [3]"
)
@click.option(
    "--no-auto", is_flag=True, help="Measure nothing and climb nothing; reliable starts at --max-rung."
)
@click.option(
    "--pose", type=FILE, metavar="PHOTO", help="Turn the head as in this photo, in packs with a ControlNet."
)
@click.option("--depth", type=FILE, metavar="PHOTO", help="Place things near and far as in this photo.")
@click.option("--control", "given", type=FILE, metavar="IMAGE", help="A finished control image.")
@click.option(
    "--control-scale", type=click.FloatRange(0, 2), default=0.8, show_default=True,
    help="How closely it is followed.",
)  # fmt: skip
@click.option("--style", is_flag=True, help="Allow art styles in the prompt.")
@click.option("--no-lora", is_flag=True, help="Switch the LoRA's weights off; the learned token stays.")
@click.option("--no-token", is_flag=True, help="Ask for anybody: no token, no description of the persona.")
@click.pass_obj
def command(
    settings: Settings,
    /,
    said: tuple[str | None, str],
    slug: str | None,
    seeds: tuple[int, ...] | None,
    count: int | None,
    seed: int | None,
    preset: str | None,
    mode: str | None,
    max_rung: int | None,
    no_auto: bool,
    style: bool,
    no_lora: bool,
    no_token: bool,
    pose: Path | None,
    depth: Path | None,
    given: Path | None,
    control_scale: float,
    **asked: Any,
) -> None:
    """Make portraits from PROMPT, for example "in a park, smiling".

    They show PERSONA, or the active one, whose token is put in front when the prompt lacks it. Likeness is
    measured; while its mean is below the persona's threshold the rungs of the reliable mode are climbed: 1
    the person's own photos as references, on the face only; 2 larger, more steps; 3 an edit of the face, in
    packs that have it.

    How far steps, guidance and the LoRA's scale may go is the preset's business; what lies outside is refused
    with the range. --preset experimental takes 1 to 150 steps, guidance 1 to 20 and a scale of 0 to 1.5, and
    a preset of your own (oblik preset save) what you wrote into it.
    """
    named, prompt = said
    if named and slug and named != slug:
        raise click.UsageError(f"{named} or {slug}? name one persona")
    slug = named or slug
    if no_token and mode == "reliable":
        raise click.UsageError("--mode reliable shows the persona; --no-token shows a stranger")
    if seeds and (count or seed is not None):
        raise click.UsageError("--seeds excludes --count and --seed")
    if count or seed is not None:
        first = 1 if seed is None else seed
        seeds = tuple(range(first, first + (count or 1)))
    asked |= {
        "seeds": seeds,
        "controls": _wish({"pose": pose, "depth": depth, "given": given}, control_scale),
    }
    note(studio.caution(settings, slug))
    made = studio.generate(
        settings, prompt, slug, asked=asked, lora=not no_lora, token=not no_token,
        style=style, preset=preset, mode=mode, auto=not no_auto, max_rung=max_rung,
        progress=RichProgress(), say=click.echo,
    )  # fmt: skip
    record = made.record
    for line in score_lines(record):
        click.echo(line)
    click.echo(f"prompt: {record.plan.prompt}")
    ids = f"token ids {record.token_ids}, " if record.token_ids else ""
    click.echo(f"{len(record.pictures)} pictures, {ids}{sum(record.seconds.values()):.1f} s")
    click.echo(str(made.folder / (record.grid or "")))
    if not no_token:
        click.echo(f"next: {following(record, prompt, slug)}")


def score_lines(record: Record) -> list[str]:
    """The likeness of each of the first pictures, as `oblik likeness measure` says it; nothing unmeasured."""
    if record.threshold is None:
        return []
    copies = record.guards.suspects if record.guards else []
    lines = [
        score_line(picture.file, picture.likeness, record.threshold, picture.file in copies)
        for picture in record.pictures
    ]
    if len(lines) <= SHOWN:
        return lines
    return [*lines[: SHOWN - 1], f"  and {len(lines) - SHOWN + 1} more: oblik likeness measure names all"]


def following(record: Record, prompt: str, slug: str | None = None) -> str:
    """The command that helps most: measure, raise what fell short, or look. ``slug`` is whom the last one
    named, and so does this."""
    begun = f"oblik --persona {slug}" if slug else "oblik"
    if record.threshold is None:
        return f"{begun} likeness"
    scores = [picture.likeness or 0.0 for picture in record.pictures]
    if record.asked.mode == "fast" and sum(scores) < record.threshold * len(scores):
        return f"{begun} generate {shlex.quote(prompt)} --mode reliable"
    return f"{begun} gallery open"


def _wish(files: dict[str, Path | None], scale: float) -> list[dict[str, Any]] | None:
    """What pictures are to follow: one of the three, or what the preset says."""
    asked = {kind: file for kind, file in files.items() if file is not None}
    if len(asked) > 1:
        raise click.UsageError("--pose, --depth and --control exclude each other")
    found = [{"kind": kind, "image": str(file.absolute()), "weight": scale} for kind, file in asked.items()]
    return found or None
