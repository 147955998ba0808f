"""The judge of checkpoints: probes are scored with the persona's own ruler.

In: a persona's `Ruler` (one face stack, held-out references, other people), folders of probes. Out: a
`Judgement` for each, and ``choice.png`` beside them. References are embedded and the threshold is calibrated
once, when the judge is opened; a judgement costs the faces of its probes. Knows nothing of training.

Every step is judged with the same bootstrap draws over the same prompts and seeds, so steps differ by their
pictures and not by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from oblik.errors import NotFound
from oblik.faces.stack import FaceStack
from oblik.flows.calibrate import Ruler, open_ruler, pictures_in
from oblik.likeness.choice_chart import draw_choice
from oblik.likeness.gate import MISS
from oblik.likeness.guards import measure_bleed, measure_copying
from oblik.likeness.intervals import mean_interval
from oblik.likeness.pairs import Score
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, atomic_write
from oblik.personas.persona import Persona
from oblik.progress import SilentProgress
from oblik.training.artifact import LossPoint
from oblik.training.judge import WITH, WITHOUT, Judge, Judgement, best

CHOICE = "choice.png"
Judges = Callable[[str], Judge | None]
"""A version of a dataset -> who judges checkpoints of a training on it."""


class LikenessJudge:
    """A `Judge` that measures."""

    def __init__(self, ruler: Ruler, *, seed: int = 0) -> None:
        self._ruler, self._seed = ruler, seed

    def __call__(self, step: int, probes: Path) -> Judgement:
        ruler = self._ruler
        made, bare = self._score(probes / WITH), self._score(probes / WITHOUT)
        rng = np.random.default_rng(self._seed)
        cosines_N = np.array([MISS if score.centroid is None else score.centroid for score in made])
        likeness = mean_interval(cosines_N, rng)
        threshold = ruler.calibration.threshold
        bleed = measure_bleed(bare, threshold, ruler.calibration.fmr)
        without = bleed.mean if bleed is not None and bleed.mean is not None else MISS
        names = [str(place) for place in range(len(made))]
        copy = measure_copying(made, names, ruler.references, rng)
        faces = sum(score.found for score in made)
        return Judgement(
            step=step,
            likeness=likeness.value,
            low=likeness.low,
            high=likeness.high,
            without=without,
            copied=len(copy.suspects) / faces if copy else 0.0,
            allowed_copy=copy.allowed / faces if copy else 0.0,
            misses=len(made) - faces,
            passes=without < threshold and (copy is None or copy.passed),
            threshold=threshold,
        )

    def _score(self, folder: Path) -> list[Score]:
        pictures = pictures_in(folder)
        if not pictures:
            raise NotFound(f"there is no probe in {folder}", hint="oblik train --resume")
        return self._ruler.score(pictures, SilentProgress())


def open_judge(persona: Persona, *, home: Home, pack: OpenPack, stack: FaceStack, dataset: str) -> Judge:
    """The judge of a training on the dataset version ``dataset``.

    Raises:
        NotFound: there is no such dataset, or nobody to calibrate with.
        InvalidInput: no photo with a face is held out, or the dataset was measured with another face stack.
    """
    return LikenessJudge(open_ruler(persona, home=home, pack=pack, stack=stack, dataset=dataset))


def judge_of(
    persona: Persona, *, home: Home, pack: OpenPack, stack: Callable[[], FaceStack],
    say: Callable[[str], object] | None = None,
) -> Judges:  # fmt: skip
    """For a version of the dataset its judge; nobody, and ``say`` is told why, where there is no face pack
    or nobody to calibrate with. What `open_judge` calls invalid is raised.
    """

    def judge(dataset: str) -> Judge | None:
        try:
            return open_judge(persona, home=home, pack=pack, stack=stack(), dataset=dataset)
        except NotFound as missing:
            if say is not None:
                say(f"checkpoints are not judged: {missing.message}; {missing.hint}")
            return None

    return judge


def write_choice(artifact: Path, judgements: Sequence[Judgement], losses: Sequence[LossPoint]) -> Path:
    """Draw ``choice.png`` into an artifact's folder: what was measured at each step, and the step chosen."""
    path = artifact / CHOICE
    taught = [(point.step, point.train) for point in losses]
    held_out = [(point.step, point.validation) for point in losses if point.validation is not None]
    atomic_write(path, draw_choice(judgements, best(judgements), taught, held_out))
    return path
