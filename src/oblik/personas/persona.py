"""The noun `Persona`: one person, by what right, and how a prompt names them.

What is written to ``personas/<slug>/persona.toml``. Knows nothing of photos, packs or storage.
What consent records do *not* guarantee: Oblik cannot verify a signature; it refuses to work
without a record and keeps the record beside everything made under it.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from oblik.errors import ConsentError

SLUG = r"^[a-z0-9][a-z0-9-]{0,39}$"


class Scope(str, Enum):
    """What a consent can allow. Every operation names the one that it needs."""

    portraits = "portraits"
    edit = "edit"
    chat = "chat"
    voice = "voice"
    avatar = "avatar"
    publish = "publish"


class Consent(BaseModel):
    """Who allowed what, when, until when; for a minor, which guardian signed.

    ``document`` is where the signed paper lies in the vault, ``document_sha256`` the hash of its bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["signed", "synthetic"]
    signed_by: str = Field(min_length=1)
    signed_on: date
    scopes: frozenset[Scope]
    expires_on: date | None = None
    minor: bool = False
    guardian: str | None = None
    document: str | None = None
    document_sha256: str | None = None
    revoked_on: date | None = None

    def require(self, scope: Scope, today: date) -> None:
        """Raise ConsentError unless this record allows ``scope`` on ``today``."""
        self.require_valid(today)
        if scope not in self.scopes:
            granted = ", ".join(sorted(s.value for s in self.scopes)) or "nothing"
            raise ConsentError(
                f"consent does not cover {scope.value!r} (it grants: {granted})",
                hint="ask the person to extend the consent",
            )

    def require_valid(self, today: date) -> None:
        """Raise ConsentError unless this record holds on ``today``, whatever it allows."""
        if self.revoked_on is not None:
            raise ConsentError(
                f"consent was revoked on {self.revoked_on}", hint="ask the person for a new consent record"
            )
        if self.expires_on is not None and today > self.expires_on:
            raise ConsentError(f"consent expired on {self.expires_on}", hint="ask the person to sign again")
        if today < self.signed_on:
            raise ConsentError(f"consent starts on {self.signed_on}", hint="check the date of the record")
        if self.minor and not (self.guardian or "").strip():
            raise ConsentError(
                "the person is a minor, and the consent names no guardian who signed for them",
                hint="name the guardian who signed with --guardian NAME",
            )


class Persona(BaseModel):
    """One person. ``slug`` namespaces every file, token, job and log row of theirs."""

    model_config = ConfigDict(extra="forbid")

    slug: str = Field(pattern=SLUG)
    trigger: str
    class_noun: str = "person"
    descriptors: dict[str, str] = Field(default_factory=dict)
    consent: Consent
    created_at: datetime
