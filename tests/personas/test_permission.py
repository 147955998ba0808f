"""One place decides, for every operation, and goes on deciding while the work runs."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from oblik.errors import ConsentError, JobCancelled
from oblik.paths import Home
from oblik.personas.amend import revoked
from oblik.personas.erase import erase
from oblik.personas.permission import NEEDS, permit, under_consent
from oblik.personas.persona import Persona, Scope
from oblik.personas.store import PersonaStore
from oblik.progress import SilentProgress

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
Make = Callable[..., Persona]
SOURCE = Path(__file__).parents[2] / "src/oblik"


@pytest.mark.parametrize("operation", NEEDS)
def test_every_operation_asks_for_its_own_scope(home: Home, person: Make, operation: str) -> None:
    permit(person(scopes=frozenset({NEEDS[operation]})), operation, home=home, now=NOW)
    without = person(scopes=frozenset(set(Scope) - {NEEDS[operation]}))
    with pytest.raises(ConsentError, match=f"does not cover '{NEEDS[operation].value}'"):
        permit(without, operation, home=home, now=NOW)


def test_no_operation_slips_past_the_question() -> None:
    """What the door does with a person has a scope, but for the record itself, the choice of one of several
    LoRAs, removal, the demo, whose person is rendered, and adapters, which are of no persona."""
    written = "".join(file.read_text(encoding="utf-8") for file in (SOURCE / "studio").glob("*.py"))
    named = set(re.findall(r'operation\(\s*settings,\s*"([a-z ]+)"', written))
    record = {f"persona {verb}" for verb in "create use edit delete export import".split()}
    exempt = {"lora use", "lora uninstall", "gallery delete", "demo", "train adapter", "remove adapter"}
    assert named - set(NEEDS) == record | exempt
    assert {"dataset build", "train", "generate", "likeness", "lora install"} <= named


def test_the_scopes_of_the_requirement_are_all_used() -> None:
    assert set(NEEDS.values()) == set(Scope)


@pytest.mark.parametrize(
    "terms",
    [
        {"revoked_on": date(2026, 5, 1)},
        {"expires_on": date(2026, 5, 31)},
        {"signed_on": date(2026, 6, 2)},
        {"minor": True},
        {"minor": True, "guardian": " "},
    ],
)
def test_a_record_that_does_not_hold_stops_everything(
    home: Home, person: Make, terms: dict[str, object]
) -> None:
    for operation in NEEDS:
        with pytest.raises(ConsentError):
            permit(person(scopes=frozenset(Scope), **terms), operation, home=home, now=NOW)


def test_the_record_on_the_disk_decides_not_a_copy(home: Home, stored: Make) -> None:
    earlier = stored()
    PersonaStore(home).save(revoked(earlier, NOW.date()))
    with pytest.raises(ConsentError, match="revoked"):
        permit(earlier, "train", home=home, now=NOW)


def running(home: Home, persona: Persona) -> tuple[threading.Thread, list[BaseException], threading.Event]:
    """A loop in another thread, as a training is one."""
    progress = under_consent(persona, "train", home=home, now=NOW, progress=SilentProgress())
    ended: list[BaseException] = []
    began = threading.Event()

    def train() -> None:
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline:
                progress.check_cancelled()
                began.set()
                time.sleep(0.005)
        except BaseException as raised:
            ended.append(raised)

    thread = threading.Thread(target=train)
    thread.start()
    assert began.wait(30)
    return thread, ended, began


def test_revoking_stops_a_running_loop_at_its_next_step(home: Home, stored: Make) -> None:
    persona = stored()
    thread, ended, _ = running(home, persona)
    assert ended == []
    PersonaStore(home).save(revoked(persona, NOW.date()))
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(ended[0], ConsentError)
    assert "revoked" in str(ended[0])


def test_deleting_stops_a_running_loop_and_nothing_comes_back(home: Home, stored: Make) -> None:
    persona = stored(kind="synthetic")
    thread, ended, _ = running(home, persona)
    erase(home, persona.slug, NOW)
    thread.join(30)
    assert isinstance(ended[0], ConsentError)
    assert not home.persona(persona.slug).root.exists()


def test_what_a_running_work_wrote_after_the_deletion_is_removed(home: Home, stored: Make) -> None:
    persona = stored(kind="synthetic")
    progress = under_consent(persona, "train", home=home, now=NOW, progress=SilentProgress())
    erase(home, persona.slug, NOW)
    late = home.persona(persona.slug).loras / "v001" / "weights"
    late.parent.mkdir(parents=True)
    late.write_bytes(b"learned")
    with pytest.raises(ConsentError, match="was deleted"):
        progress.check_cancelled()
    assert not home.persona(persona.slug).root.exists()


def test_somebody_new_with_the_same_slug_does_not_permit_the_old_work(home: Home, stored: Make) -> None:
    persona = stored(kind="synthetic")
    progress = under_consent(persona, "train", home=home, now=NOW, progress=SilentProgress())
    erase(home, persona.slug, NOW)
    newer = persona.model_copy(update={"created_at": NOW + timedelta(minutes=1)})
    PersonaStore(home).create(newer)
    with pytest.raises(ConsentError, match="was deleted"):
        progress.check_cancelled()
    assert PersonaStore(home).get(persona.slug) == newer


def test_other_changes_do_not_stop_the_work(home: Home, stored: Make) -> None:
    persona = stored()
    progress = under_consent(persona, "train", home=home, now=NOW, progress=SilentProgress())
    PersonaStore(home).save(persona.model_copy(update={"class_noun": "woman"}))
    progress.check_cancelled()


def test_a_consent_that_ends_today_ends_the_work_at_midnight(home: Home, stored: Make) -> None:
    persona = stored(expires_on=NOW.date())
    midnight = datetime(2026, 6, 1, 23, 59, 59, 950_000, tzinfo=timezone.utc)
    progress = under_consent(persona, "train", home=home, now=midnight, progress=SilentProgress())
    time.sleep(0.1)
    with pytest.raises(ConsentError, match="expired"):
        progress.check_cancelled()


def test_somebody_who_asks_to_stop_is_heard_too(home: Home, stored: Make) -> None:
    asked = SilentProgress(lambda: True)
    progress = under_consent(stored(), "train", home=home, now=NOW, progress=asked)
    with pytest.raises(JobCancelled):
        progress.check_cancelled()
    with progress.stage("train", 3) as advance:
        advance()


def test_deleting_and_stopping_work_may_sweep_the_same_folder(
    home: Home, stored: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    persona, rmtree = stored(kind="synthetic"), shutil.rmtree

    def raced(folder: Path, *args: Any, **options: Any) -> None:
        rmtree(folder, *args, **options)
        if Path(folder) == home.persona(persona.slug).root:
            raise FileNotFoundError(folder)

    monkeypatch.setattr(shutil, "rmtree", raced)
    erase(home, persona.slug, NOW)
    assert not home.persona(persona.slug).root.exists()
