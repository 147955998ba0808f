"""The two modes as one call: make pictures, measure them, climb the ladder while they fall short.

In: a persona, a plan, how far to climb. Out: a `Record` and its folder in the gallery: those of the best
attempt, with every rung that was tried and the likeness before and after it. Knows nothing of tensors, and of
what a rung changes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oblik.datasets.manifest import Split, read_dataset
from oblik.errors import InvalidInput, NotFound
from oblik.faces.stack import FaceStack
from oblik.flows.calibrate import Ruler, left_to_do, note_scores, open_ruler
from oblik.flows.climb_lines import first_line, kept_line, lack_line, rung_line
from oblik.flows.generate import generate
from oblik.generation.engine import FIRST, Engine
from oblik.generation.ladder import (
    EDIT,
    FACE,
    Climb,
    Heights,
    Ladder,
    climb,
    ladder,
    mattering,
    number_of,
    raise_by,
)
from oblik.generation.plan import Plan
from oblik.generation.record import FILE_NAME, FLAG, USUAL, Guards, Record, Step, read_record, write_record
from oblik.likeness.gate import MISS
from oblik.likeness.pairs import Score
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, latest_version, next_version, private_dir
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress
from oblik.training.artifact import MANIFEST, read_artifact

PHOTOS, HIGHEST = 8, EDIT
"""How many photos the first rung refers to; the last rung."""
_ATTEMPT = re.compile(r"\.(v\d{3,})-(?:rung\d+|before)")


def silent(_line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Climbing:
    """How far to climb. With ``auto`` the pictures are measured and rungs climbed while they fall short, up
    to the rung ``highest``; without it nothing is measured, and a reliable plan starts at rung ``highest``
    (default: the first). ``say`` is told each likeness, and why something is not done; ``usual`` is why the
    mode is reliable though nobody named one."""

    auto: bool = True
    highest: int | None = None
    heights: Heights = field(default_factory=Heights)
    say: Callable[[str], object] = silent
    usual: str = ""


class Attempted(NamedTuple):
    """A plan that ran, where its pictures lie, and their mean likeness with what was found beside it."""

    plan: Plan
    folder: Path
    likeness: float = float("-inf")
    scores: Sequence[Score] = ()
    guards: Guards | None = None


def generate_in_mode(
    persona: Persona,
    plan: Plan,
    climbing: Climbing,
    *,
    home: Home,
    pack: OpenPack,
    engine: Engine,
    stack: Callable[[], FaceStack],
    progress: Progress,
    now: datetime,
    folder: Path | None = None,
) -> tuple[Record, Path]:
    """Run a plan in its mode. A fast plan climbs only when its likeness falls short; a reliable one takes the
    first rung in any case. Pictures may go into a ``folder`` outside the gallery: then a climb that is
    stopped leaves nothing there.

    Raises:
        ConsentError: the persona's consent does not cover portraits today.
        NotFound, InvalidInput: a reliable plan cannot be measured, or has no photos to refer to.
    """
    progress = under_consent(persona, "generate", home=home, now=now, progress=progress)
    sweep(home.persona(persona.slug).gallery)
    run = _Run(persona, home, pack, engine, progress, now, climbing.say, climbing.usual)
    reliable = plan.mode == "reliable"
    if not climbing.auto:
        if not reliable:
            return run.once(plan, folder)
        return run.at_once(plan, _ladder(plan, run, climbing, FACE), folder)
    try:
        ruler = open_ruler(persona, home=home, pack=pack, stack=stack(), dataset=dataset_behind(plan, home))
    except (NotFound, InvalidInput) as missing:
        if reliable:
            raise
        climbing.say(f"not measured: {missing.message}; {missing.hint}")
        return run.once(plan, folder)
    return run.climb(plan, _ladder(plan, run, climbing, EDIT), ruler, int(reliable), folder)


def sweep(gallery: Path) -> None:
    """After a kill: remove the attempts of climbs that nobody is at any more, and pictures made only to be
    edited; what was set aside for better ones, which never came into its place, is put back."""
    from filelock import Timeout

    for place in sorted([*gallery.glob(".v*"), *gallery.glob(f"v*/{FIRST}")]):
        found = _ATTEMPT.fullmatch(place.name)
        if (found is None and place.name != FIRST) or place.is_symlink():
            continue
        folder = gallery / found[1] if found else place.parent
        try:
            with _climbing(folder):
                if not found:
                    shutil.rmtree(place)
                    with suppress(OSError):  # pictures that were finished stay
                        folder.rmdir()
                elif place.name.endswith("-before") and not folder.exists():
                    place.rename(folder)
                else:
                    shutil.rmtree(place)
        except Timeout:
            continue


def reference_photos(home: Home, slug: str, version: str, count: int = PHOTOS) -> tuple[str, ...]:
    """The photos in which the person looks most like themselves: those that teach, nearest to their mean.

    Held-out photos are what likeness is measured with; a picture drawn towards them would be measured with
    itself.
    """
    folder = home.persona(slug).datasets / version
    dataset = read_dataset(folder)
    with np.load(folder / dataset.embeddings, allow_pickle=False) as arrays:
        known = {name: np.asarray(arrays[name], np.float64) for name in arrays.files}
    photos = [photo for photo in dataset.accepted(Split.train) if photo.source_sha256 in known and photo.path]
    if not photos:
        return ()
    vectors_ND = np.stack([known[photo.source_sha256] for photo in photos])
    nearest = np.argsort(-(vectors_ND @ vectors_ND.mean(axis=0)), kind="stable")[:count]
    return tuple(f"datasets/{version}/{photos[place].path}" for place in nearest)


def dataset_behind(plan: Plan, home: Home) -> str | None:
    """The dataset that the plan's LoRA learned from, else the persona's newest; None without any."""
    if plan.persona is None:
        return None
    folders = home.persona(plan.persona)
    if plan.lora and (folders.loras / plan.lora / MANIFEST).is_file():
        return read_artifact(folders.loras / plan.lora).dataset
    return latest_version(folders.datasets)


@dataclass(frozen=True)
class _Run:
    """What every attempt of one call shares."""

    persona: Persona
    home: Home
    pack: OpenPack
    engine: Engine
    progress: Progress
    now: datetime
    say: Callable[[str], object]
    usual: str = ""

    def once(self, plan: Plan, folder: Path | None = None) -> tuple[Record, Path]:
        """Run one plan."""
        return generate(
            self.persona, plan, home=self.home, pack=self.pack, engine=self.engine, progress=self.progress,
            now=self.now, folder=folder,
        )  # fmt: skip

    def at_once(self, plan: Plan, steps: Ladder, folder: Path | None = None) -> tuple[Record, Path]:
        """Run the plan raised by every rung, unmeasured. What was asked stands in the record of a run that
        was stopped, too."""
        raised = plan
        climbed: list[Step] = []
        for rung in steps.rungs:
            raised = raise_by(rung, raised)
            climbed.append(Step(name=rung.name, kind="rung", reason=rung.said(raised)))
        gallery = self.home.persona(self.persona.slug).gallery
        mine = folder is None
        folder = folder or gallery / next_version(gallery)
        try:
            with _climbing(folder) if mine else nullcontext():
                self.once(raised, folder)
        finally:
            if (folder / FILE_NAME).is_file():
                record = read_record(folder)
                record.asked = plan
                record.steps += [*self._by_itself(), *climbed, *self._missing(steps, climbed, HIGHEST)]
                write_record(record, folder)
        return read_record(folder), folder

    def climb(
        self, plan: Plan, steps: Ladder, ruler: Ruler, at_least: int, into: Path | None = None
    ) -> tuple[Record, Path]:
        """Climb, keep the best attempt's pictures and write the way there into its record, also when the
        climb was stopped. ``into`` is a folder outside the gallery, which gets what is finished only."""
        gallery = self.home.persona(self.persona.slug).gallery
        folder = into or gallery / next_version(gallery)
        threshold = ruler.calibration.threshold
        tried: list[Attempted] = []
        way: list[Step] = []
        found: Climb | None = None

        def run(raised: Plan) -> float:
            place = folder.with_name(f".{folder.name}-rung{len(tried)}") if tried or into else folder
            tried.append(Attempted(raised, place))
            made = tried[-1] = self._measured(raised, place, ruler)
            if len(tried) == 1:
                self.say(first_line(made.likeness, threshold, made.guards, climbs_on=at_least > 0))
            return made.likeness

        def note(step: Step) -> None:
            if step.likeness_after is not None and (guards := tried[-1].guards):
                step.guards = guards.copying
            way.append(step)
            self.say(rung_line(step, threshold))

        with _climbing(folder) if into is None else nullcontext():
            try:
                found = climb(plan, run, threshold, rungs=steps.rungs, at_least=at_least, note=note)
            finally:
                if found or into is None:
                    best = max(tried, key=lambda attempt: attempt.likeness)
                    self._tell(plan, way, found, steps, best, ruler)
                    _keep_best(best, tried, folder)
                else:
                    _remove(tried)
        return read_record(folder), folder

    def _measured(self, plan: Plan, folder: Path, ruler: Ruler) -> Attempted:
        record, _ = self.once(plan, folder)
        paths = [folder / picture.file for picture in record.pictures]
        scores = ruler.score(paths, self.progress)
        note_scores(folder, dict(zip(paths, scores, strict=True)), ruler)
        likeness = float(np.mean([MISS if score.centroid is None else score.centroid for score in scores]))
        return Attempted(plan, folder, likeness, scores, read_record(folder).guards)

    def _tell(
        self, plan: Plan, way: list[Step], found: Climb | None, steps: Ladder, best: Attempted, ruler: Ruler
    ) -> None:
        """Put what was asked and the way up into the best attempt's record, where it has pictures."""
        if not (best.folder / FILE_NAME).is_file():
            return
        threshold = ruler.calibration.threshold
        record = read_record(best.folder)
        record.asked = plan
        record.steps += [*self._by_itself(), *way]
        if found:
            reached = HIGHEST if found.exhausted else max(map(number_of, way), default=0)
            record.steps += self._missing(steps, way, reached)
        if found and way:
            self.say(kept_line(way, found.best.likeness, threshold))
        if found and found.exhausted:
            reason = (
                f"mean likeness {found.best.likeness:.3f} is below the threshold {threshold:.3f} "
                "after the last rung"
            )
            record.steps.append(Step(name=FLAG, kind="flag", reason=reason))
            record.advice = [
                each.text for each in left_to_do(self.persona, best.plan, best.scores, ruler, self.home)
            ]
            self.say(f"{reason}: {FLAG}")
            for line in record.advice:
                self.say(f"advice: {line}")
        write_record(record, best.folder)

    def _by_itself(self) -> list[Step]:
        """That the mode is the LoRA's usual one, and nobody's wish."""
        return [Step(name=USUAL, kind="note", reason=self.usual)] if self.usual else []

    def _missing(self, steps: Ladder, climbed: Sequence[Step], reached: int) -> list[Step]:
        """What was missed: a rung up to ``reached`` that another way did not climb, and what rungs did
        without. The record has the alternatives too."""
        missed = mattering(steps.missing, climbed, reached)
        if missed:
            self.say(lack_line(missed))
        return [Step(name="not available", kind="lack", reason=each.sentence()) for each in missed]


def _ladder(plan: Plan, run: _Run, climbing: Climbing, default: int) -> Ladder:
    version = dataset_behind(plan, run.home)
    photos = reference_photos(run.home, run.persona.slug, version) if version else ()
    return ladder(run.pack, photos, climbing.heights, climbing.highest or default)


@contextmanager
def _climbing(folder: Path) -> Iterator[None]:
    """Mark that somebody is at work on ``folder`` and its attempts; the mark ends with the process."""
    from filelock import FileLock

    lock = private_dir(folder.parent) / f".{folder.name}.lock"
    with FileLock(lock, timeout=0, mode=0o600):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no file that is open
                lock.unlink(missing_ok=True)


def _keep_best(best: Attempted, tried: list[Attempted], folder: Path) -> None:
    """Leave the best attempt's pictures in ``folder`` and nobody else's; an unfinished first one stays."""
    if best.folder != folder:
        aside = folder.with_name(f".{folder.name}-before")
        if folder.exists():
            folder.rename(aside)
        best.folder.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    _remove(attempt for attempt in tried if attempt.folder != folder)


def _remove(attempts: Iterable[Attempted]) -> None:
    for attempt in attempts:
        shutil.rmtree(attempt.folder, ignore_errors=True)
