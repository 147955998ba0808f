"""Consent first, then a persona."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from oblik.errors import ConsentError, InvalidInput
from oblik.paths import Home, PersonaHome
from oblik.personas.enrol import (
    keep_document,
    make_persona,
    read_document,
    require_consent,
    signed_consent,
    synthetic_consent,
)
from oblik.personas.permission import permit
from oblik.personas.persona import Scope
from oblik.personas.vault import Vault

TODAY = date(2026, 6, 1)
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def test_nothing_given_is_no_consent() -> None:
    assert signed_consent(None, None) is None
    with pytest.raises(ConsentError, match="without the person's consent"):
        require_consent(None, None, TODAY)


@pytest.mark.parametrize(("by", "on"), [("Subject", None), (None, TODAY), ("  ", TODAY), (None, None)])
def test_half_a_record_is_refused(by: str | None, on: date | None) -> None:
    with pytest.raises(ConsentError):
        signed_consent(by, on, "portraits")


def test_a_signed_consent_needs_its_document(tmp_path: Path) -> None:
    consent = signed_consent("Subject", TODAY, "portraits, chat")
    assert consent is not None
    assert consent.scopes == {Scope.portraits, Scope.chat}
    with pytest.raises(ConsentError, match="signed document"):
        require_consent(consent, None, TODAY)
    assert require_consent(consent, tmp_path / "paper.pdf", TODAY) == consent


@pytest.mark.parametrize(
    ("expires", "today"), [(date(2026, 6, 2), date(2026, 6, 3)), (None, date(2026, 5, 1))]
)
def test_a_consent_that_does_not_hold_today_is_refused(expires: date | None, today: date) -> None:
    consent = signed_consent("Subject", TODAY, "portraits", expires_on=expires)
    with pytest.raises(ConsentError):
        require_consent(consent, Path("paper.pdf"), today)


def test_somebody_may_allow_their_voice_and_no_pictures(home: Home) -> None:
    consent = require_consent(signed_consent("Subject", TODAY, "voice"), Path("paper.pdf"), TODAY)
    made = make_persona("subject", consent, NOW, trigger=None, descriptors={})
    permit(made, "voice", home=home, now=NOW)
    with pytest.raises(ConsentError, match="does not cover 'portraits'"):
        permit(made, "train", home=home, now=NOW)


def test_an_unknown_scope_is_named() -> None:
    with pytest.raises(InvalidInput, match="'billboards'"):
        signed_consent("Subject", TODAY, "portraits,billboards")


def test_rendered_people_grant_everything() -> None:
    consent = require_consent(synthetic_consent(TODAY), None, TODAY)
    assert consent.kind == "synthetic"
    assert consent.scopes == frozenset(Scope)


def test_the_noun_follows_from_the_gender() -> None:
    consent = synthetic_consent(TODAY)
    made = make_persona(
        "subject-b", consent, NOW, trigger=None, descriptors={"gender": "woman", "age": "Old"}
    )
    assert (made.trigger, made.class_noun, made.descriptors["age"]) == ("<oblik_subject_b>", "woman", "old")
    assert make_persona("x", consent, NOW, trigger="<zz_x>", descriptors={}).class_noun == "person"


@pytest.mark.parametrize("slug", ["Subject", "../subject", "", "a" * 41, "-a", "a/b"])
def test_a_slug_is_plain(slug: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a persona"):
        make_persona(slug, synthetic_consent(TODAY), NOW, trigger=None, descriptors={})


def test_descriptors_are_plain_words() -> None:
    for bad in ({"hair_color": "brown, 8k"}, {"nose": "big"}):
        with pytest.raises(InvalidInput, match="not a plain word"):
            make_persona("subject", synthetic_consent(TODAY), NOW, trigger=None, descriptors=bad)


def test_the_document_goes_into_the_vault_and_nowhere_else(tmp_path: Path) -> None:
    paper = tmp_path / "Consent Subject.PDF"
    paper.write_bytes(b"%PDF-1.4 signed")
    made = make_persona("subject", synthetic_consent(TODAY), NOW, trigger=None, descriptors={})
    home = PersonaHome(tmp_path / "home" / "subject")
    vault = Vault.open(home, made)
    kept = keep_document(made, read_document(paper), vault).consent
    assert kept.document_sha256 is not None
    assert vault.get(kept.document_sha256) == b"%PDF-1.4 signed"
    assert (home.root / str(kept.document)).is_file()
    assert [entry.name for entry in vault.entries()] == ["consent (application/pdf)"]
    for file in home.root.rglob("*"):
        assert not file.is_file() or b"signed" not in file.read_bytes()


@pytest.mark.parametrize("content", [b"", b"just text", b"MZ program"])
def test_a_document_that_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    paper = tmp_path / "consent.pdf"
    paper.write_bytes(content)
    with pytest.raises(InvalidInput, match="not a PDF, JPEG or PNG"):
        read_document(paper)


def test_a_minor_needs_a_guardian() -> None:
    alone = signed_consent("Subject", TODAY, "portraits", minor=True)
    with pytest.raises(ConsentError, match="minor") as refused:
        require_consent(alone, Path("paper.pdf"), TODAY)
    assert "--guardian" in refused.value.hint
    kept = signed_consent("Subject", TODAY, "portraits", guardian="Parent")
    assert kept is not None
    assert kept.minor
    assert require_consent(kept, Path("paper.pdf"), TODAY) == kept
