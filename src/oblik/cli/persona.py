"""``oblik persona``: people, each with a consent record.

In: a command line. Out: calls of `oblik.studio`, and what came of them in words.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from oblik.personas.persona import Persona
    from oblik.settings import Settings

SCOPES = "portraits,edit,chat,voice,avatar,publish"


@click.group(name="persona")
def command() -> None:
    """Create, list and choose people, each with a consent record."""


@command.command()
@click.argument("slug")
@click.option("--consent-by", metavar="NAME", help="Who signed.")
@click.option(
    "--consent-date", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="When, as 2026-01-31."
)
@click.option("--scopes", default="portraits", show_default=True, help=f"What is allowed, of {SCOPES}.")
@click.option("--document", type=click.Path(path_type=Path), help="The signed paper: PDF, JPEG or PNG.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="Last day of the consent.")
@click.option("--guardian", metavar="NAME", help="Who signed for a minor.")
@click.option("--synthetic-consent", is_flag=True, help="For rendered people, who do not exist.")
@click.option("--trigger", metavar="TOKEN", help="The rare word that means this person.  [<oblik_SLUG>]")
@click.option("--gender", type=click.Choice(["woman", "man", "person"]), help="The noun in captions.")
@click.option("--age", metavar="WORD", help="young, middle-aged or old.")
@click.option("--skin", metavar="WORD", help="fair, tan, brown or dark.")
@click.option("--hair-color", metavar="WORD", help="black, brown, blond, red, gray.")
@click.option("--hair-style", metavar="WORD", help="short, long, bob, bun, curly, bald.")
@click.option("--beard", metavar="WORD", help="stubble, beard or none.")
@click.pass_obj
def create(
    settings: Settings, /, slug: str, trigger: str | None, document: Path | None, **typed: Any
) -> None:
    """Create the persona SLUG under a consent record and reserve its token."""
    from oblik import studio
    from oblik.personas.enrol import Application

    descriptors = {
        key: typed[key]
        for key in ("gender", "age", "skin", "hair_color", "hair_style", "beard")
        if typed[key]
    }
    consent = studio.make_consent(
        by=typed["consent_by"], on=_day(typed["consent_date"]), scopes=typed["scopes"],
        expires_on=_day(typed["expires"]), guardian=typed["guardian"], synthetic=typed["synthetic_consent"],
    )  # fmt: skip
    new = studio.create_persona(settings, Application(slug, consent, document, trigger, descriptors))
    click.echo(f"persona  {new.persona.slug}  in {new.folder}")
    click.echo(f"consent  {_consent_line(new.persona)}")
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
    click.echo(f"scopes       {', '.join(sorted(scope.value for scope in persona.consent.scopes))}")
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
