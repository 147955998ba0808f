"""Consent first, then a persona."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from oblik.errors import ConsentError, InvalidInput
from oblik.paths import Home
from oblik.personas.enrol import (
    keep_document,
    make_persona,
    require_consent,
    signed_consent,
    synthetic_consent,
)
from oblik.personas.persona import Scope

TODAY = date(2026, 6, 1)
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def test_nothing_given_is_no_consent() -> None:
    assert signed_consent(None, None, "portraits") is None
    with pytest.raises(ConsentError, match="without the person's consent"):
        require_consent(None, None, TODAY)


@pytest.mark.parametrize(("by", "on"), [("Subject", None), (None, TODAY), ("  ", TODAY)])
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
    ("scopes", "expires", "today"),
    [
        ("chat", None, TODAY),
        ("portraits", date(2026, 6, 2), date(2026, 6, 3)),
        ("portraits", None, date(2026, 5, 1)),
    ],
)
def test_a_consent_that_does_not_hold_today_is_refused(
    scopes: str, expires: date | None, today: date
) -> None:
    consent = signed_consent("Subject", TODAY, scopes, expires_on=expires)
    with pytest.raises(ConsentError):
        require_consent(consent, Path("paper.pdf"), today)


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


def test_the_document_is_copied_and_hashed(tmp_path: Path) -> None:
    paper = tmp_path / "Consent Subject.PDF"
    paper.write_bytes(b"%PDF-1.4 signed")
    made = make_persona("subject", synthetic_consent(TODAY), NOW, trigger=None, descriptors={})
    kept = keep_document(made, paper, Home(tmp_path / "home"))
    assert kept.consent.document is not None
    copy = tmp_path / "home" / "personas" / "subject" / kept.consent.document
    assert copy.read_bytes() == b"%PDF-1.4 signed"
    assert kept.consent.document_sha256 is not None
    assert copy.stem == kept.consent.document_sha256[:20]


@pytest.mark.parametrize("content", [b"", b"just text", b"MZ program"])
def test_a_document_that_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    paper = tmp_path / "consent.pdf"
    paper.write_bytes(content)
    made = make_persona("subject", synthetic_consent(TODAY), NOW, trigger=None, descriptors={})
    with pytest.raises(InvalidInput, match="not a PDF, JPEG or PNG"):
        keep_document(made, paper, Home(tmp_path / "home"))
    assert not (tmp_path / "home").exists()
