"""The native trainer: Oblik's own, on the pack's own pipeline.

In: a `TrainRequest`. Out: a `LoraArtifact` folder. The parts: run.py (the loop), learner.py (what learns),
pictures.py (batches), caches.py, optimisers.py, halves.py, probe.py, metrics.py, checkpoints.py, writing.py.
Knows nothing of consent: flows ask.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from oblik.diffusion.device import few_threads, pick_device
from oblik.diffusion.load import open_pipeline
from oblik.errors import DiskFull, OutOfMemory
from oblik.packs.manifest import OpenPack
from oblik.progress import Progress
from oblik.training.backends.run import Run
from oblik.training.trainer import TrainRequest

OpenBare = Callable[[OpenPack, torch.dtype, torch.device], Any]
"""A pack, a type and a device -> its pipeline without anybody's LoRA."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def open_bare(pack: OpenPack, dtype: torch.dtype, device: torch.device) -> Any:
    """The pack's pipeline as it is."""
    return open_pipeline(pack, None, dtype=dtype, device=device)


class NativeTrainer:
    """Trains on one device."""

    def __init__(self, device: str = "auto", open_pack: OpenBare = open_bare) -> None:
        self._device, self._open_pack = pick_device(device), open_pack

    def train(self, request: TrainRequest, progress: Progress) -> Path:
        with _in_plain_words(request.pack.manifest.name):
            pipeline = self._open_pack(request.pack, getattr(torch, request.config.dtype), self._device)
            run = Run(request, pipeline, progress)
            with few_threads(run.family.network):
                run.go()
        return request.out_dir


@contextmanager
def _in_plain_words(pack: str) -> Iterator[None]:
    """Errors of the machine as Oblik's own, each with the next command."""
    try:
        yield
    except torch.OutOfMemoryError as full:
        raise OutOfMemory(
            f"the card's memory is too small to train {pack!r} with these settings",
            hint="oblik train --resume --micro-batch 1 --gradient-checkpointing",
        ) from full
    except OSError as full:
        if full.errno not in FULL:
            raise
        raise DiskFull(
            "the disk is full; the last checkpoint is whole",
            hint="free some space, then: oblik train --resume",
        ) from full
