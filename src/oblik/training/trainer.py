"""What a trainer is: a dataset goes in, a LoRA artifact comes out.

The Protocol mentions no tensor library; backends are loaded by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from oblik.datasets.manifest import Dataset
from oblik.packs.manifest import OpenPack
from oblik.personas.persona import Persona
from oblik.progress import Progress
from oblik.registry import load
from oblik.training.config import TrainConfig
from oblik.training.judge import Judge


@dataclass(frozen=True)
class TrainRequest:
    """Everything a run needs. ``out_dir`` becomes the artifact's folder; ``resume`` goes on from there.

    ``caches`` is a folder that the runs of a persona share; without one they lie in ``out_dir`` and go at the
    end of the run. ``judge`` scores the probes, and the best of them becomes the artifact. ``asked``
    names the settings that somebody chose, and not the pack.
    """

    pack: OpenPack
    persona: Persona
    dataset: Dataset
    dataset_dir: Path
    out_dir: Path
    config: TrainConfig
    now: datetime
    resume: bool = False
    caches: Path | None = None
    judge: Judge | None = None
    parent: str | None = None
    asked: frozenset[str] = frozenset()


class Trainer(Protocol):
    """A training backend."""

    def train(self, request: TrainRequest, progress: Progress) -> Path:
        """Train and return the artifact's folder, complete with its manifest, its ``work/`` for the caller.

        Raises:
            JobCancelled: somebody asked to stop; a checkpoint was written.
            OutOfMemory: the memory of the device is too small for these settings.
            TrainingDiverged: the loss is no number, or grows; the last good checkpoint is kept.
            DiskFull: there is no room for the next file; what was written is whole.
        """
        ...


TRAINERS = {
    "native": "oblik.training.backends.native:NativeTrainer",
    "kohya": "oblik.training.backends.kohya:KohyaTrainer",
}


def open_trainer(name: str = "native", *, device: str = "auto", **options: Any) -> Trainer:
    """A trainer by name, for a device (``auto``, ``cpu``, ``cuda``...), with options of its own."""
    trainer: Trainer = load("trainer", name, TRAINERS)(device, **options)
    return trainer
