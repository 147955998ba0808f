"""``oblik pack``: the base models that lie on this machine, and those that can be pulled.

In: a pack's name. Out: tables, and problems with files as an error. Knows nothing of tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oblik.cli import note
from oblik.errors import InvalidInput, PackBroken
from oblik.paths import Home

if TYPE_CHECKING:
    from oblik.packs.catalogue import Entry, Part
    from oblik.packs.manifest import OpenPack
    from oblik.settings import Settings

MIB = 1024**2


@click.group()
def command() -> None:
    """Pull, list, inspect, verify and remove base models."""


@command.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """Name every pack, its size in pixels and on disk, and whether it is the chosen one."""
    from oblik.packs.catalogue import catalogue
    from oblik.packs.store import list_packs

    here = list_packs(Home(settings.home))
    for pack in here:
        manifest = pack.manifest
        chosen = "*" if manifest.name == settings.pack else " "
        people = "  synthetic people" if manifest.synthetic else ""
        size = size_of(total_bytes(pack))
        click.echo(
            f"{chosen} {manifest.name} {manifest.version}  {manifest.native_size_px} px  {size}{people}"
        )
    there = catalogue().keys() - {pack.manifest.name for pack in here}
    if there:
        click.echo(f"can be pulled: {', '.join(sorted(there))}")


@command.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the catalogue's entry, to be corrected by hand.")
@click.pass_obj
def info(settings: Settings, name: str | None, as_json: bool) -> None:
    """Show a pack's parts, their sources and licences, and what it cannot do.

    Of a pack that is not here yet: what could be pulled, which choices there are, and which names could not
    be confirmed.
    """
    from oblik.errors import NotFound
    from oblik.packs.catalogue import find_entry
    from oblik.packs.store import open_pack

    name = name or settings.pack
    if as_json:
        click.echo(find_entry(name).model_dump_json(indent=2, exclude_defaults=True))
        return
    try:
        pack = open_pack(name, Home(settings.home))
    except NotFound:
        try:
            entry = find_entry(name)
        except NotFound:
            entry = None
        if entry is None:
            raise
        _show_entry(entry)
        return
    _show_pack(pack)


@command.command("verify")
@click.argument("name", required=False)
@click.pass_obj
def verify_(settings: Settings, name: str | None) -> None:
    """Compare every file of a pack with the hash that it was pulled with."""
    from oblik.packs.store import open_pack, verify
    from oblik.progress import RichProgress

    pack = open_pack(name or settings.pack, Home(settings.home))
    count = sum(len(component.files) for component in pack.manifest.components.values())
    with RichProgress().stage("verify", count) as advance:
        problems = verify(pack, lambda path: advance(note=path))
    if problems:
        raise PackBroken(
            f"{pack.manifest.name}: " + "; ".join(problems), hint=f"restore the files: {again(pack)}"
        )
    click.echo(f"{pack.manifest.name} {pack.manifest.version}: {count} files, all as in the manifest")


@command.command()
@click.argument("name")
@click.option("--variant", help="Which weights, where there is a choice; `pack info` lists them.")
@click.option("--with", "options", multiple=True, help="Parts beyond the default, separated by commas.")
@click.option(
    "--from", "folder", type=click.Path(path_type=Path), help="Copy from this folder; nothing goes online."
)
@click.option(
    "--accept-licence", "accepted", multiple=True, help="Accept a licence that forbids commercial use."
)
@click.pass_obj
def pull(
    settings: Settings,
    name: str,
    variant: str | None,
    options: tuple[str, ...],
    folder: Path | None,
    accepted: tuple[str, ...],
) -> None:
    """Fetch a pack from the model hub, or from a folder or USB stick with --from.

    NAME is one of `oblik pack list`, or a file as `oblik pack info NAME --json` prints it. Stopped, the same
    command goes on. HF_ENDPOINT names another hub or a mirror. This is the only command that goes online.
    """
    from oblik import studio
    from oblik.packs.catalogue import find_entry
    from oblik.packs.pull import Wish
    from oblik.progress import RichProgress

    entry = find_entry(name)
    chosen = tuple(word for group in options for word in group.split(",") if word)
    wish = Wish(entry, name, variant, chosen, accepted, str(folder) if folder else None)
    _show_parts(entry.select(variant, chosen), to_stderr=True)
    pulled = studio.pull_pack(settings, wish, progress=RichProgress())
    if pulled.unchecked:
        note("nothing had a hash to check these by: " + ", ".join(pulled.unchecked))
    for component in pulled.pack.manifest.components.values():
        if not component.commercial_use:
            note(f"{component.source}: {component.licence} forbids commercial use")
    size = size_of(total_bytes(pulled.pack))
    click.echo(f"{entry.name} {entry.pack.version}: {len(pulled.lock.files)} files, {size}, checked")
    click.echo(str(pulled.pack.folder))


@command.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(settings: Settings, name: str, yes: bool) -> None:
    """Delete a pulled pack, and what an interrupted pull left of it."""
    from oblik import studio
    from oblik.packs.store import list_packs

    sizes = {pack.folder.name: size_of(total_bytes(pack)) for pack in list_packs(Home(settings.home))}
    if not yes and not click.confirm(
        f"Delete {name} ({sizes.get(name, 'not complete')}) from this machine?", err=True
    ):
        raise InvalidInput("nothing was deleted", hint=f"oblik pack remove {name} --yes")
    studio.remove_pack(settings, name)
    click.echo(f"{name} is deleted")


def total_bytes(pack: OpenPack) -> int:
    """Size of all files that the manifest names."""
    return sum(file.bytes for component in pack.manifest.components.values() for file in component.files)


def size_of(n_bytes: int) -> str:
    """For a person: MiB, or GiB where there are many."""
    return f"{n_bytes / MIB:.0f} MiB" if n_bytes < 10_000 * MIB else f"{n_bytes / MIB / 1024:.1f} GiB"


def again(pack: OpenPack) -> str:
    """The command that brings a pack back to what it was."""
    from oblik.packs.lock import LOCK

    pulled = (pack.folder / LOCK).is_file()
    return f"oblik pack pull {pack.manifest.name}" if pulled else "oblik pack verify, once they are back"


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


def _show_pack(pack: OpenPack) -> None:
    from rich.console import Console
    from rich.table import Table

    from oblik.packs.lock import read_lock

    manifest, lock = pack.manifest, read_lock(pack.folder)
    click.echo(f"{manifest.name} {manifest.version} ({manifest.family}, {manifest.native_size_px} px)")
    click.echo(str(pack.folder))
    if lock:
        choices = ", ".join([*([lock.variant] if lock.variant else []), *lock.options])
        click.echo(f"pulled {lock.pulled:%Y-%m-%d} from {lock.source}" + (f": {choices}" if choices else ""))
    table = Table("part", "size", "licence", "commercial use", "source", box=None)
    for part, component in manifest.components.items():
        size = f"{sum(file.bytes for file in component.files) / MIB:.1f} MiB"
        allowed = "yes" if component.commercial_use else "no"
        at = f"@{component.revision[:12]}" if component.revision else ""
        table.add_row(part, size, component.licence, allowed, component.source + at)
    Console(highlight=False).print(table)
    if manifest.limits:
        click.echo(f"Limits: {manifest.limits}")


def _show_entry(entry: Entry) -> None:
    pack = entry.pack
    click.echo(f"{entry.name} {pack.version} ({pack.family}, {pack.native_size_px} px), not on this machine")
    _show_parts(entry.parts)
    for kind, choices in (("--variant", entry.variants), ("--with", entry.options)):
        for name, meaning in choices.items():
            click.echo(f"{kind} {name}: {meaning}")
    for part in entry.parts:
        for file in part.files:
            if not file.confirmed:
                click.echo(f"not confirmed: {file.file} of {part.repository}: {file.note}")
    if pack.limits:
        click.echo(f"Limits: {pack.limits}")
    click.echo(f"Next: oblik pack pull {entry.name}")


def _show_parts(parts: list[Part], *, to_stderr: bool = False) -> None:
    """Sizes are those that the catalogue knows: the small files are left out, the hub tells the rest."""
    for part in parts:
        size = size_of(part.about_bytes) if part.about_bytes >= MIB else ""
        choice = " ".join(word for word in (part.variant, part.option) if word)
        terms = part.licence if part.commercial_use else f"{part.licence}, no commercial use"
        line = f"  {part.component:<16} {choice:<11} {size:>9}  {part.repository} ({terms})"
        click.echo(line, err=to_stderr)
