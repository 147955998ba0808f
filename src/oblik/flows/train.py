"""Training as one call: the newest dataset of a persona becomes the next LoRA artifact.

In: a persona, an open pack, a trainer, settings that override the pack's. Out: the artifact's
folder ``loras/<version>/``. A run that was stopped leaves its checkpoints and its settings there; ``resume``
goes on with it. One that was killed after its manifest is ended by the next start. Latents and text states
are kept in ``caches/`` for the persona's next run. Knows nothing of tensors.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from oblik.datasets.manifest import read_dataset
from oblik.errors import BackendError, InvalidInput, NotFound, RequestError
from oblik.flows.judge import Judges, write_choice
from oblik.packs.manifest import OpenPack, Pack
from oblik.paths import Home, atomic_write, latest_version, next_version, private_dir, versions
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress
from oblik.training.artifact import CURVES, MANIFEST, WORK, TrainingLog, finished
from oblik.training.config import TrainConfig
from oblik.training.trainer import Trainer, TrainRequest

CACHES, BEGUN = "caches", "begun.json"


class Begun(BaseModel):
    """What a run began with, kept in its ``work/`` folder."""

    dataset: str
    config: TrainConfig


@dataclass(frozen=True)
class TrainOrder:
    """What somebody asked for. ``dataset`` None means the newest; None in ``asked`` was not asked.

    ``resume`` goes on with the newest stopped run, with the dataset and the settings that it began with.
    """

    dataset: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False


def train(
    persona: Persona,
    order: TrainOrder,
    *,
    home: Home,
    pack: OpenPack,
    trainer: Trainer,
    progress: Progress,
    now: datetime,
    judges: Judges | None = None,
) -> Path:
    """Train and return the artifact's folder; its weights are those that a judge found best.

    ``judges`` names the judge for a version of the dataset, or nobody; it is asked when probes are made, and
    ``choice.png`` draws what the judge saw.

    Raises:
        ConsentError: the persona's consent does not cover portraits today.
        NotFound: there is no dataset, or nothing to resume.
    """
    progress = under_consent(persona, "train", home=home, now=now, progress=progress)
    folders = home.persona(persona.slug)
    ended = end_runs(folders.loras)
    if order.resume and ended:
        return ended[-1]
    out_dir = unfinished(folders.loras) if order.resume else folders.loras / next_version(folders.loras)
    begun = _read_begun(out_dir) if order.resume else None
    version = order.dataset or (begun.dataset if begun else latest_version(folders.datasets))
    if version is None or not (folders.datasets / version / "dataset.json").is_file():
        raise NotFound(
            f"persona {persona.slug!r} has no dataset {version or ''}".rstrip(),
            hint="oblik dataset build PHOTOS",
        )
    config = config_for(pack.manifest, order.asked, begun.config if begun else None)
    judge = judges(version) if judges and config.sample_every else None
    request = TrainRequest(
        pack=pack,
        persona=persona,
        dataset=read_dataset(folders.datasets / version),
        dataset_dir=folders.datasets / version,
        out_dir=private_dir(out_dir),
        config=config,
        now=now,
        resume=order.resume,
        caches=folders.root / CACHES,
        judge=judge,
        parent=next(reversed(finished(folders.loras)), None),
        asked=frozenset(name for name, value in order.asked.items() if value is not None),
    )
    atomic_write(out_dir / WORK / BEGUN, Begun(dataset=version, config=config).model_dump_json())
    try:
        trainer.train(request, progress)
    except (RequestError, BackendError):
        if {file.name for file in out_dir.rglob("*") if file.is_file()} <= {BEGUN}:
            shutil.rmtree(out_dir)  # refused before it began: nothing to go on with
        raise
    return end_run(out_dir)


def end_run(out_dir: Path) -> Path:
    """What comes after the manifest: draw the choice, then destroy ``work/``. May be done again."""
    log = TrainingLog.model_validate_json((out_dir / CURVES).read_bytes())
    if log.judgements:
        write_choice(out_dir, log.judgements, log.losses)
    shutil.rmtree(out_dir / WORK, ignore_errors=True)
    return out_dir


def end_runs(loras: Path) -> list[Path]:
    """End every run that was killed after it wrote its manifest; their folders, oldest first."""
    return [end_run(loras / name) for name in finished(loras) if (loras / name / WORK).is_dir()]


def _read_begun(out_dir: Path) -> Begun | None:
    file = out_dir / WORK / BEGUN
    return Begun.model_validate_json(file.read_bytes()) if file.is_file() else None


def config_for(pack: Pack, asked: Mapping[str, Any], begun: TrainConfig | None = None) -> TrainConfig:
    """The pack's training settings, or those that a run began with, with what was asked laid over them."""
    known = {name: value for name, value in pack.training.items() if name in TrainConfig.model_fields}
    if begun is not None:
        known = begun.model_dump()
    wanted = {name: value for name, value in asked.items() if value is not None}
    if strange := [name for name in wanted if name not in TrainConfig.model_fields]:
        close = get_close_matches(strange[0], TrainConfig.model_fields, n=1)
        raise InvalidInput(
            f"there is no training setting {strange[0]!r}"
            + (f"; did you mean {close[0]!r}?" if close else ""),
            hint="they are listed in docs/settings.md; the usual ones: oblik train --help",
        )
    try:
        return TrainConfig.model_validate(known | wanted)
    except ValidationError as refused:
        first = refused.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "targets"
        raise InvalidInput(f"{where}: {first['msg']}", hint="oblik train --help") from None


def unfinished(loras: Path) -> Path:
    """The newest artifact folder without a manifest. Raises NotFound when every run has finished."""
    open_runs = [name for name in versions(loras) if not (loras / name / MANIFEST).is_file()]
    if not open_runs:
        raise NotFound("there is no stopped training to go on with", hint="oblik train")
    return loras / open_runs[-1]
