"""What may change without asking the person again, and what may not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from oblik.errors import ConsentError, InvalidInput
from oblik.paths import Home
from oblik.personas.amend import Change, amend, revoked
from oblik.personas.enrol import signed_consent, synthetic_consent
from oblik.personas.keys import Machine
from oblik.personas.persona import Persona, Scope
from oblik.personas.vault import Vault

TODAY = date(2026, 6, 1)
Make = Callable[..., Persona]
Edit = Callable[[Persona, Change], Persona]


@pytest.fixture
def edit(home: Home, machine: Machine) -> Edit:
    return lambda persona, change: amend(persona, change, home.persona(persona.slug), TODAY, machine)


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    paper = tmp_path / "signed anew.pdf"
    paper.write_bytes(b"%PDF-1.4 signed anew")
    return paper


def test_words_change_freely(person: Make, edit: Edit) -> None:
    first = edit(person(), Change(descriptors={"gender": "woman", "hair_color": "Brown"}))
    assert (first.class_noun, first.descriptors) == ("woman", {"gender": "woman", "hair_color": "brown"})
    second = edit(first, Change(descriptors={"hair_color": ""}, noun="girl"))
    assert (second.class_noun, second.descriptors) == ("girl", {"gender": "woman"})
    assert second.consent == person().consent
    for change in (Change(descriptors={"nose": "big"}), Change(noun="Girl, 8k")):
        with pytest.raises(InvalidInput, match="not a plain word"):
            edit(first, change)


def test_a_new_consent_needs_a_newly_signed_document(
    home: Home, person: Make, edit: Edit, paper: Path, machine: Machine
) -> None:
    wider = signed_consent("Subject", date(2026, 5, 1), "portraits,chat", expires_on=date(2030, 1, 1))
    with pytest.raises(ConsentError, match="needs the signed document"):
        edit(person(), Change(wider))
    with pytest.raises(ConsentError, match="changes nothing"):
        edit(person(), Change(document=paper))
    changed = edit(person(), Change(wider, paper))
    assert changed.consent.scopes == {Scope.portraits, Scope.chat}
    digest = str(changed.consent.document_sha256)
    vault = Vault.open(home.persona("subject"), changed, machine=machine)
    assert vault.get(digest) == paper.read_bytes()
    with pytest.raises(ConsentError, match="the document of the consent that is there"):
        edit(changed, Change(wider, paper))


def test_an_older_signature_extends_nothing(person: Make, edit: Edit, paper: Path) -> None:
    older = signed_consent("Subject", date(2025, 12, 31), "portraits,chat")
    with pytest.raises(ConsentError, match="before the consent that is there was signed"):
        edit(person(), Change(older, paper))
    again = signed_consent("Subject", date(2026, 5, 1), "portraits")
    with pytest.raises(ConsentError, match="was revoked"):
        edit(revoked(person(), TODAY), Change(again, paper))


def test_somebody_who_signs_again_after_revoking_is_back(person: Make, edit: Edit, paper: Path) -> None:
    again = signed_consent("Subject", TODAY, "portraits")
    back = edit(revoked(person(), date(2026, 5, 1)), Change(again, paper))
    back.consent.require(Scope.portraits, TODAY)


def test_a_rendered_person_never_becomes_a_real_one(person: Make, edit: Edit, paper: Path) -> None:
    real, rendered = signed_consent("Subject", TODAY, "portraits"), synthetic_consent(TODAY)
    for persona, consent in ((person(kind="synthetic"), real), (person(), rendered)):
        with pytest.raises(ConsentError, match="stays one"):
            edit(persona, Change(consent, paper))


def test_revoking_twice_keeps_the_first_day(person: Make) -> None:
    once = revoked(person(), date(2026, 5, 1))
    assert revoked(once, TODAY) == once
    with pytest.raises(ConsentError, match="2026-05-01"):
        once.consent.require(Scope.portraits, TODAY)
