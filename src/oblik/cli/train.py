"""``oblik train``: a LoRA of the persona from its dataset.

In: flags. Out: a new version under the persona's ``loras/``. Knows nothing of tensors.
"""

from __future__ import annotations

import click

from oblik import studio
from oblik.cli import note
from oblik.progress import RichProgress
from oblik.settings import Settings


@click.command()
@click.option("--persona", "slug", help="Persona to train.  [the active one]")
@click.option("--dataset", metavar="VERSION", help="Dataset version.  [the newest]")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [as the pack advises]")
@click.option("--rank", type=click.IntRange(1, 256), help="Rank of the LoRA.")
@click.option("--alpha", type=click.FloatRange(min=0, min_open=True), help="Alpha of the LoRA.")
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Learning rate of the LoRA."
)
@click.option("--batch", type=click.IntRange(min=1), help="Photos in one step.")
@click.option("--seed", type=int, help="Seed of everything that is drawn.")
@click.option(
    "--trainer", default="native", show_default=True, metavar="NAME",
    help="native, or kohya: your checkout of sd-scripts, for Stable Diffusion.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with a training that was stopped.")
@click.pass_obj
def command(
    settings: Settings, /, slug: str | None, dataset: str | None, resume: bool, trainer: str,
    **asked: int | float | None,
) -> None:  # fmt: skip
    """Train a LoRA of the persona on a dataset.

    The base model is never changed: a small set of weights and one new word learn the person.
    """
    note(studio.caution(settings, slug))
    trained = studio.train(
        settings, slug, dataset=dataset, asked=asked, resume=resume, trainer=trainer, progress=RichProgress()
    )
    made = trained.artifact
    click.echo(
        f"LoRA {made.version} of {made.persona}: {made.steps} steps on dataset {made.dataset} "
        f"in {made.seconds:.0f} s"
    )
    click.echo(str(trained.folder))
    elsewhere = made.trainer != "native"
    click.echo("next: oblik lora install --to comfyui" if elsewhere else 'next: oblik generate "in a park"')
