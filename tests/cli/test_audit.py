"""`oblik audit`, as typed: every operation leaves its lines, and a broken log is exit status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oblik import studio
from oblik.cli import main
from oblik.errors import ConsentError, NotFound
from oblik.paths import Home
from oblik.personas.enrol import make_persona, synthetic_consent
from oblik.personas.store import PersonaStore, consent_sha256
from oblik.settings import Settings


def oblik(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.root), *arguments])


@pytest.fixture
def settings(home: Home) -> Settings:
    now = studio.now()
    persona = make_persona("subject", synthetic_consent(now.date()), now, trigger=None, descriptors={})
    PersonaStore(home).create(persona)
    return Settings(home=home.root, persona="subject")


def outcomes(settings: Settings) -> list[tuple[str, str]]:
    return [(line.what, str(line.details["outcome"])) for line in studio.read_audit(settings)]


def test_an_operation_leaves_its_beginning_and_its_end(settings: Settings, home: Home) -> None:
    with studio.operation(settings, "train", "subject") as details:
        details["lora"] = "v001"
    begun, done = studio.read_audit(settings)
    assert (begun.persona, done.details) == ("subject", {"lora": "v001", "outcome": "done"})
    assert done.consent == consent_sha256(PersonaStore(home).get("subject").consent)
    shown = oblik(home, "audit", "show").output.splitlines()
    assert len(shown) == 2
    assert "lora=v001" in shown[1]
    assert oblik(home, "audit", "show", "--persona", "other").output == ""


def test_what_was_refused_or_failed_is_there_too(settings: Settings) -> None:
    with pytest.raises(NotFound):
        studio.train(settings)
    with pytest.raises(ZeroDivisionError), studio.operation(settings, "train", "subject"):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), studio.operation(settings, "train", "subject"):
        raise KeyboardInterrupt
    studio.revoke_persona(settings, "subject")
    with pytest.raises(ConsentError):
        studio.generate(settings, "in a park")
    assert outcomes(settings) == [
        ("train", "begun"), ("train", "refused"), ("train", "begun"), ("train", "failed"),
        ("train", "begun"), ("train", "stopped"), ("persona revoke", "begun"), ("persona revoke", "done"),
        ("generate", "begun"), ("generate", "refused"),
    ]  # fmt: skip


def test_no_word_that_was_typed_gets_into_the_log(settings: Settings, home: Home) -> None:
    with pytest.raises(ConsentError), studio.operation(settings, "persona create", "Subject P."):
        raise ConsentError("no")
    with pytest.raises(NotFound):
        studio.generate(settings, "Subject smiling in a park")
    assert b"Subject" not in (home.logs / "audit.jsonl").read_bytes()


def test_a_changed_line_is_exit_status_two(settings: Settings, home: Home, tmp_path: Path) -> None:
    assert "intact: 0 lines" in oblik(home, "audit", "verify").output
    for _ in range(2):
        studio.use_persona(settings, "subject")
    fine = oblik(home, "audit", "verify")
    assert (fine.exit_code, fine.output.startswith("intact: 4 lines")) == (0, True)
    last = fine.output.split()[-1]
    assert oblik(home, "audit", "verify", "--noted", last).exit_code == 0
    assert oblik(home, "audit", "verify", "--noted", "f" * 64).exit_code == 2
    log = home.logs / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"done", b"gone", 1))
    broken = oblik(home, "audit", "verify")
    assert broken.exit_code == 2
    assert "broken: line 2: it was changed" in broken.output
