"""How long work tells what it is doing and learns that it should stop.

In: named stages with a number of steps. Out: bars on a terminal, one line per finished stage in a
log, or silence. Knows nothing of the work. Only ``RichProgress`` needs rich, when it draws.

    with progress.stage("train", total=400) as advance:
        for ...:
            progress.check_cancelled()
            advance(note=f"loss {loss:.3f}")
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from oblik.errors import JobCancelled

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


GO_ON = (
    "orders, the demo and downloads go on by the same command, a training with --resume; "
    "oblik generate begins a new batch"
)
"""What to do after a stop."""


class Advance(Protocol):
    """Says that ``n`` more steps are done, with a short note on how they went."""

    def __call__(self, n: int = 1, note: str = "") -> None: ...


class Progress(Protocol):
    """What long work takes as its ``progress`` argument. Stages may nest."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """One named part of the work; ``total`` is None when nobody knows how long it is."""
        ...

    def check_cancelled(self) -> None:
        """Raise JobCancelled when somebody asked to stop; called between steps."""
        ...


def never() -> bool:
    """The answer of work that nobody can cancel."""
    return False


class SilentProgress:
    """Draws nothing; still stops when ``cancelled()`` says so."""

    def __init__(self, cancelled: Callable[[], bool] = never) -> None:
        self._cancelled = cancelled

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        yield _ignore

    def check_cancelled(self) -> None:
        _stop_if(self._cancelled)


class Unseen:
    """Draws no bar of its own inside a stage that has one; still learns that it should stop."""

    def __init__(self, outer: Progress) -> None:
        self._outer = outer

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        return SilentProgress().stage(name, total)

    def check_cancelled(self) -> None:
        self._outer.check_cancelled()


class RichProgress:
    """Bars on a terminal; in a pipe or a log, one line for every stage that ends."""

    def __init__(self, stream: TextIO | None = None, cancelled: Callable[[], bool] = never) -> None:
        self._stream = stream or sys.stderr
        self._cancelled = cancelled
        self._bars: Bars | None = None
        self._depth = 0

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        return self._bar(name, total) if self._stream.isatty() else self._line(name, total)

    def check_cancelled(self) -> None:
        _stop_if(self._cancelled)

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Advance]:
        bars = self._bars = self._bars or _new_bars(self._stream)
        if self._depth == 0:
            bars.start()
        self._depth += 1
        task = bars.add_task(name, total=total, note="")
        done = 0

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done
            done += n
            bars.update(task, advance=n, note=note)

        try:
            yield advance
            if total is None:
                bars.update(task, total=done)
        finally:
            self._depth -= 1
            if self._depth == 0:
                bars.stop()
                self._bars = None

    @contextmanager
    def _line(self, name: str, total: int | None) -> Iterator[Advance]:
        done, last_note, started_s = 0, "", time.monotonic()

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done, last_note
            done, last_note = done + n, note or last_note

        yield advance
        of = f" of {total}" if total is not None and total != done else ""
        ending = f"  {last_note}" if last_note else ""
        print(
            f"{name}: {done}{of} in {time.monotonic() - started_s:.1f} s{ending}",
            file=self._stream,
            flush=True,
        )


def _new_bars(stream: TextIO) -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(file=stream),
    )


def _ignore(n: int = 1, note: str = "") -> None:
    return


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise JobCancelled("stopped as asked", hint=GO_ON)
