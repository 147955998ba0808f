"""The heat guard: how long a card rests between batches, and when work stops to save it.

In: readings of a thermometer, the pause of a quality level. Out: pauses, or `TooHot`. What to do is decided
by one pure function, `decide`; `HeatGuard` carries it out. Without a thermometer the pauses alone are kept.
Knows nothing of engines and pictures: whoever makes them calls `HeatGuard.rest` between batches, and gives
`HeatGuard.between` and `HeatGuard.watch`'s progress to the engine, which asks them at every batch and step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from oblik.errors import BackendUnavailable, TooHot
from oblik.progress import Advance, Progress
from oblik.registry import load

WARM_C, HOT_C = 78.0, 85.0
"""Above the first the pauses grow; above the second work stops, because screens went dark there."""
COOLING_S, LONGEST_S = 10.0, 180.0
"""How long a warm card rests before it is looked at again, and after how much rest work goes on anyway."""
WATCH_EVERY_S, SLICE_S = 2.0, 0.5

BACKENDS = {"nvml": "oblik.generation.backends.nvml:NvmlThermometer"}
EXTRAS = {"nvml": "gpu"}


class Reading(NamedTuple):
    """What a card says of itself; None is what it does not say."""

    temperature_c: float | None
    power_w: float | None = None
    used_bytes: int | None = None


class Thermometer(Protocol):
    """Reads one card. An error of the driver is a reading of nothing, never an exception."""

    def read(self) -> Reading: ...


@dataclass(frozen=True)
class Decision:
    """``wait_s`` seconds of rest, then ask again; 0 means go on. ``stop`` says why work must end."""

    wait_s: float = 0.0
    stop: str = ""


def decide(temperature_c: float | None, rested_s: float, pause_s: float) -> Decision:
    """What to do after ``rested_s`` seconds of rest since the last batch."""
    if temperature_c is not None and temperature_c > HOT_C:
        return Decision(stop=f"the card has {temperature_c:.0f} C, more than {HOT_C:.0f}")
    if rested_s < pause_s:
        return Decision(wait_s=pause_s - rested_s)
    if temperature_c is not None and temperature_c > WARM_C and rested_s < LONGEST_S:
        return Decision(wait_s=min(max(COOLING_S, 2 * pause_s), LONGEST_S - rested_s))
    return Decision()


class HeatGuard:
    """Carries out what `decide` says. ``pause_s`` is the pause of the quality level at work; ``hottest_c``,
    ``rested_s``... are sums over its whole life."""

    def __init__(
        self,
        thermometer: Thermometer | None = None,
        *,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._thermometer, self._sleep, self._clock = thermometer, sleep or time.sleep, clock
        self._looked_s, self._due = float("-inf"), False
        self.pause_s = 0.0
        self.hottest_c: float | None = None
        self.most_power_w: float | None = None
        self.most_used_bytes: int | None = None
        self.rested_s = 0.0
        self.long_rests = 0

    def rest(self, progress: Progress, pause_s: float = 0.0) -> None:
        """Rest for ``pause_s`` seconds, longer while the card is warm. Call it between two batches.

        Raises:
            TooHot: the card is hotter than `HOT_C`.
            JobCancelled: somebody asked to stop.
        """
        rested_s, self._due = 0.0, False
        while True:
            decision = decide(self.read().temperature_c, rested_s, pause_s)
            self._stop_if(decision)
            if decision.wait_s <= 0:
                return
            self.long_rests += rested_s >= pause_s
            rested_s += self._wait(decision.wait_s, progress)

    def between(self, progress: Progress) -> None:
        """What an engine calls before every batch: rest for ``pause_s``, where pictures were made since the
        last rest. Raises as `rest`."""
        if self._due:
            self.rest(progress, self.pause_s)
        self._due = True

    def watch(self, progress: Progress) -> Progress:
        """``progress`` that also stops work when the card gets too hot between two steps."""
        return _Watched(self, progress) if self._thermometer else progress

    def read(self) -> Reading:
        """A new reading, remembered where it is the highest so far."""
        reading = self._thermometer.read() if self._thermometer else Reading(None)
        self.hottest_c = _higher(self.hottest_c, reading.temperature_c)
        self.most_power_w = _higher(self.most_power_w, reading.power_w)
        self.most_used_bytes = _higher(self.most_used_bytes, reading.used_bytes)
        return reading

    def look(self) -> None:
        """Raise TooHot when the card is too hot; reads it once in `WATCH_EVERY_S` seconds."""
        now_s = self._clock()
        if now_s - self._looked_s >= WATCH_EVERY_S:
            self._looked_s = now_s
            self._stop_if(decide(self.read().temperature_c, LONGEST_S, 0.0))

    def _wait(self, seconds: float, progress: Progress) -> float:
        """Sleep in slices, so that stopping does not have to wait."""
        left_s = seconds
        while left_s > 0:
            progress.check_cancelled()
            slice_s = min(SLICE_S, left_s)
            self._sleep(slice_s)
            left_s -= slice_s
        self.rested_s += seconds
        return seconds

    def _stop_if(self, decision: Decision) -> None:
        if decision.stop:
            raise TooHot(
                f"work stops: {decision.stop}; what is finished is kept",
                hint="let the card cool down; an order then goes on by the same command, and oblik generate "
                "begins a new batch",
            )


class _Watched:
    """A progress whose every check looks at the card."""

    def __init__(self, guard: HeatGuard, inner: Progress) -> None:
        self._guard, self._inner = guard, inner

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        return self._inner.stage(name, total)

    def check_cancelled(self) -> None:
        self._inner.check_cancelled()
        self._guard.look()


def open_thermometer(name: str = "nvml", **options: Any) -> Thermometer | None:
    """The thermometer of the card that is computed on; None where there is no such card or no NVML."""
    try:
        opened: Thermometer = load("thermometer", name, BACKENDS, EXTRAS)(**options)
    except BackendUnavailable:
        return None
    return opened


def _higher(one: Any, other: Any) -> Any:
    return other if one is None or (other is not None and other > one) else one
