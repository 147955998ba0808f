"""From what somebody typed to a persona with a consent record.

In: an `Application` (slug, consent, descriptors, the signed document) and a tokenizer. Out: a `Persona` whose
consent names the kept copy of the document and its hash. Knows nothing of packs or photos.
Not guaranteed: that a signature is genuine. Oblik refuses to work without a record, and keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from oblik.errors import ConsentError, InvalidInput
from oblik.paths import Home, atomic_write, sha256_file
from oblik.personas.persona import Consent, Persona, Scope
from oblik.personas.store import PersonaStore
from oblik.personas.trigger import TokenProof, default_trigger, reserve

DESCRIPTORS = ("gender", "age", "skin", "hair_color", "hair_style", "beard", "eyes")
NOUNS = {"woman": "woman", "man": "man"}
DOCUMENTS = {b"%PDF": ".pdf", b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
MAX_DOCUMENT_BYTES = 50_000_000
HOW = (
    "oblik persona create SLUG --consent-by NAME --consent-date 2026-01-31 --scopes portraits --document FILE"
)


class Application(NamedTuple):
    """What somebody typed to create a persona. ``document`` is the signed paper."""

    slug: str
    consent: Consent | None
    document: Path | None = None
    trigger: str | None = None
    descriptors: Mapping[str, str] = {}


class NewPersona(NamedTuple):
    """A created persona and the proof that its trigger holds on the active pack."""

    persona: Persona
    proof: TokenProof
    folder: Path


def enrol(application: Application, store: PersonaStore, tokenizer_file: Path, now: datetime) -> NewPersona:
    """Check the consent, prove the trigger, keep the document, write the persona; the first is active.

    Raises ConsentError, InvalidInput, Conflict or TokenBroken; then nothing was written.
    """
    consent = require_consent(application.consent, application.document, now.date())
    slug, document = application.slug, application.document
    made = make_persona(slug, consent, now, trigger=application.trigger, descriptors=application.descriptors)
    others = [other.trigger for other in store.list() if other.slug != slug]
    proof = reserve(tokenizer_file, made.trigger, others)
    persona = store.create(keep_document(made, document, store.home))
    if store.active() is None:
        store.use(slug)
    return NewPersona(persona, proof, store.home.persona(slug).root)


def synthetic_consent(today: date) -> Consent:
    """The record of a rendered person, who does not exist and grants everything."""
    return Consent(
        kind="synthetic",
        signed_by="rendered person, no real one exists",
        signed_on=today,
        scopes=frozenset(Scope),
    )


def signed_consent(
    by: str | None,
    on: date | None,
    scopes: str = "portraits",
    *,
    expires_on: date | None = None,
    guardian: str | None = None,
) -> Consent | None:
    """A signed record from what was typed (``scopes`` separated by commas); None when nothing was given.

    Raises ConsentError for an incomplete record and InvalidInput for a scope that does not exist.
    """
    if by is None and on is None:
        return None
    if not by or not by.strip() or on is None:
        raise ConsentError("a consent record needs who signed it and on which day", hint=HOW)
    names = [name.strip() for name in scopes.split(",") if name.strip()]
    unknown = [name for name in names if name not in Scope.__members__]
    if unknown or not names:
        raise InvalidInput(
            f"no scope is called {unknown[0]!r}" if unknown else "the consent grants no scope",
            hint=f"scopes: {','.join(Scope.__members__)}",
        )
    return Consent(
        kind="signed", signed_by=by.strip(), signed_on=on, scopes=frozenset(Scope(name) for name in names),
        expires_on=expires_on, guardian=guardian,
    )  # fmt: skip


def require_consent(consent: Consent | None, document: Path | None, today: date) -> Consent:
    """The consent, if it is one to create a persona under; raise ConsentError otherwise."""
    if consent is None:
        raise ConsentError("a persona cannot be created without the person's consent", hint=HOW)
    if consent.kind == "signed" and document is None:
        raise ConsentError("a signed consent needs the signed document", hint=f"{HOW} (PDF, JPEG or PNG)")
    consent.require(Scope.portraits, today)
    return consent


def make_persona(
    slug: str, consent: Consent, now: datetime, *, trigger: str | None, descriptors: Mapping[str, str]
) -> Persona:
    """A persona that is not written yet. Raises InvalidInput for a slug or descriptor that can't be used."""
    words = {key: value.strip().lower() for key, value in descriptors.items() if value.strip()}
    for key, value in words.items():
        if key not in DESCRIPTORS or not re.fullmatch(r"[a-z][a-z -]{0,29}", value):
            raise InvalidInput(
                f"{key} {value!r} is not a plain word", hint=f"descriptors are {', '.join(DESCRIPTORS)}"
            )
    try:
        return Persona(
            slug=slug, trigger=trigger or default_trigger(slug), consent=consent, created_at=now,
            class_noun=NOUNS.get(words.get("gender", ""), "person"), descriptors=words,
        )  # fmt: skip
    except ValidationError as wrong:
        raise InvalidInput(
            f"{slug!r} cannot name a persona",
            hint="use at most 40 small letters, digits and hyphens, such as subject or subject-b",
        ) from wrong


def keep_document(persona: Persona, document: Path | None, home: Home) -> Persona:
    """Copy the signed document into the persona's consent folder and record its name and hash."""
    if document is None:
        return persona
    if not document.is_file() or document.stat().st_size > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"{document} is not a document that can be kept", hint="give a PDF, JPEG or PNG")
    content = document.read_bytes()
    ending = next((end for magic, end in DOCUMENTS.items() if content.startswith(magic)), None)
    if ending is None:
        raise InvalidInput(f"{document.name} is not a PDF, JPEG or PNG", hint="scan the signed paper")
    digest = sha256_file(document)
    kept = home.persona(persona.slug).consent / f"{digest[:20]}{ending}"
    if not home.persona(persona.slug).toml.exists():
        atomic_write(kept, content)
    record = {"document": f"consent/{kept.name}", "document_sha256": digest}
    consent = persona.consent.model_copy(update=record)
    return persona.model_copy(update={"consent": consent})
