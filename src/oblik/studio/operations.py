"""Every operation on a person passes here: its lines in the audit log are written in this one place.

In: the name of an operation and whom it is about. Out: a line when it begins, and one that says how it
ended: done, refused, failed or stopped, with a few harmless values; and a line in the log of the day. Knows
nothing of what the operations do; whether they are allowed is asked in `oblik.personas.permission`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from oblik.studio.house import home_of, now, personas_of

if TYPE_CHECKING:
    from oblik.flows.logs import Level
    from oblik.personas.audit import Line, Plain
    from oblik.personas.audit_check import Verdict
    from oblik.personas.persona import Persona
    from oblik.settings import Settings


LEVELS: dict[str, Level] = {"refused": "warning", "stopped": "warning", "failed": "error"}


@contextmanager
def operation(settings: Settings, what: str, slug: str | None) -> Iterator[dict[str, Plain]]:
    """Write that ``what`` begins with the persona ``slug``, and how it ended.

    What is put into the dictionary stands in the last line; the consent is the one on the disk at that time.
    An operation that has a scope is refused here, before it begins.
    """
    from oblik.errors import OblikError, RequestError

    began_s = time.monotonic()
    _note(settings, what, slug, {"outcome": "begun"})
    details: dict[str, Plain] = {}
    try:
        _permit(settings, what, slug)
        yield details
    except OblikError as error:
        outcome = "refused" if isinstance(error, RequestError) else "failed"
        outcome = "stopped" if error.exit_status == 4 else outcome
        ended = {**details, "outcome": outcome, "error": error.code}
        words = None if outcome == "refused" else error.message  # a refusal quotes what somebody typed
        log(settings, what, slug, seconds=_since(began_s), message=words, **ended)
        _note(settings, what, slug, ended)
        raise
    except KeyboardInterrupt:
        ended = {**details, "outcome": "stopped"}
        log(settings, what, slug, seconds=_since(began_s), **ended)
        _note(settings, what, slug, ended)
        raise
    except BaseException as error:
        ended = {**details, "outcome": "failed", "error": type(error).__name__}
        log(settings, what, slug, seconds=_since(began_s), message=str(error), **ended)
        _note(settings, what, slug, ended)
        raise
    log(settings, what, slug, seconds=_since(began_s), outcome="done", **details)
    _note(settings, what, slug, {**details, "outcome": "done"})


def log(settings: Settings, what: str, slug: str | None, **values: Any) -> None:
    """Write a line into the log, harmless unless ``outcome`` says otherwise. A full disk stops no work."""
    from oblik.flows.logs import Journal

    level = LEVELS.get(str(values.get("outcome", "")), "info")
    journal = Journal(home_of(settings), settings.log_days, settings.log_mib << 20)
    with suppress(OSError):
        journal.write(what, now=now(), level=level, persona=slug, **values)


def _since(began_s: float) -> float:
    return round(time.monotonic() - began_s, 1)


def verify_audit(settings: Settings, noted: str | None = None) -> Verdict:
    """Follow the audit log from its first line to its last; ``noted`` is a last hash from an earlier time."""
    from oblik.personas.audit import AuditLog
    from oblik.personas.audit_check import verify

    return verify(AuditLog(home_of(settings)), noted)


def read_audit(settings: Settings, slug: str | None = None) -> list[Line]:
    """The lines of the audit log, oldest first; of one persona when ``slug`` is given."""
    from oblik.personas.audit import AuditLog

    found = [line for _, line in AuditLog(home_of(settings)).lines() if line is not None]
    return [line for line in found if slug is None or line.persona == slug]


def _permit(settings: Settings, what: str, slug: str | None) -> None:
    from oblik.personas.permission import NEEDS, permit

    if what in NEEDS and slug is not None:
        permit(personas_of(settings).get(slug), what, home=home_of(settings), now=now())


def _note(settings: Settings, what: str, slug: str | None, details: dict[str, Plain]) -> None:
    from oblik.personas.audit import AuditLog
    from oblik.personas.persona import SLUG
    from oblik.personas.store import consent_sha256

    slug = slug if slug and re.fullmatch(SLUG, slug) else None
    persona = _known(settings, slug)
    consent = consent_sha256(persona.consent) if persona else None
    AuditLog(home_of(settings)).append(what, now=now(), persona=slug, consent=consent, details=details)


def _known(settings: Settings, slug: str | None) -> Persona | None:
    """The persona, where there is one that can be read."""
    from oblik.errors import OblikError

    try:
        return personas_of(settings).get(slug) if slug else None
    except OblikError:
        return None
