"""Many batches of pictures in one folder, made so that a crash costs no picture that was finished.

In: plans with all of their seeds, a function that runs one of them into a folder. Out: in the target folder
one folder for each batch (``001-item-1``: pictures, grid, record), ``grid.png`` and
``generation_report.json``. What is finished is known by the records that lie there: a run that was stopped
or killed goes on where it was, a damaged picture is made again, a batch without a record leaves nothing
behind. Between batches the card rests. Knows nothing of personas and prompts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from oblik.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    DiskFull,
    LoraBroken,
    OblikError,
    PackBroken,
    TooHot,
)
from oblik.flows.ledger import fingerprint
from oblik.generation.engine import GRID, Engine, chunks
from oblik.generation.heat import HeatGuard
from oblik.generation.order_report import FILE_NAME as REPORT
from oblik.generation.order_report import (
    Change,
    Failure,
    Machine,
    Made,
    OrderReport,
    State,
    write_order_report,
)
from oblik.generation.plan import Plan
from oblik.generation.presets import Pace
from oblik.generation.record import FILE_NAME, read_record
from oblik.images import grid, open_upright
from oblik.labels import PLAIN, Label
from oblik.paths import private_dir, sha256_file
from oblik.progress import Progress

FATAL = (TooHot, PackBroken, BackendUnavailable, DiskFull, LoraBroken)
"""Errors of the machine that the next picture would meet as well."""
FAILURES_IN_A_ROW = 3
ON_THE_SHEET, CELL_PX = 100, 192
LOCK, PART = ".order.lock", ".part"
Key = tuple[str, int]
Make = Callable[[Plan, Path, Engine], None]


@dataclass(frozen=True)
class Batches:
    """All pictures of one prompt: a plan with all of its seeds, and the pace of its quality level."""

    item: str
    plan: Plan
    pace: Pace


class Run:
    """One run into a target folder. ``make`` runs a plan into a folder; the engine is opened when the first
    picture is missing. Nothing is written once ``wanted()`` is false."""

    def __init__(
        self,
        target: Path,
        report: OrderReport,
        engine: Callable[[], Engine],
        make: Make,
        guard: HeatGuard,
        *,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._target, self._report, self._guard = target, report, guard
        self._open, self._make, self._wanted = engine, make, wanted
        self._engine: Engine | None = None
        self._failed_in_a_row = 0
        guard.pause_s = 0.0

    def all(self, batches: Sequence[Batches], progress: Progress) -> OrderReport:
        """Make what is missing. Raises Conflict when another run is at work in the folder."""
        from filelock import FileLock, Timeout

        private_dir(self._target)
        try:
            with FileLock(self._target / LOCK, timeout=0, mode=0o600):
                return self._all(batches, progress)
        except Timeout:
            raise Conflict(
                f"another run is at work in {self._target}", hint="wait for it, then give the command again"
            ) from None

    def _all(self, batches: Sequence[Batches], progress: Progress) -> OrderReport:
        began_s, report = time.monotonic(), self._report
        state: State = "stopped"
        settle(self._target)
        self._find(batches)
        self._note("running")
        try:
            with progress.stage("pictures", total=report.wanted) as advance:
                advance(len(report.pictures))
                for batch in batches:
                    for seeds in chunks(self._missing(batch), batch.plan.batch):
                        self._together(batch, seeds, progress)
                        advance(len(seeds), report.sentence)
            state = "incomplete" if report.failures else "done"
        except OblikError as error:
            report.stopped_by = error.code
            raise
        except BaseException as error:
            report.stopped_by = type(error).__name__
            raise
        finally:
            if self._engine:
                self._engine = None
                _free_memory()
            report.seconds = round(time.monotonic() - began_s, 1)
            self._note(state, batches)
        return report

    def _find(self, batches: Sequence[Batches]) -> None:
        """Take over what an earlier run finished."""
        there = finished(self._target)
        for batch in batches:
            key = key_of(batch.plan)
            found = (there.get((key, seed)) for seed in batch.plan.seeds)
            self._report.pictures += [
                made.model_copy(update={"item": batch.item, "again": True}) for made in found if made
            ]

    def _missing(self, batch: Batches) -> list[int]:
        there = {made.seed for made in self._report.pictures if made.item == batch.item}
        return [seed for seed in batch.plan.seeds if seed not in there]

    def _together(self, batch: Batches, seeds: Sequence[int], progress: Progress) -> None:
        """A batch of pictures; where one of them breaks it, those that are missing are made one by one."""
        try:
            self._run(batch, seeds, progress)
            return
        except FATAL:
            raise
        except BackendError as error:
            if len(seeds) == 1:
                self._failed(batch, seeds[0], error)
                return
        for seed in [seed for seed in self._missing(batch) if seed in seeds]:
            self._together(batch, [seed], progress)

    def _run(self, batch: Batches, seeds: Sequence[int], progress: Progress) -> None:
        """Run the seeds into a folder of their own, which takes its name when they are finished."""
        progress.check_cancelled()
        guard = self._guard
        guard.rest(progress, guard.pause_s)
        guard.pause_s = batch.pace.pause_s
        folder = self._target / f"{next_number(self._target):03d}-{batch.item}"
        part = folder.with_name(folder.name + PART)
        self._engine = self._engine or self._open()
        began_s, rested_s = time.monotonic(), guard.rested_s
        try:
            self._make(batch.plan.model_copy(update={"seeds": tuple(seeds)}), part, self._engine)
        finally:
            self._took(batch, part, folder, time.monotonic() - began_s - (guard.rested_s - rested_s))
        self._failed_in_a_row = 0

    def _took(self, batch: Batches, part: Path, folder: Path, seconds: float) -> None:
        """Write down what a batch left."""
        if not self._wanted():
            shutil.rmtree(part, ignore_errors=True)
            return
        keep(part, folder)
        report = self._report
        if folder.is_dir():
            found = pictures_of(folder, self._target).values()
            share_s = round(seconds / max(1, len(found)), 3)
            report.pictures += [
                made.model_copy(update={"item": batch.item, "seconds": share_s}) for made in found
            ]
            report.changes += [Change(folder=folder.name, step=step) for step in read_record(folder).steps]
        self._guard.read()
        report.machine.memory_bytes.append(psutil.Process().memory_info().rss)
        self._note("running")

    def _failed(self, batch: Batches, seed: int, error: BackendError) -> None:
        failure = Failure(item=batch.item, seed=seed, code=error.code, message=error.message)
        self._report.failures.append(failure)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise error

    def _note(self, state: State, batches: Sequence[Batches] = ()) -> None:
        """Write the report; at the end in the order of the batches, with a contact sheet."""
        if not self._wanted():
            return
        report, guard = self._report, self._guard
        report.state = state
        report.machine = Machine(
            hottest_c=guard.hottest_c, most_power_w=guard.most_power_w, most_vram_bytes=guard.most_used_bytes,
            memory_bytes=report.machine.memory_bytes, rested_s=round(guard.rested_s, 1),
            long_rests=guard.long_rests,
        )  # fmt: skip
        if batches and report.pictures:
            places = [(batch.item, seed) for batch in batches for seed in batch.plan.seeds]
            place_of = {pair: place for place, pair in enumerate(places)}
            report.pictures.sort(key=lambda made: place_of[made.item, made.seed])
            report.grid = sheet(self._target, report.pictures)
        write_order_report(report, self._target)


def _free_memory() -> None:
    """Between two orders the weights of the first are gone, from the card too."""
    from oblik.diffusion.device import free_memory

    free_memory()


def settle(target: Path) -> None:
    """After a kill: batches that have a record are kept, the others are removed, and so are attempts of a
    climb that did not end."""
    for attempt in target.glob(f".[0-9]*{PART}-*"):
        shutil.rmtree(attempt, ignore_errors=True)
    for part in sorted(target.glob(f"[0-9]*{PART}")):
        keep(part, part.with_name(part.name.removesuffix(PART)))


def keep(part: Path, folder: Path) -> None:
    """Give a batch its name when it has a record, else remove it."""
    if (part / FILE_NAME).is_file():
        part.rename(folder)
    else:
        shutil.rmtree(part, ignore_errors=True)


def finished(target: Path) -> dict[Key, Made]:
    """Every whole picture in the target folder by the plan it was asked with and its seed."""
    found: dict[Key, Made] = {}
    for place in sorted(target.glob(f"[0-9]*/{FILE_NAME}")):
        found |= pictures_of(place.parent, target)
    return found


def pictures_of(folder: Path, target: Path) -> dict[Key, Made]:
    """The pictures that a batch's record names and whose bytes are still the same."""
    record = read_record(folder)
    key, seconds = key_of(record.asked), sum(record.seconds.values()) / max(1, len(record.pictures))
    found = {}
    for picture in record.pictures:
        path = folder / picture.file
        if path.is_file() and sha256_file(path) == picture.sha256:
            values = picture.model_dump() | {"file": path.relative_to(target).as_posix()}
            found[key, picture.seed] = Made(**values, item="", seconds=round(seconds, 3))
    return found


def key_of(plan: Plan) -> str:
    """The same for plans that differ in nothing but seeds and how many run at once."""
    return fingerprint(plan.model_dump(mode="json", exclude={"seeds", "batch"}))


def next_number(target: Path) -> int:
    """One more than the highest number of a batch in the target folder."""
    numbers = (entry.name.partition("-")[0] for entry in target.iterdir())
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1


def sheet(target: Path, pictures: Sequence[Made]) -> str:
    """A contact sheet of the first pictures. Returns its name."""
    shown, small = pictures[:ON_THE_SHEET], []
    for made in shown:
        image = open_upright(target / made.file)
        image.thumbnail((CELL_PX, CELL_PX))
        small.append(image)
    columns = min(10, max(4, round(len(small) ** 0.5)))
    labels = [f"{made.item} {made.seed}" for made in shown]
    PLAIN.save(grid(small, columns, labels, cell_px=CELL_PX), target / GRID, Label(record=REPORT))
    return GRID
