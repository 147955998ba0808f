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


@dataclass(frozen=True)
class TrainRequest:
    """Everything a run needs. ``out_dir`` becomes the artifact's folder; ``resume`` goes on from there."""

    pack: OpenPack
    persona: Persona
    dataset: Dataset
    dataset_dir: Path
    out_dir: Path
    config: TrainConfig
    now: datetime
    resume: bool = False


class Trainer(Protocol):
    """A training backend."""

    def train(self, request: TrainRequest, progress: Progress) -> Path:
        """Train and return the artifact's folder, complete with its manifest.

        Raises:
            JobCancelled: somebody asked to stop; a checkpoint was written.
            OutOfMemory: no configuration fits.
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
