"""Measuring as one call: calibrate on held-out photos and other people, then score pictures.

In: a persona, an open pack, its face stack, a folder of pictures. Out: a `LikenessReport`, the files
of `oblik.likeness.report` in that folder, and the scores in the records found there. A low likeness
is a result. Knows nothing of how the pictures were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from oblik.datasets.manifest import Dataset, read_dataset
from oblik.errors import InvalidInput, NotFound
from oblik.faces.stack import FaceStack
from oblik.flows.impostors import open_impostors
from oblik.generation.engine import GRID
from oblik.generation.plan import Plan
from oblik.generation.record import FILE_NAME, Guards, Record, read_record, write_record
from oblik.images import open_upright
from oblik.likeness.acceptance import last_test
from oblik.likeness.advice import remedies
from oblik.likeness.calibration import Calibration, calibrate
from oblik.likeness.findings import Advice, LikenessReport
from oblik.likeness.gate import judge
from oblik.likeness.guards import Bleed, bleed_words, copy_words, measure_copying
from oblik.likeness.pairs import Impostors, References, Score, score_images
from oblik.likeness.report import write_report
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, latest_version
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress
from oblik.training.artifact import MANIFEST, latest_artifact, read_artifact

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
MADE_HERE = {GRID, "roc.png", "scores.png"}


@dataclass(frozen=True)
class Ruler:
    """What a persona's likeness is measured with: one stack, held-out references, other people."""

    stack: FaceStack
    references: References
    impostors: Impostors
    calibration: Calibration

    def score(self, pictures: list[Path], progress: Progress) -> list[Score]:
        """Score files in order."""
        scores: list[Score] = []
        with progress.stage("measure", total=len(pictures)) as advance:
            for path in pictures:
                progress.check_cancelled()
                scores += score_images(self.stack, [open_upright(path)], self.references.heldout_ND)
                advance()
        return scores


def open_ruler(
    persona: Persona,
    *,
    home: Home,
    pack: OpenPack,
    stack: FaceStack,
    dataset: str | None = None,
    fmr: float = 0.01,
    seed: int = 0,
) -> Ruler:
    """Calibrate for a persona. ``dataset`` None means the one that the newest LoRA learned from.

    The user's impostors for this face stack come before those of the pack.

    Raises:
        NotFound: no dataset, or there are no impostors.
        InvalidInput: the dataset was measured with another face stack.
    """
    described, folder = _dataset(persona, home, dataset)
    if described.face_stack != stack.name:
        raise InvalidInput(
            f"dataset {described.version} was measured with the faces of {described.face_stack}, "
            f"not {stack.name}",
            hint="oblik dataset build PHOTOS",
        )
    impostors = open_impostors(home, pack, stack.name)
    references = References.load(described, folder)
    rng = np.random.default_rng(seed)
    return Ruler(stack, references, impostors, calibrate(impostors, references.heldout_ND, fmr=fmr, rng=rng))


def measure(
    persona: Persona,
    folder: Path,
    ruler: Ruler,
    *,
    home: Home,
    progress: Progress,
    now: datetime,
    without_token: Path | None = None,
    seed: int = 0,
) -> LikenessReport:
    """Score every picture in ``folder`` and write the report there.

    ``without_token`` holds pictures of the same prompts and seeds made without the trigger: bleed.
    Raises ConsentError, and NotFound when there is no picture.
    """
    progress = under_consent(persona, "likeness", home=home, now=now, progress=progress)
    pictures = pictures_in(folder)
    if not pictures:
        raise NotFound(f"there is no picture in {folder}", hint='make some first: oblik generate "in a park"')
    scores = ruler.score(pictures, progress)
    strangers = ruler.score(pictures_in(without_token), progress) if without_token else []
    report = judge(
        scores,
        ruler.calibration,
        ruler.references,
        persona=persona.slug,
        rng=np.random.default_rng(seed),
        names=[path.relative_to(folder).as_posix() for path in pictures],
        without_token=strangers,
        lora_scale=max((read_record(place).plan.lora_scale for place in _records(folder)), default=None),
    )
    write_report(report, ruler.impostors, ruler.references, folder)
    note_scores(folder, dict(zip(pictures, scores, strict=True)), ruler, report.bleed)
    return report


