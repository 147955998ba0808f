"""``oblik miniature``: people who do not exist, and the pack that is trained on them.

In: seeds and folders. Out: a phone folder of photos, or a pack. Knows nothing of how faces are drawn.
"""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def command() -> None:
    """Render people who do not exist; build the embedded pack."""


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Who: a seed is a person."
)
@click.option("--photos", type=click.IntRange(min=1), default=48, show_default=True, help="How many files.")
@click.option(
    "--truth", is_flag=True, help="Also write truth.json: what is a stranger, a burst, a duplicate."
)
def shoot(out: Path, seed: int, photos: int, truth: bool) -> None:
    """Write a folder of photos into OUT as one would copy it from a phone.

    JPEGs of several sizes with camera data, places and orientations; among them near-duplicates, a
    burst, two photos of somebody else and a damaged file.
    """
    from oblik.miniature.shoot import shoot as write

    files = write(seed, photos, out, truth=truth)
    click.echo(f"{len(files)} files of the rendered person {seed} in {out}")


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Who: a seed is a person."
)
@click.option("--yaw", "yaw_deg", type=click.FloatRange(-90, 90), default=0.0, show_default=True,
              help="How far the head is turned, in degrees.")  # fmt: skip
@click.option("--pitch", "pitch_deg", type=click.FloatRange(-40, 40), default=0.0, show_default=True,
              help="How far it is raised, in degrees.")  # fmt: skip
def control(out: Path, seed: int, yaw_deg: float, pitch_deg: float) -> None:
    """Write a photo of a rendered person with its exact pose and depth images into OUT."""
    from oblik.miniature.control_images import write_control_images

    for path in write_control_images(out, seed, yaw_deg, pitch_deg):
        click.echo(str(path))


@command.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path(".miniature"), show_default=True,
              help="Where renders and checkpoints stay between runs.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path(".miniature/pack"), show_default=True,
              help="Where the pack is written.")  # fmt: skip
@click.option("--people", type=click.IntRange(min=20), help="How many people to render.  [6000]")
@click.option("--improve", type=click.Path(path_type=Path, exists=True), metavar="PACK",
              help="Go on from a finished pack's folder: its transformer learns further.")  # fmt: skip
@click.option("--faces", is_flag=True, help="With --improve: the face embedder learns further too.")
@click.option("--vae", is_flag=True, help="With --improve: the VAE learns further too.")
@click.option(
    "--control", is_flag=True, help="With --improve: train its ControlNet for pose and depth, only that."
)
@click.option("--edit", is_flag=True, help="With --improve: only the LoRA that edits with references learns.")
@click.option(
    "--steps", type=click.IntRange(min=1), help="Steps of the transformer, its LoRA or its ControlNet."
)
def build(
    work: Path, out: Path, people: int | None, improve: Path | None, faces: bool, vae: bool, control: bool,
    edit: bool, steps: int | None,
) -> None:  # fmt: skip
    """Render the people and train every network of the miniature pack, from scratch.

    Takes a few CPU hours. It can be stopped at any time: the same command goes on.
    """
    from dataclasses import replace

    from oblik.miniature.build import Build, Recipe
    from oblik.miniature.improve import adopt
    from oblik.progress import RichProgress

    if control and improve is None:
        raise click.UsageError("--control trains beside a finished pack: --improve PACK")
    if edit and (improve is None or faces or vae):
        raise click.UsageError("--edit goes with --improve PACK, without --faces and --vae")
    if improve is not None:
        adopt(improve, work, faces=faces, vae=vae)
    recipe = Recipe() if people is None else Recipe(people=people)
    if improve is not None and control:
        _build_control(work, improve, out, people, steps)
        return
    if steps is not None:
        transformer, lora = replace(recipe.transformer, steps=steps), replace(recipe.edit, steps=steps)
        recipe = replace(recipe, transformer=transformer, edit=lora)
    whole = Build(work, recipe, RichProgress())
    if edit:
        assert improve is not None
        whole.edit(improve, out)
    else:
        whole.pack(out)
    click.echo(f"pack written to {out}; try it: oblik --pack {out} demo")


def _build_control(work: Path, pack: Path, out: Path, people: int | None, steps: int | None) -> None:
    from dataclasses import replace

    from oblik.miniature.build import Build, Recipe
    from oblik.miniature.train_control import ControlRecipe, build_control
    from oblik.progress import RichProgress

    recipe, whole = ControlRecipe(), Recipe()
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    whole = replace(whole, people=people or recipe.images // whole.shots)
    build_control(Build(work, whole, RichProgress()), pack, out, recipe)
    click.echo(f"pack with its ControlNet written to {out}")
