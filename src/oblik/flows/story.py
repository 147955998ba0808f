"""What a report tells: the finished nouns of one whole flow and the folders they lie in.

In: what `oblik.flows.demo` finds on disk. Out: the plain values that the page shows: pictures as data
URIs with their score and grade. Knows no HTML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from oblik.datasets.manifest import Dataset, Photo
from oblik.errors import InvalidInput
from oblik.flows.charts import Scores_N
from oblik.generation.record import Picture, Record
from oblik.images import data_uri
from oblik.likeness.calibration import Calibration
from oblik.likeness.findings import LikenessReport
from oblik.packs.manifest import Pack
from oblik.personas.persona import Persona
from oblik.training.artifact import LoraArtifact, TrainingLog

THUMBNAIL_PX, PHOTO_PX = 192, 256


@dataclass(frozen=True)
class Shown:
    """One picture on the page. ``grade`` is the CSS class of its chip."""

    uri: str | None
    label: str
    score: float | None = None
    grade: str = ""
    prompt: str = ""
    seed: int = 0

    @property
    def score_text(self) -> str:
        return "no face" if self.score is None else f"{round(self.score, 2) + 0.0:.2f}"


@dataclass(frozen=True)
class Batch:
    """Records of one kind and the folder of each, in the order they are shown."""

    kind: str
    short: str
    title: str
    about: str
    records: tuple[tuple[Record, Path], ...]

    def pictures(self) -> list[tuple[Record, Picture, Path]]:
        return [
            (record, picture, folder / picture.file)
            for record, folder in self.records
            for picture in record.pictures
        ]

    def likeness(self) -> list[float]:
        """Scores of the pictures in which a face was found."""
        return [picture.likeness for _, picture, _ in self.pictures() if picture.likeness is not None]


@dataclass(frozen=True)
class Story:
    """Everything the page tells. ``batches``: portraits first, then the comparisons."""

    persona: Persona
    pack: Pack
    dataset: Dataset
    dataset_dir: Path
    photos_dir: Path
    artifact: LoraArtifact
    artifact_dir: Path
    log: TrainingLog
    batches: tuple[Batch, ...]
    report: LikenessReport
    impostors_N: Scores_N
    home: str
    record_path: str
    seconds: dict[str, float] = field(default_factory=dict)


def shown_batch(story: Story, batch: Batch) -> list[Shown]:
    """The pictures of a batch with their scores."""
    return [
        Shown(
            uri=data_uri(path),
            label=scene_words(record.plan.prompt),
            score=picture.likeness,
            grade=grade(picture.likeness, story.report.calibration, wanted=batch is story.batches[0]),
            prompt=record.plan.prompt,
            seed=picture.seed,
        )
        for record, picture, path in batch.pictures()
    ]


def grade(likeness: float | None, calibration: Calibration, *, wanted: bool = True) -> str:
    """CSS class of a score: ``pass``, ``near`` (inside the threshold's interval), ``below``, ``miss``.

    Where likeness is not wanted, a low score is ``quiet`` and one over the threshold stands out.
    """
    if likeness is None:
        return "miss"
    if not wanted:
        return "near" if likeness >= calibration.threshold else "quiet"
    if likeness >= calibration.threshold:
        return "pass"
    return "near" if likeness >= calibration.threshold_low else "below"


def shown_photo(story: Story, photo: Photo) -> Shown:
    """An accepted photo as the dataset holds it."""
    assert photo.path is not None
    uri = data_uri(story.dataset_dir / photo.path, longest_px=PHOTO_PX, quality=88)
    return Shown(uri, f"{photo.split.value if photo.split else ''}: {photo.caption}")


def shown_source(story: Story, photo: Photo) -> Shown:
    """A source file as it came; ``uri`` is None when it cannot be read."""
    try:
        return Shown(
            data_uri(story.photos_dir / photo.source, longest_px=THUMBNAIL_PX, quality=80), photo.source
        )
    except (InvalidInput, OSError):
        return Shown(None, photo.source)


def scene_words(prompt: str) -> str:
    """What a prompt says after the person: "in a park, daylight"."""
    _, _, scene = prompt.partition(", ")
    return scene or prompt
