"""The log is kept for thirty days at least, stays within its bound, and loses errors last."""

from __future__ import annotations

import json
import stat
import sys
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from oblik import studio
from oblik.errors import InvalidInput, NotFound
from oblik.flows.logs import FULL, LEAST_DAYS, Journal
from oblik.paths import Home
from oblik.settings import Settings

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=timezone.utc)


def days(home: Home) -> list[str]:
    return sorted(path.stem.removeprefix("oblik-") for path in home.logs.glob("oblik-*.jsonl"))


def lines(home: Home) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for path in sorted(home.logs.glob("oblik-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_a_line_is_one_json_object_for_its_owner_alone(home: Home) -> None:
    journal = Journal(home)
    journal.write("generate", now=NOW, persona="sitter", message="он\nтам", seconds=1.5, lora=None)
    journal.write("generate", now=NOW, level="error", message="x" * 5000)
    first, second = lines(home)
    assert first == {
        "time": "2026-03-02T10:00:00+00:00", "level": "info", "what": "generate", "persona": "sitter",
        "message": "он\nтам", "seconds": 1.5,
    }  # fmt: skip
    assert len(str(second["message"])) == 1000
    if sys.platform != "win32":
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (home.logs, *home.logs.iterdir())]
        assert modes == [0o700, 0o600]


@pytest.mark.parametrize("kept", [0, 7, 29])
def test_fewer_than_thirty_days_are_refused(home: Home, kept: int) -> None:
    with pytest.raises(InvalidInput, match="at least 30"):
        Journal(home, kept)
    with pytest.raises(ValidationError):
        Settings(home=home.root, log_days=kept)


def test_days_are_removed_when_they_have_been_kept_long_enough_and_nothing_else(home: Home) -> None:
    journal = Journal(home)
    for back in range(40, -1, -1):
        journal.write("x", now=NOW - timedelta(days=back))
    (home.logs / "audit.jsonl").write_text("{}")
    (home.logs / "oblik-notes.jsonl").write_text("mine")
    assert days(home)[0] == str(NOW.date() - timedelta(days=LEAST_DAYS))
    assert len(days(home)) == LEAST_DAYS + 2
    removed = journal.retain(NOW.date() + timedelta(days=2))
    assert [path.name for path in removed] == ["oblik-2026-01-31.jsonl", "oblik-2026-02-01.jsonl"]
    assert {"audit.jsonl", "oblik-notes.jsonl"} <= {path.name for path in home.logs.iterdir()}


def test_a_longer_time_gives_way_to_the_size_bound_but_never_below_thirty_days(home: Home) -> None:
    journal = Journal(home, days=60, most_bytes=50 * 200)
    home.logs.mkdir(parents=True)
    for back in range(60):
        day = NOW.date() - timedelta(days=back)
        (home.logs / f"oblik-{day}.jsonl").write_bytes(b"x" * 300)
    journal.retain(NOW.date())
    assert len(days(home)) == 10_000 // 300
    Journal(home, days=60, most_bytes=300).retain(NOW.date())
    assert len(days(home)) == LEAST_DAYS + 1


def test_a_day_keeps_within_its_share_and_drops_harmless_lines_first(home: Home) -> None:
    share = 4000
    journal = Journal(home, most_bytes=share * (LEAST_DAYS + 1))
    for number in range(200):
        journal.write("harmless", now=NOW, number=number)
    for number in range(200):
        journal.write("harmful", now=NOW, level="error", number=number)
        journal.write("harmless", now=NOW, number=number)
    found = [line["what"] for line in lines(home)]
    assert sum(path.stat().st_size for path in home.logs.iterdir()) <= share
    assert found.count("harmful") >= 2
    assert FULL in found
    assert found.index("harmful") > found.index(FULL) > 20
    journal.write("harmless", now=NOW + timedelta(days=1))
    assert lines(home)[-1]["what"] == "harmless", "the next day begins anew"


def test_lines_come_back_by_time_and_torn_ones_are_passed_over(home: Home) -> None:
    journal = Journal(home)
    for hour in (1, 12, 23):
        journal.write(f"at {hour}", now=NOW.replace(hour=hour))
    journal.write("tomorrow", now=NOW + timedelta(days=1))
    with (home.logs / "oblik-2026-03-02.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-03-0')
    found = journal.lines(NOW.replace(hour=12), NOW + timedelta(days=1))
    assert [line["what"] for line in found] == ["at 12", "at 23"]


def test_every_operation_leaves_a_line_and_no_prompt(home: Home) -> None:
    settings = Settings(home=home.root, device="cpu")
    with studio.operation(settings, "pack verify", None) as details:
        details["files"] = 3
    with pytest.raises(NotFound), studio.operation(settings, "train", "nobody"):
        raise AssertionError("an operation on nobody is refused")
    with pytest.raises(InvalidInput), studio.operation(settings, "generate", None):
        raise InvalidInput("'Jane' in the prompt is refused")
    with pytest.raises(ZeroDivisionError), studio.operation(settings, "demo", None):
        raise ZeroDivisionError("a bug")
    done, refused, quoted, failed = lines(home)
    assert "message" not in quoted
    assert (done["what"], done["outcome"], done["files"], done["level"]) == ("pack verify", "done", 3, "info")
    assert (refused["outcome"], refused["error"], refused["level"]) == ("refused", "not_found", "warning")
    assert (failed["outcome"], failed["message"], failed["level"]) == ("failed", "a bug", "error")


def test_a_log_that_cannot_be_written_stops_no_work(home: Home) -> None:
    settings = Settings(home=home.root, device="cpu")
    home.logs.mkdir(parents=True)
    Path(home.logs / f"oblik-{studio.now():%Y-%m-%d}.jsonl").mkdir()
    with studio.operation(settings, "pack verify", None) as details:
        details["files"] = 3
    assert studio.read_audit(settings)[-1].details["outcome"] == "done"


def test_the_day_of_a_file_is_that_of_the_clock_that_writes_it(home: Home) -> None:
    Journal(home).write("x", now=datetime(2026, 3, 2, 23, 59, tzinfo=timezone.utc))
    assert days(home) == [str(date(2026, 3, 2))]
