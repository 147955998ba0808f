"""Every way to tamper with the log is found, with its line; a crash is not mistaken for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from oblik.errors import InvalidInput
from oblik.paths import Home
from oblik.personas.audit import AuditLog, Line
from oblik.personas.audit_check import verify

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
Lines = list[bytes]


@pytest.fixture
def log(home: Home) -> AuditLog:
    """Six lines."""
    log = AuditLog(home)
    for n in range(6):
        log.append("train", now=NOW, persona=f"subject-{n}", consent="c" * 64, details={"pictures": n})
    return log


def test_a_log_that_nobody_touched_is_intact(log: AuditLog) -> None:
    verdict = verify(log)
    assert (verdict.intact, verdict.lines, verdict.notes) == (True, 6, [])
    first, second = log.lines()[0][1], log.lines()[1][1]
    assert first is not None
    assert second is not None
    assert (second.previous, first.n, second.n) == (first.hash, 1, 2)
    assert verify(AuditLog(Home(log.file.parent / "none"))).intact


def changed(lines: Lines) -> Lines:
    return [*lines[:2], lines[2].replace(b"subject-2", b"subject-9"), *lines[3:]]


def rehashed(lines: Lines) -> Lines:
    """Changed, with a hash that fits."""
    line = Line.model_validate_json(lines[2]).model_copy(update={"persona": "subject-9"}).sealed()
    return [*lines[:2], line.model_dump_json().encode(), *lines[3:]]


def inserted(lines: Lines) -> Lines:
    last = Line.model_validate_json(lines[2])
    line = Line(n=4, time="t", who="me", what="train", previous=last.hash).sealed()
    return [*lines[:3], line.model_dump_json().encode(), *lines[3:]]


def appended(lines: Lines) -> Lines:
    last = Line.model_validate_json(lines[-1])
    line = Line(n=7, time="t", who="me", what="train", previous=last.hash).sealed()
    return [*lines, line.model_dump_json().encode()]


TAMPERING: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "changed": (changed, "line 3: it was changed"),
    "changed with a new hash": (rehashed, "line 4: it does not follow"),
    "removed": (lambda lines: [*lines[:2], *lines[3:]], "line 3: number 3 should stand here and 4 does"),
    "first removed": (lambda lines: lines[1:], "line 1: number 1 should stand here"),
    "moved": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "line 3: number 3 should"),
    "repeated": (lambda lines: [*lines[:3], lines[2], *lines[3:]], "line 4: number 3 stands after number 3"),
    "inserted": (inserted, "line 5: number 4 stands after number 4"),
    "rubbish inserted": (lambda lines: [*lines[:3], b"{}", *lines[3:]], "line 4 before it cannot be read"),
    "rubbish at the end": (lambda lines: [*lines, b"{}"], "line 7: it was changed or inserted"),
    "appended": (appended, "number 7 and what follows is not in audit.head"),
    "last removed": (lambda lines: lines[:-1], "after line 5: lines 6 to 6 are gone"),
    "tail cut off": (lambda lines: lines[:2], "after line 2: lines 3 to 6 are gone"),
    "emptied": (lambda lines: [], "after line 0: lines 1 to 6 are gone"),
}


@pytest.mark.parametrize("way", TAMPERING)
def test_tampering_is_found_and_its_line_named(log: AuditLog, way: str) -> None:
    tamper, message = TAMPERING[way]
    lines = tamper(log.file.read_bytes().splitlines())
    log.file.write_bytes(b"".join(line + b"\n" for line in lines))
    verdict = verify(log)
    assert not verdict.intact
    assert message in verdict.problems[0]


@pytest.mark.parametrize("way", TAMPERING)
def test_going_on_does_not_hide_it(log: AuditLog, way: str) -> None:
    tamper, _ = TAMPERING[way]
    lines = tamper(log.file.read_bytes().splitlines())
    log.file.write_bytes(b"".join(line + b"\n" for line in lines))
    log.append("train", now=NOW, persona="subject")
    assert not verify(log).intact


def test_a_noted_hash_finds_a_log_that_was_cut_together_with_its_head(log: AuditLog, home: Home) -> None:
    noted = verify(log).last
    log.append("train", now=NOW, persona="subject")
    assert verify(log, noted).intact
    log.file.unlink()
    log.head_file.unlink()
    AuditLog(home).append("train", now=NOW, persona="subject")
    assert verify(log).intact
    assert "was cut or written anew" in verify(log, noted).problems[0]
    assert verify(log, "0" * 64).intact


@pytest.mark.parametrize("content", [None, b"{", b'{"count": 4}'])
def test_a_head_that_is_gone_or_changed_is_found(log: AuditLog, content: bytes | None) -> None:
    log.head_file.unlink() if content is None else log.head_file.write_bytes(content)
    assert not verify(log).intact
    log.append("train", now=NOW, persona="subject")
    assert not verify(log).intact


def crashed(log: AuditLog, keep: float) -> None:
    """As if the process had died while it wrote the seventh line."""
    head = log.head()
    assert head is not None
    coming = Line(n=7, time="t", who="me", what="train", previous=head.hash).sealed()
    head.coming = coming.hash
    log.head_file.write_text(head.model_dump_json(), encoding="utf-8")
    text = coming.model_dump_json().encode() + b"\n"
    with log.file.open("ab") as file:
        file.write(text[: int(len(text) * keep)])


@pytest.mark.parametrize("keep", [0.0, 0.4, 1.0])
def test_a_crash_in_the_middle_of_a_line_is_a_note(log: AuditLog, keep: float) -> None:
    crashed(log, keep)
    torn = keep == 0.4
    verdict = verify(log)
    assert (verdict.intact, bool(verdict.notes)) == (True, torn)
    log.append("train", now=NOW, persona="subject")
    after = verify(log)
    assert after.problems == []
    assert [note.startswith("line 7 was torn") for note in after.notes] == [True] * torn
    last = log.lines()[-1][1]
    assert last is not None
    assert last.n == {0.0: 7, 0.4: 8, 1.0: 8}[keep]


def test_lines_hold_no_words(log: AuditLog) -> None:
    with pytest.raises(InvalidInput, match="free text"):
        log.append("generate", now=NOW, persona="subject", details={"prompt": "smiling in a park"})
    assert len(log.lines()) == 6
    keys = set(json.loads(log.file.read_bytes().splitlines()[0]))
    assert keys == {"n", "time", "who", "what", "persona", "consent", "details", "previous", "hash"}


def test_many_processes_write_one_chain(home: Home) -> None:
    script = (
        "import sys; from datetime import datetime; from pathlib import Path\n"
        "from oblik.paths import Home; from oblik.personas.audit import AuditLog\n"
        "for n in range(8): AuditLog(Home(Path(sys.argv[1]))).append('train', now=datetime(2026, 1, 1))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(home.root)], env=environment) for _ in range(3)
    ]
    assert [one.wait(120) for one in running] == [0, 0, 0]
    verdict = verify(AuditLog(home))
    assert (verdict.problems, verdict.notes, verdict.lines) == ([], [], 24)
