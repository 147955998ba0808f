"""``oblik token``: the trigger token and the proof that it stays one id.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oblik.settings import Settings


@click.group(name="token")
def command() -> None:
    """Check that a trigger token stays one id in the pack's tokenizer."""


@command.command()
@click.argument("persona", required=False)
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="A tokenizer.json to check instead of the pack's."
)
@click.pass_obj
def check(settings: Settings, persona: str | None, tokenizer: Path | None) -> None:
    """Print the id sequences of PERSONA's token; exit status 2 when it falls apart."""
    from oblik import studio

    proof = studio.check_token(settings, persona, tokenizer)
    click.echo(proof.sentence())
    for text, ids in proof.contexts.items():
        click.echo(f"  {text!r:<46} {' '.join(str(i) for i in ids)}")
