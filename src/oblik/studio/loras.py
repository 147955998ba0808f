"""LoRA versions: look at them, choose one, take it to other programs and back.

In: settings and plain values. Out: entries, rows of words, paths. Knows nothing of terminals.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oblik.studio.house import home_of, now, pack_of
from oblik.studio.operations import operation
from oblik.studio.people import show_persona

if TYPE_CHECKING:
    from oblik.flows.folders import Check
    from oblik.flows.install import Source
    from oblik.flows.loras import Entry
    from oblik.packs.manifest import OpenPack
    from oblik.paths import PersonaHome
    from oblik.personas.installations import Fate, Installation
    from oblik.personas.persona import Persona
    from oblik.settings import Settings

NEWEST = "newest"


class Copies(NamedTuple):
    """Files that were written outside the home, and the licences that bind them, one line each."""

    paths: list[Path]
    licences: list[str]


def list_loras(settings: Settings, slug: str | None = None) -> list[Entry]:
    """Every finished LoRA of the persona, oldest first."""
    from oblik.flows.loras import entries

    return entries(_folders(settings, show_persona(settings, slug)))


def show_lora(
    settings: Settings, version: str | None = None, slug: str | None = None
) -> list[tuple[str, str]]:
    """One LoRA's manifest as rows of words; without a version the one in use. Raises NotFound."""
    from oblik.flows.loras import find, page

    return page(find(_folders(settings, show_persona(settings, slug)), version))


def compare_loras(
    settings: Settings, one: str, other: str, slug: str | None = None
) -> list[tuple[str, str, str]]:
    """Two versions side by side. Raises NotFound."""
    from oblik.flows.loras import compare, find

    folders = _folders(settings, show_persona(settings, slug))
    return compare(find(folders, one), find(folders, other))


def use_lora(settings: Settings, version: str, slug: str | None = None) -> str:
    """Make a version the one that is taken when none is named; "newest" takes the choice back.

    Returns the version that is in use then. Raises NotFound.
    """
    from oblik.training.artifact import choose, latest_artifact

    persona = show_persona(settings, slug)
    loras = _folders(settings, persona).loras
    with operation(settings, "lora use", persona.slug) as details:
        choose(loras, None if version == NEWEST else version)
        details["lora"] = used = latest_artifact(loras)
    return used


def export_lora(
    settings: Settings, version: str, folder: Path, form: str = "comfyui", slug: str | None = None
) -> Copies:
    """Write a LoRA for another program into ``folder``, with a README of consent and licences.

    Raises ConsentError, NotFound, InvalidInput for another form, Conflict when a file is in the way.
    """
    from oblik.flows.install import export, licences

    persona = show_persona(settings, slug)
    with operation(settings, "lora export", persona.slug) as details:
        source = _source(settings, persona, version)
        pack = _pack(settings, source)
        paths = export(source, folder.absolute(), form, persona.consent, pack, now())
        details.update(lora=source.artifact.version, files=len(paths))
    return Copies(paths, licences(pack))


def install_lora(settings: Settings, to: str, version: str | None = None, slug: str | None = None) -> Copies:
    """Copy a LoRA into another program ("easy-diffusion", "comfyui") or a folder; remembered for deletion.

    Raises ConsentError, NotFound when there is no folder for LoRAs, InvalidInput when it is not set.
    """
    from oblik.flows.folders import target
    from oblik.flows.install import install, licences

    persona = show_persona(settings, slug)
    with operation(settings, "lora install", persona.slug) as details:
        program, folder = target(to, settings)
        source = _source(settings, persona, version)
        paths = install(source, program, folder, now())
        details.update(lora=source.artifact.version, program=program, files=len(paths))
    return Copies(paths, licences(_pack(settings, source)))


def uninstall_loras(
    settings: Settings, version: str | None = None, program: str | None = None, slug: str | None = None
) -> list[tuple[Installation, Fate]]:
    """Take copies back; this needs no consent. Without a version all of them, wherever they are."""
    from oblik.flows.install import uninstall

    persona = show_persona(settings, slug)
    with operation(settings, "lora uninstall", persona.slug) as details:
        fates = uninstall(_folders(settings, persona), version, program)
        details["files"] = len(fates)
    return fates


def check_config(settings: Settings) -> list[Check]:
    """Every folder and program that the settings name, and what is wrong with it."""
    from oblik.flows.folders import check_all

    return check_all(settings)


def _folders(settings: Settings, persona: Persona) -> PersonaHome:
    return home_of(settings).persona(persona.slug)


def _source(settings: Settings, persona: Persona, version: str | None) -> Source:
    from oblik.flows.install import Source
    from oblik.flows.loras import find

    folders = _folders(settings, persona)
    entry = find(folders, version)
    return Source(folders, entry.folder, entry.artifact)


def _pack(settings: Settings, source: Source) -> OpenPack | None:
    """The pack that a LoRA was trained on, where it is still here."""
    from oblik.errors import NotFound

    try:
        return pack_of(settings.model_copy(update={"pack": source.artifact.pack}))
    except NotFound:
        return None