def left_to_do(
    persona: Persona, plan: Plan, scores: Sequence[Score], ruler: Ruler, home: Home
) -> list[Advice]:
    """What is left to do about a plan's pictures that fall short, with the conditions that its LoRA fails."""
    report = judge(
        scores, ruler.calibration, ruler.references, persona=persona.slug, rng=np.random.default_rng(0),
        lora_scale=plan.lora_scale,
    )  # fmt: skip
    folder = home.persona(persona.slug).loras / (plan.lora or "")
    if not plan.lora or not (folder / MANIFEST).is_file():
        return remedies(report, None, plan.lora_scale)
    tested = last_test(folder)
    failing = tested.failing if tested else ""
    return remedies(report, read_artifact(folder), plan.lora_scale, failing)


def dataset_of(persona: Persona, folder: Path, home: Home) -> str | None:
    """The dataset behind the LoRA that made the pictures in ``folder``; None where no record names one.

    Raises InvalidInput for LoRAs of several datasets: what one held out, another may have learned.
    """
    plans = [read_record(place).plan for place in _records(folder)]
    loras = {plan.lora for plan in plans if plan.lora and plan.persona == persona.slug}
    made = [home.persona(persona.slug).loras / lora for lora in loras]
    found = sorted({read_artifact(lora).dataset for lora in made if (lora / MANIFEST).is_file()})
    if len(found) > 1:
        raise InvalidInput(
            f"the pictures come from LoRAs of several datasets: {', '.join(found)}",
            hint="measure one batch at a time: oblik likeness measure FOLDER",
        )
    return found[0] if found else None


def newest_pictures(persona: Persona, home: Home) -> Path:
    """The folder of the newest batch in a persona's gallery."""
    gallery = home.persona(persona.slug).gallery
    newest = latest_version(gallery)
    if newest is None:
        raise NotFound("the gallery is empty", hint='oblik generate "in a park"')
    return gallery / newest


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder: those its records name, or, without a record, every picture file."""
    records = [(read_record(place), place.parent) for place in _records(folder)]
    named = [home / picture.file for record, home in records for picture in record.pictures]
    loose = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    found = named if records else sorted(path for path in loose if path.name not in MADE_HERE)
    return [path for path in found if path.is_file()]


def note_scores(folder: Path, scores: dict[Path, Score], ruler: Ruler, bleed: Bleed | None = None) -> None:
    """Write likeness, threshold and guards into every record in ``folder``."""
    for place in _records(folder):
        write_record(_scored(read_record(place), place.parent, scores, ruler, bleed), place.parent)


def _scored(
    record: Record, folder: Path, scores: dict[Path, Score], ruler: Ruler, bleed: Bleed | None
) -> Record:
    pictures = [
        picture.model_copy(update={"likeness": score.centroid, "face_found": score.found})
        if (score := scores.get(folder / picture.file))
        else picture
        for picture in record.pictures
    ]
    own = {p.file: score for p in pictures if (score := scores.get(folder / p.file))}
    found = {
        "pictures": pictures,
        "threshold": ruler.calibration.threshold,
        "face_stack": ruler.stack.name,
        "guards": _guarded(own, ruler.references, bleed),
    }
    return record.model_copy(update=found)


def _guarded(scores: dict[str, Score], references: References, bleed: Bleed | None) -> Guards:
    copying = measure_copying(list(scores.values()), list(scores), references, np.random.default_rng(0))
    return Guards(
        copying=copy_words(copying, sum(score.found for score in scores.values())),
        suspects=copying.suspects if copying else [],
        bleed=bleed_words(bleed),
    )


def _records(folder: Path) -> list[Path]:
    return sorted(folder.rglob(FILE_NAME))


def _dataset(persona: Persona, home: Home, version: str | None) -> tuple[Dataset, Path]:
    folders = home.persona(persona.slug)
    if version is None and any(folders.loras.glob(f"*/{MANIFEST}")):
        version = read_artifact(folders.loras / latest_artifact(folders.loras)).dataset
    version = version or latest_version(folders.datasets)
    if version is None:
        raise NotFound(f"persona {persona.slug!r} has no dataset", hint="oblik dataset build PHOTOS")
    return read_dataset(folders.datasets / version), folders.datasets / version
