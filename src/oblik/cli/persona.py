"""``oblik persona``: people, each with a consent record.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from oblik.personas.persona import Consent, Persona
    from oblik.settings import Settings

WORDS = ("gender", "age", "skin", "hair_color", "hair_style", "beard")
SCOPES = "portraits,edit,chat,voice,avatar,publish"


@click.group(name="persona")
def command() -> None:
    """Create, change and delete people, each with a consent record."""


def consent_options(function: Callable[..., None]) -> Callable[..., None]:
    """What a consent record is made of."""
    day = click.DateTime(["%Y-%m-%d"])
    for option in (
        click.option("--minor", is_flag=True, help="The person is a minor: a guardian must have signed."),
        click.option("--guardian", metavar="NAME", help="Who signed for a minor."),
        click.option("--expires", type=day, metavar="DATE", help="Last day of the consent."),
        click.option(
            "--document", type=click.Path(path_type=Path), help="The signed paper: PDF, JPEG or PNG."
        ),
        click.option("--scopes", metavar="SCOPES", help=f"What is allowed, of {SCOPES}.  [portraits]"),
        click.option("--consent-date", type=day, metavar="DATE", help="When, as 2026-01-31."),
        click.option("--consent-by", metavar="NAME", help="Who signed."),
    ):
        function = option(function)
    return function


def word_options(function: Callable[..., None]) -> Callable[..., None]:
    """Plain words about a person."""
    for option in (
        click.option("--beard", metavar="WORD", help="stubble, beard or none."),
        click.option("--hair-style", metavar="WORD", help="short, long, bob, bun, curly, bald."),
        click.option("--hair-color", metavar="WORD", help="black, brown, blond, red, gray."),
        click.option("--skin", metavar="WORD", help="fair, tan, brown or dark."),
        click.option("--age", metavar="WORD", help="young, middle-aged or old."),
        click.option("--gender", type=click.Choice(["woman", "man", "person"]), help="The noun in captions."),
    ):
        function = option(function)
    return function


@command.command()
@click.argument("slug")
@consent_options
@click.option("--synthetic-consent", is_flag=True, help="For rendered people, who do not exist.")
@click.option("--trigger", metavar="TOKEN", help="The rare word that means this person.  [<oblik_SLUG>]")
@click.option(
    "--existing-word",
    is_flag=True,
    help="For a vocabulary that can't grow: take a rare word that it has, --trigger or the rarest.",
)
@word_options
@click.pass_obj
def create(
    settings: Settings, /, slug: str, trigger: str | None, document: Path | None, **typed: Any
) -> None:
    """Create the persona SLUG under a consent record and reserve its token."""
    from oblik import studio
    from oblik.personas.enrol import Application

    descriptors = {key: typed[key] for key in WORDS if typed[key]}
    consent = _consent(typed, synthetic=typed["synthetic_consent"])
    application = Application(slug, consent, document, trigger, descriptors, typed["existing_word"])
    new = studio.create_persona(settings, application)
    click.echo(f"persona  {new.persona.slug}  in {new.folder}")
    click.echo(f"consent  {_consent_line(new.persona)}")
    click.echo(f"vault    {new.protection}")
    click.echo(f"token    {new.proof.sentence()}")
    click.echo("next     oblik dataset build PHOTOS")


@command.command(name="list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """List everybody; the active one is marked."""
    from oblik import studio

    people = studio.list_personas(settings)
    active = studio.chosen_slug(settings)
    for persona in people:
        mark = "*" if persona.slug == active else " "
        click.echo(f"{mark} {persona.slug:<24} {persona.trigger:<28} {_consent_line(persona)}")
    if not people:
        click.echo("nobody yet: oblik persona create SLUG")


@command.command()
@click.argument("slug", required=False)
@click.pass_obj
def show(settings: Settings, slug: str | None) -> None:
    """Show one person: token, descriptors, consent, datasets."""
    from oblik import studio

    persona = studio.show_persona(settings, slug)
    datasets = studio.list_datasets(settings, persona.slug)
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in persona.descriptors.items())
    click.echo(f"persona      {persona.slug}, since {persona.created_at:%Y-%m-%d}")
    click.echo(f"token        {persona.trigger} {persona.class_noun}")
    click.echo(f"descriptors  {words or 'none'}")
    click.echo(f"consent      {_consent_line(persona)}")
    click.echo(f"vault        {studio.vault_protection(settings, persona.slug)}")
    click.echo(f"scopes       {', '.join(sorted(scope.value for scope in persona.consent.scopes))}")
    mode, why = studio.usual_mode(settings, persona.slug)
    click.echo(f"mode         {mode}{f': {why}' if why else ''}")
    click.echo(
        f"datasets     {', '.join(f'{d.version} ({len(d.accepted())} photos)' for d in datasets) or 'none'}"
    )


@command.command()
@click.argument("slug")
@click.pass_obj
def use(settings: Settings, slug: str) -> None:
    """Make SLUG the person that commands mean when none is named."""
    from oblik import studio

    click.echo(f"active persona: {studio.use_persona(settings, slug).slug}")


@command.command()
@click.argument("slug", required=False)
@consent_options
@click.option("--noun", metavar="WORD", help="The class noun in captions and prompts.")
@word_options
@click.pass_obj
def edit(settings: Settings, /, slug: str | None, document: Path | None, **typed: Any) -> None:
    """Change descriptors, noun or consent of SLUG.

    An empty word takes a descriptor away. Another consent (more scopes, a later day) needs a newly signed
    document, and takes the place of the old one as a whole.
    """
    from oblik import studio
    from oblik.personas.amend import Change

    descriptors = {key: typed[key] for key in WORDS if typed[key] is not None}
    change = Change(_consent(typed), document, descriptors, typed["noun"])
    persona = studio.edit_persona(settings, slug, change)
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in persona.descriptors.items())
    click.echo(f"persona  {persona.slug}: {persona.class_noun}; {words or 'no descriptors'}")
    click.echo(f"consent  {_consent_line(persona)}")
    click.echo(f"scopes   {', '.join(sorted(scope.value for scope in persona.consent.scopes))}")


@command.command()
@click.argument("slug")
@click.pass_obj
def revoke(settings: Settings, slug: str) -> None:
    """Withdraw the consent of SLUG: nothing begins any more, and what is running stops."""
    from oblik import studio

    persona = studio.revoke_persona(settings, slug)
    click.echo(f"consent  {_consent_line(persona)}")
    click.echo(f"next     oblik persona delete {slug}, to destroy what was made")


@command.command()
@click.argument("slug")
@click.option("--yes", metavar="SLUG", help="Confirm by the slug, without being asked for it.")
@click.option("--receipt", type=click.Path(path_type=Path), help="Write the receipt to this file, too.")
@click.pass_obj
def delete(settings: Settings, slug: str, yes: str | None, receipt: Path | None) -> None:
    """Destroy everything of SLUG for good: vault key, photos, datasets, LoRAs, pictures, copies elsewhere."""
    from oblik import studio
    from oblik.errors import InvalidInput

    typed = yes or click.prompt(f"Everything of {slug} will be gone for good. Type {slug} to go on", err=True)
    if typed != slug:
        raise InvalidInput(f"{typed!r} is not {slug!r}; nothing was touched", hint="oblik persona list")
    done = studio.delete_persona(settings, slug)
    text = done.model_dump_json(indent=1)
    click.echo(f"destroyed: {done.files} files, {done.bytes:,} bytes of {slug}")
    for line in done.words():
        click.echo(f"  {line}")
    click.echo(text)
    if receipt is not None:
        receipt.write_text(text + "\n", encoding="utf-8")


@command.command()
@click.argument("slug")
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_obj
def export(settings: Settings, slug: str, out: Path) -> None:
    """Write everything of SLUG into OUT.zip, encrypted with a passphrase.

    The passphrase is OBLIK_PASSPHRASE, or asked for.
    """
    from oblik import studio

    files = studio.export_persona(settings, slug, out)
    click.echo(f"{out}: {files} files of {slug}, {out.stat().st_size:,} bytes, encrypted")


@command.command(name="import")
@click.argument("archive", type=click.Path(path_type=Path))
@click.pass_obj
def import_(settings: Settings, archive: Path) -> None:
    """Bring a person back from ARCHIVE, as `oblik persona export` wrote it."""
    from oblik import studio

    persona = studio.import_persona(settings, archive)
    click.echo(f"persona  {persona.slug}: {_consent_line(persona)}")
    click.echo(f"vault    {studio.vault_protection(settings, persona.slug)}")


def _consent(typed: dict[str, Any], *, synthetic: bool = False) -> Consent | None:
    """The record that the options make; None when none was typed."""
    from oblik import studio

    return studio.make_consent(
        by=typed["consent_by"], on=_day(typed["consent_date"]), scopes=typed["scopes"],
        expires_on=_day(typed["expires"]), guardian=typed["guardian"], minor=typed["minor"],
        synthetic=synthetic,
    )  # fmt: skip


def _consent_line(persona: Persona) -> str:
    consent = persona.consent
    if consent.kind == "synthetic":
        return "synthetic: a rendered person"
    until = f", until {consent.expires_on}" if consent.expires_on else ""
    guardian = f", guardian {consent.guardian}" if consent.guardian else ""
    state = f"revoked on {consent.revoked_on}" if consent.revoked_on else "signed"
    return f"{state} by {consent.signed_by} on {consent.signed_on}{until}{guardian}"


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
