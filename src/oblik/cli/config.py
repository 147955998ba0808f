"""``oblik config``: whether the settings can be worked with.

In: the settings. Out: a table; exit status 2 when something is wrong. Knows nothing of the programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oblik import studio
from oblik.errors import InvalidInput

if TYPE_CHECKING:
    from oblik.settings import Settings

GIB = 1024**3


@click.group()
def command() -> None:
    """Check the folders and programs that the settings name."""


@command.command()
@click.pass_obj
def test(settings: Settings) -> None:
    """Check that every folder is there, can be written and has room; kohya's programs, too.

    Ends with status 2 when something is wrong. What is not set is no mistake.
    """
    checks = studio.check_config(settings)
    for check in checks:
        mark = "wrong" if check.problem else "ok" if check.place else "not set"
        free = "" if check.free_bytes is None else f"{check.free_bytes / GIB:.1f} GiB free"
        words = "  ".join(word for word in (str(check.place or ""), free, check.problem) if word)
        click.echo(f"{mark:<8} {check.name:<26} {words}".rstrip())
    wrong = [check.name for check in checks if check.problem]
    if wrong:
        raise InvalidInput(
            f"wrong: {', '.join(wrong)}",
            hint="correct them in oblik.toml (oblik doctor says where each value is from)",
        )
