"""People: who they are, by what right, and how a prompt names them.

In: settings and plain values. Out: personas and proofs. Knows nothing of photos.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblik.studio.house import now, pack_of, personas_of

if TYPE_CHECKING:
    from oblik.personas.enrol import Application, NewPersona
    from oblik.personas.persona import Consent, Persona
    from oblik.personas.trigger import TokenProof
    from oblik.settings import Settings


def make_consent(*, synthetic: bool = False, **typed: Any) -> Consent | None:
    """A consent record from what was ``typed`` (see `oblik.personas.enrol.signed_consent`); None when
    nothing was. ``synthetic`` is for rendered people."""
    from oblik.personas.enrol import signed_consent, synthetic_consent

    return synthetic_consent(now().date()) if synthetic else signed_consent(**typed)


def create_persona(settings: Settings, application: Application) -> NewPersona:
    """Create a persona with a consent record and reserve its trigger on the active pack.

    Raises:
        ConsentError: there is no consent, or a signed one without a document.
        InvalidInput: a slug, trigger or descriptor that cannot be used.
        Conflict: the slug or trigger is taken.
        TokenBroken: the trigger is not one new id of the pack's tokenizer.
    """
    from oblik.personas.enrol import enrol

    return enrol(application, personas_of(settings), pack_of(settings).tokenizer_file, now())


def list_personas(settings: Settings) -> list[Persona]:
    """Every persona, by slug."""
    return personas_of(settings).list()


def show_persona(settings: Settings, slug: str | None = None) -> Persona:
    """The named persona; without a name the one of ``--persona``, else the active one."""
    return personas_of(settings).get(slug or active_slug(settings))


def use_persona(settings: Settings, slug: str) -> Persona:
    """Make a persona the active one."""
    return personas_of(settings).use(slug)


def chosen_slug(settings: Settings) -> str | None:
    """The slug of ``--persona``, else of the active persona, else None."""
    return settings.persona or personas_of(settings).active()


def active_slug(settings: Settings) -> str:
    """The slug that commands mean when none is typed. Raises NotFound when there is none."""
    from oblik.errors import NotFound

    slug = chosen_slug(settings)
    if slug is None:
        raise NotFound("no persona is active", hint="oblik persona create SLUG, or oblik persona use SLUG")
    return slug


def check_token(settings: Settings, slug: str | None = None, tokenizer: Path | None = None) -> TokenProof:
    """Prove that the persona's trigger is one id, on the active pack or on a given ``tokenizer.json``.

    Raises TokenBroken with the id sequence when it falls apart.
    """
    from oblik.personas.trigger import check, reserve

    persona = show_persona(settings, slug)
    if tokenizer is not None:
        return check(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer, persona.trigger)
    others = [other.trigger for other in list_personas(settings) if other.slug != persona.slug]
    return reserve(pack_of(settings).tokenizer_file, persona.trigger, others)


def caution(settings: Settings, slug: str | None = None) -> str:
    """What somebody must know who works for a real person with a pack of synthetic people; else empty."""
    pack, persona = pack_of(settings).manifest, show_persona(settings, slug)
    return pack.limits if pack.synthetic and persona.consent.kind == "signed" else ""


def portrayed(settings: Settings, slug: str | None = None) -> Persona:
    """The persona, once its consent covers portraits today; nothing is opened before."""
    from oblik.personas.persona import Scope

    persona = show_persona(settings, slug)
    persona.consent.require(Scope.portraits, now().date())
    return persona
