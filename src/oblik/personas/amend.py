"""A persona that changes: other words for it, a new consent, a consent that is withdrawn.

In: a persona and what somebody typed. Out: the persona as it is to be written; a new consent needs a newly
signed document, which goes into the vault. Knows nothing of what was made under the old consent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

from oblik.errors import ConsentError, InvalidInput
from oblik.paths import PersonaHome
from oblik.personas.enrol import (
    NOUNS,
    WORD,
    keep_document,
    plain_words,
    read_document,
    require_consent,
)
from oblik.personas.keys import Machine
from oblik.personas.persona import Consent, Persona
from oblik.personas.vault import Vault

HOW = "oblik persona edit SLUG --consent-by NAME --consent-date 2026-01-31 --scopes portraits --document FILE"


class Change(NamedTuple):
    """What somebody typed. An empty descriptor is taken away; None everywhere else is left as it is."""

    consent: Consent | None = None
    document: Path | None = None
    descriptors: Mapping[str, str] = {}
    noun: str | None = None


def amend(
    persona: Persona, change: Change, home: PersonaHome, today: date, machine: Machine | None = None
) -> Persona:
    """The persona with ``change`` laid over it; of this only a new document is written, into the vault.

    A new consent takes the place of the old one as a whole: with more scopes, a later day, or after it was
    revoked. Raises ConsentError without a newly signed document, InvalidInput for words that can't be used.
    """
    kept = plain_words(persona.descriptors | dict(change.descriptors))
    noun = change.noun or (NOUNS.get(kept.get("gender", "")) if "gender" in change.descriptors else None)
    if noun is not None and not re.fullmatch(WORD, noun):
        raise InvalidInput(f"{noun!r} is not a plain word", hint="a noun is woman, man, person, child...")
    changed = persona.model_copy(update={"descriptors": kept, "class_noun": noun or persona.class_noun})
    if change.consent is None:
        if change.document is not None:
            raise ConsentError("a document without who signed it and when changes nothing", hint=HOW)
        return changed
    paper = _renewed(
        persona.consent, require_consent(change.consent, change.document, today), change.document
    )
    vault = Vault.open(home, persona, machine=machine)
    return keep_document(changed.model_copy(update={"consent": change.consent}), paper, vault)


def revoked(persona: Persona, today: date) -> Persona:
    """The persona with a consent that allows nothing from ``today`` on; one that was revoked stays so."""
    since = persona.consent.revoked_on or today
    return persona.model_copy(update={"consent": persona.consent.model_copy(update={"revoked_on": since})})


def _renewed(old: Consent, new: Consent, document: Path | None) -> bytes:
    """The paper of a new consent. Raises ConsentError unless it was really signed anew."""
    if old.kind == "synthetic" or new.kind == "synthetic" or document is None:
        raise ConsentError(
            "a rendered person stays one, and a real person too: make a persona of their own",
            hint="oblik persona create SLUG --consent-by NAME --document FILE",
        )
    paper = read_document(document)
    if hashlib.sha256(paper).hexdigest() == old.document_sha256:
        raise ConsentError(
            "this is the document of the consent that is there", hint="let them sign a new one"
        )
    if new.signed_on < (old.revoked_on or old.signed_on):
        since = "revoked" if old.revoked_on else "signed"
        raise ConsentError(
            f"signed on {new.signed_on}, before the consent that is there was {since}",
            hint="ask the person to sign again",
        )
    return paper
