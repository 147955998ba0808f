"""``oblik train``: a LoRA of the persona from its dataset.

In: flags. Out: a new version under the persona's ``loras/``. Knows nothing of tensors.
"""

from __future__ import annotations

from typing import Any

import click

from oblik import studio
from oblik.cli import note
from oblik.errors import NotFound
from oblik.progress import RichProgress
from oblik.settings import Settings


def settings_of(_context: object, _parameter: object, given: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` pairs as a table."""
    pairs = [each.partition("=") for each in given]
    for name, sign, _ in pairs:
        if not (name and sign):
            raise click.BadParameter(f"{name!r} is not NAME=VALUE")
    return {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}


@click.command()
@click.option("--persona", "slug", help="Persona to train.  [the active one]")
@click.option("--dataset", metavar="VERSION", help="Dataset version.  [the newest]")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [as the pack advises]")
@click.option("--rank", type=click.IntRange(1, 256), help="Rank of the LoRA.")
@click.option("--alpha", type=click.FloatRange(min=0, min_open=True), help="Alpha of the LoRA.")
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Learning rate of the LoRA."
)
@click.option(
    "--targets",
    metavar="WORDS",
    help="What learns: attention, mlp, text, with commas.  [as the pack advises]",
)
@click.option(
    "--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), help="Type of the base model's arithmetic."
)
@click.option(
    "--size", "size_px", type=click.IntRange(min=0), help="Short side to shrink photos to, in pixels."
)
@click.option("--batch", type=click.IntRange(min=1), help="Photos in one step.")
@click.option(
    "--micro-batch", type=click.IntRange(min=1), help="Photos in memory at once; the step stays the same."
)
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing", default=None, help="Less memory, a third slower."
)
@click.option("--optimiser", type=click.Choice(["adamw", "adamw8bit"]), help="8 bit needs an NVIDIA card.")
@click.option(
    "--text-layers", type=click.IntRange(min=0), help="Upper layers of the text encoder that learn; 0: none."
)
@click.option(
    "--patience", type=click.IntRange(min=0), help="Validations without gain that end the run; 0: never."
)
@click.option("--sample-every", type=click.IntRange(min=0), help="Steps between probe pictures; 0: none.")
@click.option("--tensorboard", is_flag=True, default=None, help="Write TensorBoard events as well.")
@click.option("--seed", type=int, help="Seed of everything that is drawn.")
@click.option(
    "--set", "more", multiple=True, metavar="NAME=VALUE", callback=settings_of,
    help="Any other setting of docs/settings.md, for example ema=0.99 or schedule=constant; repeatable.",
)  # fmt: skip
@click.option(
    "--trainer", default="native", show_default=True, metavar="NAME",
    help="native, or kohya: your checkout of sd-scripts, for Stable Diffusion.",
)  # fmt: skip
@click.option(
    "--accept/--no-accept", default=True, show_default=True, help="Test the LoRA afterwards with 12 pictures."
)
@click.option("--resume", is_flag=True, help="Go on with a training that was stopped.")
@click.pass_obj
def command(
    settings: Settings, /, slug: str | None, dataset: str | None, resume: bool, accept: bool, trainer: str,
    more: dict[str, str], **flags: Any,
) -> None:  # fmt: skip
    """Train a LoRA of the persona on a dataset.

    The base model is never changed: a small set of weights and one new word learn the person. Ctrl-C
    finishes the step and saves; --resume goes on to the same weights, also after a crash.
    """
    note(studio.caution(settings, slug))
    asked = {**more, **{name: value for name, value in flags.items() if value is not None}}
    trained = studio.train(
        settings, slug, dataset=dataset, asked=asked, resume=resume, trainer=trainer, progress=RichProgress(),
        say=note,
    )  # fmt: skip
    made = trained.artifact
    chosen = f", weights of step {made.chosen_step}" if made.chosen_step is not None else ""
    click.echo(
        f"LoRA {made.version} of {made.persona}: {made.steps} steps on dataset {made.dataset} "
        f"in {made.seconds:.0f} s{chosen}"
    )
    click.echo(str(trained.folder))
    if made.passed is False:
        note(
            "no checkpoint passed the guards against bleed and copying, so the last weights were kept: "
            "see choice.png"
        )
    if made.trainer != "native":
        click.echo("next: oblik lora install --to comfyui")
        return
    if accept:
        _test(settings, made.persona, made.version)
    click.echo('next: oblik generate "in a park"')


def _test(settings: Settings, slug: str, version: str) -> None:
    """A LoRA that nothing is there to test with is trained all the same."""
    try:
        tested = studio.accept(settings, slug, version=version, progress=RichProgress())
    except NotFound as missing:
        note(
            f"not tested: {missing.message}; {missing.hint}, then: oblik likeness accept --version {version}"
        )
        return
    click.secho(tested.acceptance.line, bold=True)
    click.echo(str(tested.folder / "acceptance.png"))
