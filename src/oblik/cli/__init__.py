"""The command ``oblik``: global options, and sub-commands imported only when they run.

In: a command line. Out: an exit status; errors as ``error:`` and ``hint:`` lines on stderr.
The first line of every sub-command's help stands in ``COMMANDS``, so that ``oblik --help`` imports
none of them. Knows nothing of what they do.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from oblik import __version__
from oblik.errors import JobCancelled, OblikError

COMMANDS = {
    "persona": "Create, change and delete people, each with a consent record.",
    "token": "Check that a trigger token stays one id in the pack's tokenizer.",
    "dataset": "Turn a folder of photos into a curated, captioned dataset.",
    "train": "Train a LoRA of the persona on a dataset.",
    "lora": "List, compare, choose, export and install trained LoRAs.",
    "generate": 'Make portraits from PROMPT, for example "in a park, smiling".',
    "edit": "Put the persona's face into IMAGE, or complete IMAGE around it.",
    "order": "Make the pictures of an ORDER.yaml, and go on where it stopped.",
    "scene": "List, save and remove scenes: @park in a prompt stands for their words.",
    "preset": "List, show, save and export presets and quality levels.",
    "gallery": "List, open, export and delete the pictures of a persona.",
    "restore": "Restore faces of a BATCH a little, where they passed the likeness check.",
    "likeness": "Calibrate the threshold and measure how alike pictures are.",
    "adapter": "Train the identity adapter of a base model; list and remove those that were.",
    "replay": "Run a record.json again, exactly as it ran.",
    "report": "Report a day: likeness, mode switches, failures, acceptance.",
    "audit": "Show and verify the log of what was done with whom.",
    "pack": "Pull, list, inspect, verify and remove base models.",
    "plan": "Compute how a pack fits into a card's memory, and what that gives up.",
    "miniature": "Render people who do not exist; build the embedded pack.",
    "smoke": "Make ten pictures with one command, and see how the machine bears it.",
    "demo": "The whole flow on a rendered stranger, ending in a report.",
    "config": "Check the folders and programs that the settings name.",
    "doctor": "Say what this machine can do and what is missing.",
}


class LazyGroup(click.Group):
    """A group whose commands live in ``oblik.cli.<name>`` as the attribute ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"oblik.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            self._suggest(ctx, args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OblikError as error:
            complain(error)
            ctx.exit(error.exit_status)
        except KeyboardInterrupt:
            from oblik.progress import GO_ON

            stopped = JobCancelled("stopped", hint=GO_ON)
            complain(stopped)
            ctx.exit(stopped.exit_status)

    def _suggest(self, ctx: click.Context, typed: str) -> None:
        from difflib import get_close_matches

        close = get_close_matches(typed, COMMANDS, n=1)
        if close:
            ctx.fail(f"no such command {typed!r}; did you mean {close[0]!r}?")


def note(text: str) -> None:
    """Print something to know on stderr, when there is something."""
    if text:
        click.secho(f"note: {text}", fg="yellow", err=True)


def complain(error: OblikError) -> None:
    """Print an error and its hint on stderr."""
    click.secho(f"error: {error.message}", fg="red", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oblik")
@click.option("--home", type=click.Path(path_type=Path), help="Folder of everything Oblik keeps.  [~/.oblik]")
@click.option("--pack", help="Base model.  [miniature]")
@click.option("--device", help="auto, cpu, mps, cuda or cuda:N.  [auto]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--persona", help="Persona to work for.  [the one chosen by `persona use`]")
@click.option("--face-stack", help="pack, a pulled face pack such as auraface, or dlib.  [pack]")
@click.pass_context
def main(ctx: click.Context, /, **flags: Any) -> None:
    """A local, offline-first studio for one person's likeness.

    From a consenting person's photos it trains a LoRA and makes portraits whose likeness is
    measured. Start with `oblik demo`, or with `oblik persona create`.
    """
    from oblik.settings import Settings

    settings = Settings.load(**flags)
    _prepare_libraries(settings.threads)
    ctx.obj = settings


def _prepare_libraries(threads: int | None) -> None:
    """Numeric libraries read these when they are first imported: stay offline, do not spin."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
