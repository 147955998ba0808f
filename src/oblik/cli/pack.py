"""``oblik pack``: the base models that lie on this machine.

In: a pack's name. Out: tables, and problems with files as an error. Knows nothing of tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oblik.errors import PackBroken
from oblik.paths import Home

if TYPE_CHECKING:
    from oblik.packs.manifest import OpenPack
    from oblik.settings import Settings

MIB = 1024**2


@click.group()
def command() -> None:
    """List, inspect and verify base models."""


@command.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """Name every pack, its size in pixels and on disk, and whether it is the chosen one."""
    from oblik.packs.store import list_packs

    for pack in list_packs(Home(settings.home)):
        manifest = pack.manifest
        chosen = "*" if manifest.name == settings.pack else " "
        people = "  synthetic people" if manifest.synthetic else ""
        size = f"{total_bytes(pack) / MIB:.0f} MiB"
        click.echo(
            f"{chosen} {manifest.name} {manifest.version}  {manifest.native_size_px} px  {size}{people}"
        )


@command.command()
@click.argument("name", required=False)
@click.pass_obj
def info(settings: Settings, name: str | None) -> None:
    """Show a pack's parts, their sources and licences, and what it cannot do."""
    from rich.console import Console
    from rich.table import Table

    from oblik.packs.store import open_pack

    pack = open_pack(name or settings.pack, Home(settings.home))
    manifest = pack.manifest
    click.echo(f"{manifest.name} {manifest.version} ({manifest.family}, {manifest.native_size_px} px)")
    click.echo(str(pack.folder))
    table = Table("part", "size", "licence", "commercial use", "source", box=None)
    for part, component in manifest.components.items():
        size = f"{sum(file.bytes for file in component.files) / MIB:.1f} MiB"
        allowed = "yes" if component.commercial_use else "no"
        table.add_row(part, size, component.licence, allowed, component.source)
    Console(highlight=False).print(table)
    if manifest.limits:
        click.echo(f"Limits: {manifest.limits}")


@command.command("verify")
@click.argument("name", required=False)
@click.pass_obj
def verify_(settings: Settings, name: str | None) -> None:
    """Compare every file of a pack with the hash in its manifest."""
    from oblik.packs.store import open_pack, verify

    pack = open_pack(name or settings.pack, Home(settings.home))
    problems = verify(pack)
    if problems:
        raise PackBroken(
            f"{pack.manifest.name}: " + "; ".join(problems), hint="restore the files, then: oblik pack verify"
        )
    count = sum(len(component.files) for component in pack.manifest.components.values())
    click.echo(f"{pack.manifest.name} {pack.manifest.version}: {count} files, all as in the manifest")


def total_bytes(pack: OpenPack) -> int:
    """Size of all files that the manifest names."""
    return sum(file.bytes for component in pack.manifest.components.values() for file in component.files)


def condition(pack: OpenPack) -> list[str]:
    """What a look at names and sizes finds wrong; ``verify`` also reads every byte."""
    problems = []
    for component in pack.manifest.components.values():
        for file in component.files:
            path = pack.folder / file.path
            if not path.is_file():
                problems.append(f"{file.path} is missing")
            elif path.stat().st_size != file.bytes:
                problems.append(f"{file.path} has {path.stat().st_size} bytes instead of {file.bytes}")
    return problems
