"""What a card's temperature makes of the pauses, and when work ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

import pytest

from oblik.errors import BackendUnavailable, JobCancelled, TooHot
from oblik.generation.heat import HOT_C, LONGEST_S, WARM_C, HeatGuard, Reading, decide, open_thermometer
from oblik.progress import SilentProgress


class Scripted:
    """Says one temperature after the other, the last one for ever."""

    def __init__(self, *temperatures_c: float | None) -> None:
        self.left = list(temperatures_c)
        self.reads = 0

    def read(self) -> Reading:
        self.reads += 1
        return Reading(
            self.left.pop(0) if len(self.left) > 1 else self.left[0], 100.0 + self.reads, self.reads
        )


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


def guarded(temperatures_c: Sequence[float | None]) -> tuple[HeatGuard, Clock]:
    clock = Clock()
    return HeatGuard(Scripted(*temperatures_c), sleep=clock.sleep, clock=clock), clock


@pytest.mark.parametrize(
    ("temperature_c", "rested_s", "wait_s"),
    [
        (None, 0, 2.0),
        (None, 2, 0.0),
        (40, 0, 2.0),
        (40, 1.5, 0.5),
        (WARM_C, 2, 0.0),
        (WARM_C + 0.1, 2, 10.0),
        (HOT_C, 2, 10.0),
        (80, LONGEST_S - 3, 3.0),
        (80, LONGEST_S, 0.0),
    ],
)
def test_how_long_to_rest(temperature_c: float | None, rested_s: float, wait_s: float) -> None:
    found = decide(temperature_c, rested_s, pause_s=2.0)
    assert found.wait_s == pytest.approx(wait_s)
    assert not found.stop


@pytest.mark.parametrize("rested_s", [0, 2, LONGEST_S])
def test_above_85_work_stops_however_long_it_rested(rested_s: float) -> None:
    assert "86 C" in decide(86, rested_s, 2.0).stop


def test_a_cool_card_gets_the_pause_of_the_level() -> None:
    guard, clock = guarded([60])
    guard.rest(SilentProgress(), 2.5)
    assert (clock.now_s, guard.rested_s, guard.long_rests, guard.hottest_c) == (2.5, 2.5, 0, 60)
    guard.rest(SilentProgress(), 0.0)
    assert clock.now_s == 2.5


def test_a_warm_card_rests_until_it_is_cool() -> None:
    guard, clock = guarded([80, 80, 79, 77])
    guard.rest(SilentProgress(), 2.0)
    assert (clock.now_s, guard.long_rests, guard.hottest_c) == (22.0, 2, 80)


def test_a_card_that_never_cools_does_not_hold_work_up_for_ever() -> None:
    guard, clock = guarded([80])
    guard.rest(SilentProgress(), 2.0)
    assert clock.now_s == LONGEST_S


def test_a_hot_card_ends_work_and_says_what_to_do() -> None:
    guard, clock = guarded([79, 86])
    with pytest.raises(TooHot, match="86 C") as stopped:
        guard.rest(SilentProgress(), 2.0)
    assert "same command" in stopped.value.hint
    assert clock.now_s == 2.0


def test_without_a_thermometer_the_pauses_alone_are_kept() -> None:
    clock = Clock()
    guard = HeatGuard(None, sleep=clock.sleep, clock=clock)
    progress = SilentProgress()
    guard.rest(progress, 3.0)
    assert (clock.now_s, guard.hottest_c) == (3.0, None)
    assert guard.watch(progress) is progress


def test_a_driver_that_says_nothing_is_no_reason_to_stop() -> None:
    guard, clock = guarded([None])
    guard.rest(SilentProgress(), 1.0)
    guard.watch(SilentProgress()).check_cancelled()
    assert (clock.now_s, guard.hottest_c, guard.most_power_w) == (1.0, None, 103.0)


def test_a_pause_can_be_cancelled() -> None:
    guard, clock = guarded([60])
    stop_at_s = 1.0
    with pytest.raises(JobCancelled):
        guard.rest(SilentProgress(lambda: clock.now_s >= stop_at_s), 60.0)
    assert clock.now_s <= 2.0


def test_a_watched_step_stops_when_the_card_gets_hot_and_reads_it_seldom() -> None:
    thermometer, clock = Scripted(70, 70, 86), Clock()
    progress = HeatGuard(thermometer, sleep=clock.sleep, clock=clock).watch(SilentProgress())
    for _ in range(50):
        progress.check_cancelled()
    assert thermometer.reads == 1
    clock.now_s = 2.0
    progress.check_cancelled()
    clock.now_s = 4.0
    with pytest.raises(TooHot):
        progress.check_cancelled()


def test_without_a_card_there_is_no_thermometer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_thermometer(device="cpu") is None


class NVMLError(Exception):
    """As the library's."""


def nvml(*, temperature: bool = True) -> ModuleType:
    """A stand-in for NVIDIA's library: two cards, of which the second by slot is the first by torch."""
    cards = {"GPU-aaaa": 61, "GPU-bbbb": 72}

    def temperature_of(card: str, sensor: int) -> int:
        assert sensor == 0
        if not temperature:
            raise NVMLError("Not Supported")
        return cards[card]

    def power_of(_card: str) -> int:
        raise NVMLError("Not Supported")

    def card_of(uuid: str) -> str:
        if uuid not in cards:
            raise NVMLError("Not Found")
        return uuid

    found = ModuleType("pynvml")
    found.__dict__.update(
        NVMLError=NVMLError, NVML_TEMPERATURE_GPU=0, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=card_of,
        nvmlDeviceGetTemperature=temperature_of, nvmlDeviceGetPowerUsage=power_of,
        nvmlDeviceGetMemoryInfo=lambda _card: SimpleNamespace(used=5 << 30),
    )  # fmt: skip
    return found


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    import torch

    monkeypatch.delitem(sys.modules, "oblik.generation.backends.nvml", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    uuids = ["bbbb", "aaaa", "cccc"]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: SimpleNamespace(uuid=uuids[n]))
    return monkeypatch


def test_the_card_is_found_by_its_name_and_not_by_its_number(two_cards: pytest.MonkeyPatch) -> None:
    from oblik.generation.backends.nvml import NvmlThermometer

    assert NvmlThermometer("auto").read() == Reading(72, None, 5 << 30)
    assert NvmlThermometer("cuda:1").read().temperature_c == 61
    for device in ("cpu", "cuda:2"):
        with pytest.raises(BackendUnavailable, match="pauses of the quality level"):
            NvmlThermometer(device)
    two_cards.delitem(sys.modules, "oblik.generation.backends.nvml")
