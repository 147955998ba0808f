"""Bars on a terminal, lines in a log, silence; and all of them stop when asked."""

from __future__ import annotations

import io
import re

import pytest

from oblik.errors import JobCancelled
from oblik.progress import Progress, RichProgress, SilentProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(progress: Progress) -> None:
    with progress.stage("outer", 2) as outer:
        outer(note="first")
        with progress.stage("inner") as inner:
            inner(3)
        outer(note="loss 0.5")


def test_a_log_gets_one_line_for_each_stage_that_ends() -> None:
    log = io.StringIO()
    work(RichProgress(log))
    lines = [re.sub(r"\d+\.\d s", "T s", line) for line in log.getvalue().splitlines()]
    assert lines == ["inner: 3 in T s", "outer: 2 in T s  loss 0.5"]


def test_a_log_says_what_is_left_undone() -> None:
    log = io.StringIO()
    with RichProgress(log).stage("photos", 5) as advance:
        advance(3)
    assert log.getvalue().startswith("photos: 3 of 5 in ")


def test_a_terminal_gets_bars_with_counts_and_notes() -> None:
    terminal = Terminal()
    work(RichProgress(terminal))
    shown = terminal.getvalue()
    assert all(text in shown for text in ("outer", "inner", "2/2", "3/3", "loss 0.5"))


def test_bars_start_again_after_an_error() -> None:
    terminal = Terminal()
    progress = RichProgress(terminal)
    with pytest.raises(ValueError, match="broken"), progress.stage("one", 1):
        raise ValueError("broken")
    work(progress)
    assert "2/2" in terminal.getvalue()


@pytest.mark.parametrize("kind", [SilentProgress, RichProgress])
def test_work_stops_when_asked(kind: type[SilentProgress] | type[RichProgress]) -> None:
    asked = False
    progress = kind(cancelled=lambda: asked)
    progress.check_cancelled()
    asked = True
    with pytest.raises(JobCancelled) as caught:
        progress.check_cancelled()
    assert caught.value.hint


def test_silence() -> None:
    work(SilentProgress())
