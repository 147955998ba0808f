"""``oblik edit``: a persona's face into a frame that exists.

In: a picture, what may change in it, words. Out: pictures, the alpha map and a record in the gallery.
Knows nothing of tensors.
"""

from __future__ import annotations

from pathlib import Path

import click

from oblik import studio
from oblik.cli import note
from oblik.progress import RichProgress
from oblik.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("image", type=FILE)
@click.option("--persona", "slug", help="Persona to show.  [the active one]")
@click.option("--mask", type=FILE, help="A picture as large as IMAGE, white where it may change.")
@click.option("--face", is_flag=True, help="The face that is found in IMAGE may change.")
@click.option("--outpaint", metavar="PX|L,T,R,B|W:H", help="Draw more around IMAGE: pixels, or an aspect.")
@click.option("--prompt", default="", help='What is to be seen, for example "in a park, smiling".')
@click.option("--strength", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
              help="How much is drawn anew; below 1 the frame shines through.")  # fmt: skip
@click.option("--no-references", is_flag=True, help="Leave the person's photos out: the LoRA alone draws.")
@click.option("--no-keep-pose", is_flag=True, help="Do not hold the face to the pose of the one it replaces.")
@click.option("--control-scale", type=click.FloatRange(0, 2), default=0.8, show_default=True,
              help="How closely that pose is followed.")  # fmt: skip
@click.option("--count", type=click.IntRange(1, 64), default=1, show_default=True, help="How many pictures.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The first seed.")
@click.option("--steps", type=int, help="Sampling steps, 30 to 50.")
@click.option("--guidance", type=float, help="Guidance scale, in the preset's range.")
@click.option("--lora", metavar="VERSION", help="LoRA version.  [the one in use]")
@click.option("--lora-scale", type=float, help="Strength of the LoRA, 0.6 to 0.9.")
@click.option("--negative", "negative_prompt", help="What should not be seen.")
@click.option("--preset", help="A preset's name or TOML file, whose ranges count.  [fast]")
@click.pass_obj
def command(
    settings: Settings,
    /,
    image: Path,
    slug: str | None,
    mask: Path | None,
    face: bool,
    outpaint: str | None,
    prompt: str,
    strength: float,
    no_references: bool,
    no_keep_pose: bool,
    control_scale: float,
    count: int,
    seed: int,
    preset: str | None,
    **asked: int | float | str | None,
) -> None:
    """Put the persona's face into IMAGE, or complete IMAGE around it.

    What may change is a --mask, the --face, the space of --outpaint, or all of them; of an edited picture
    the alpha map is kept beside it and taken when none is given. Every other pixel stays as it is, to the
    byte. The persona's consent must cover edits into existing frames (scope "edit").
    """
    note(studio.caution(settings, slug))
    wish = {
        "mask": mask, "face": face, "outpaint": outpaint, "strength": strength,
        "references": not no_references, "pose": 0.0 if no_keep_pose else control_scale,
    }  # fmt: skip
    made = studio.edit(
        settings, image, slug, text=prompt, wish=wish, preset=preset, progress=RichProgress(), say=click.echo,
        asked={**asked, "seeds": tuple(range(seed, seed + count))},
    )  # fmt: skip
    record = made.record
    click.echo(f"prompt: {record.plan.prompt}")
    for picture in record.pictures:
        measured = "no face found" if picture.face_found is False else ""
        if picture.likeness is not None:
            measured = f"likeness {picture.likeness:.3f}, threshold {record.threshold:.3f}"
        click.echo(f"{made.folder / picture.file}  {measured}".rstrip())
    if record.guards is not None:
        click.echo(record.guards.words)
