"""From what somebody typed to a persona with a consent record.

In: an `Application` (slug, consent, descriptors, the signed document) and a tokenizer. Out: a `Persona` whose
consent names the document in its vault and its hash, and the proof of its token. Knows no packs or photos.
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
from oblik.personas.keys import Machine
from oblik.personas.persona import Consent, Persona, Scope
from oblik.personas.store import PersonaStore
from oblik.personas.trigger import TokenProof, borrow, default_trigger, reserve, write_proof
from oblik.personas.vault import DOCUMENTS, Vault

DESCRIPTORS = ("gender", "age", "skin", "hair_color", "hair_style", "beard", "eyes")
NOUNS = {"woman": "woman", "man": "man"}
PAPERS = {b"%PDF": "application/pdf", b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
WORD = r"[a-z][a-z -]{0,29}"
MAX_DOCUMENT_BYTES = 50_000_000
HOW = (
    "oblik persona create SLUG --consent-by NAME --consent-date 2026-01-31 --scopes portraits --document FILE"
)


class Application(NamedTuple):
    """What somebody typed to create a persona. ``document`` is the signed paper.

    ``borrowed``: the vocabulary can't be extended, so the token is a rare lexeme that it has.
    """

    slug: str
    consent: Consent | None
    document: Path | None = None
    trigger: str | None = None
    descriptors: Mapping[str, str] = {}
    borrowed: bool = False


class NewPersona(NamedTuple):
    """A created persona, the proof that its trigger holds on the active pack, how its vault is protected."""

    persona: Persona
    proof: TokenProof
    folder: Path
    protection: str


def enrol(
    application: Application,
    store: PersonaStore,
    tokenizer_file: Path,
    now: datetime,
    machine: Machine | None = None,
) -> NewPersona:
    """Check the consent, prove the trigger, keep the document, write the persona; the first is active.

    Raises ConsentError, InvalidInput, Conflict, TokenBroken or BackendUnavailable; then there is no persona.
    """
    consent = require_consent(application.consent, application.document, now.date())
    slug, document = application.slug, application.document
    made = make_persona(slug, consent, now, trigger=application.trigger, descriptors=application.descriptors)
    others = [other.trigger for other in store.list() if other.slug != slug]
    if application.borrowed:
        proof = borrow(tokenizer_file, application.trigger, others)
        made = made.model_copy(update={"trigger": proof.trigger})
    else:
        proof = reserve(tokenizer_file, made.trigger, others)
    store.require_free(made)
    paper = read_document(document) if document is not None else None
    vault = Vault.open(store.home.persona(slug), made, machine=machine)
    persona = store.create(keep_document(made, paper, vault))
    write_proof(proof, store.home.persona(slug).token)
    if store.active() is None:
        store.use(slug)
    return NewPersona(persona, proof, store.home.persona(slug).root, vault.protection)


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
    scopes: str | None = None,
    *,
    expires_on: date | None = None,
    guardian: str | None = None,
    minor: bool = False,
) -> Consent | None:
    """A signed record from what was typed; None when nothing was.

    ``scopes`` are separated by commas, without them it is portraits. Whoever has a guardian is a minor.

    Raises ConsentError for an incomplete record and InvalidInput for a scope that does not exist.
    """
    if not any((by, on, scopes, expires_on, guardian, minor)):
        return None
    if not by or not by.strip() or on is None:
        raise ConsentError("a consent record needs who signed it and on which day", hint=HOW)
    names = [name.strip() for name in (scopes or "portraits").split(",") if name.strip()]
    unknown = [name for name in names if name not in Scope.__members__]
    if unknown or not names:
        raise InvalidInput(
            f"no scope is called {unknown[0]!r}" if unknown else "the consent grants no scope",
            hint=f"scopes: {','.join(Scope.__members__)}",
        )
    return Consent(
        kind="signed", signed_by=by.strip(), signed_on=on, scopes=frozenset(Scope(name) for name in names),
        expires_on=expires_on, guardian=guardian, minor=minor or guardian is not None,
    )  # fmt: skip


def require_consent(consent: Consent | None, document: Path | None, today: date) -> Consent:
    """The consent, if it is one to create a persona under; raise ConsentError otherwise."""
    if consent is None:
        raise ConsentError("a persona cannot be created without the person's consent", hint=HOW)
    if consent.kind == "signed" and document is None:
        raise ConsentError("a signed consent needs the signed document", hint=f"{HOW} (PDF, JPEG or PNG)")
    consent.require_valid(today)
    return consent


def make_persona(
    slug: str, consent: Consent, now: datetime, *, trigger: str | None, descriptors: Mapping[str, str]
) -> Persona:
    """A persona that is not written yet. Raises InvalidInput for a slug or descriptor that can't be used."""
    words = plain_words(descriptors)
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


def plain_words(descriptors: Mapping[str, str]) -> dict[str, str]:
    """Descriptors as captions use them; empty ones are left out. Raises InvalidInput for anything else."""
    words = {key: value.strip().lower() for key, value in descriptors.items() if value.strip()}
    for key, value in words.items():
        if key not in DESCRIPTORS or not re.fullmatch(WORD, value):
            raise InvalidInput(
                f"{key} {value!r} is not a plain word", hint=f"descriptors are {', '.join(DESCRIPTORS)}"
            )
    return words


def read_document(document: Path) -> bytes:
    """The signed paper. Raises InvalidInput unless it is a PDF, JPEG or PNG of a sensible size."""
    if not document.is_file() or document.stat().st_size > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"{document} is not a document that can be kept", hint="give a PDF, JPEG or PNG")
    content = document.read_bytes()
    if not any(content.startswith(magic) for magic in PAPERS):
        raise InvalidInput(f"{document.name} is not a PDF, JPEG or PNG", hint="scan the signed paper")
    return content


def keep_document(persona: Persona, paper: bytes | None, vault: Vault) -> Persona:
    """Put the signed paper into the vault and note where it is and its hash in the consent."""
    if paper is None:
        return persona
    kind = next(kind for magic, kind in PAPERS.items() if paper.startswith(magic))
    digest = vault.put(paper, kind=DOCUMENTS, name=f"consent ({kind})")
    record = {"document": f"vault/{DOCUMENTS}/{digest}.age", "document_sha256": digest}
    return persona.model_copy(update={"consent": persona.consent.model_copy(update=record)})
