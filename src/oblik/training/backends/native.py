"""The native trainer: Oblik's own, on the pack's own pipeline.

In: a `TrainRequest`. Out: a `LoraArtifact` folder. The parts: run.py (the loop), learner.py (what learns),
pictures.py (batches), caches.py, optimisers.py, halves.py, probe.py, metrics.py, checkpoints.py, writing.py.
On a CUDA card a memory plan decides how the pack is held; out of memory, the run goes on with the next one.
Knows nothing of consent: flows ask.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from oblik.diffusion.device import few_threads, pick_device
from oblik.diffusion.families.family import family_of
from oblik.diffusion.load import encoders_of, loading, open_pipeline, plan_for, settle
from oblik.diffusion.memory import with_replanning
from oblik.diffusion.modulation import STREAMS, schedule_times, training_grid
from oblik.errors import DiskFull, OutOfMemory
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import MemoryPlan, Stage
from oblik.progress import Progress
from oblik.training.backends import probe
from oblik.training.backends.pictures import shrunk
from oblik.training.backends.run import Planned, Run
from oblik.training.config import MLP_TARGETS
from oblik.training.trainer import TrainRequest

OpenBare = Callable[..., Any]
"""A pack, a type, a device, the packing that `loading` asks for -> its pipeline without anybody's LoRA."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def open_bare(pack: OpenPack, dtype: torch.dtype, device: torch.device, **packing: Any) -> Any:
    """The pack's pipeline as it is."""
    return open_pipeline(pack, None, dtype=dtype, device=device, **packing)


class NativeTrainer:
    """Trains on one device; ``vram_bytes`` are what a memory plan may use (default: the CUDA card's)."""

    def __init__(
        self, device: str = "auto", open_pack: OpenBare = open_bare, vram_bytes: int | None = None
    ) -> None:
        self._device, self._open_pack, self._vram_bytes = pick_device(device), open_pack, vram_bytes

    def train(self, request: TrainRequest, progress: Progress) -> Path:
        with _in_plain_words(request.pack.manifest.name):
            plan = self._plan(request)
            if plan is None:
                dtype = getattr(torch, request.config.dtype)
                _go(Run(request, self._open_pack(request.pack, dtype, self._device), progress))
            else:
                self._train_by(plan, request, progress)
        return request.out_dir

    def _plan(self, request: TrainRequest) -> MemoryPlan | None:
        """The memory plan of a request, for the largest of its pictures."""
        config, dataset = request.config, request.dataset
        sizes = [(p.width_px or 0, p.height_px or 0) for p in dataset.photos if p.path]
        sizes += [(extra.width_px, extra.height_px) for extra in dataset.extras]
        width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
        width, height = shrunk((width, height), config.size_px, request.pack.manifest.side_multiple_px)
        side = request.pack.manifest.native_size_px
        return plan_for(
            request.pack, device=self._device, vram_bytes=self._vram_bytes, dtype=config.dtype,
            bakes=not any(stream in target for target in config.targets for stream in STREAMS),
            purpose="train", width_px=width or side, height_px=height or side,
            batch=config.micro_batch or config.batch, rank=config.rank, text_rank=config.text_rank,
            text_layers=config.text_layers if config.token_steps else 0,
            mlp_lora=bool(set(config.targets) & set(MLP_TARGETS)),
        )  # fmt: skip

    def _train_by(self, plan: MemoryPlan, request: TrainRequest, progress: Progress) -> None:
        """Train by the plan; out of memory, go on from the last checkpoint by the next one."""
        notes: list[str] = []

        def attempt(plan: MemoryPlan, enter: Callable[[Stage], None]) -> None:
            enter("encode text")  # while photos are encoded, all networks are there too
            choice = plan.configuration
            optimiser = "adamw8bit" if request.config.optimiser == "adamw8bit" else choice.optimiser
            changes = {"micro_batch": choice.batch, "optimiser": optimiser, "gradient_checkpointing": True}
            config = request.config.model_copy(update=changes)
            again = replace(request, config=config, resume=request.resume or bool(notes))
            _go(Run(again, self._open_by(plan, again), progress, Planned(plan, enter, notes)))

        def note(message: str) -> None:
            notes.append(message)
            _say(progress, "smaller plan", message)

        _say(progress, "memory plan", plan.gave_up)
        with_replanning(attempt, plan, note)

    def _open_by(self, plan: MemoryPlan, request: TrainRequest) -> Any:
        """The pipeline as a plan holds it, its times those of the grid and of the probes."""
        dtype, choice = getattr(torch, request.config.dtype), plan.configuration
        place, packing = loading(choice, self._device)
        pipeline = self._open_pack(request.pack, dtype, place, **packing)
        times, side = training_grid(), request.pack.manifest.native_size_px
        if choice.baked_modulation and request.config.sample_every:
            probed = schedule_times(
                pipeline, probe.SAMPLER_STEPS, (side, side), device=self._device, dtype=dtype
            )
            times = torch.cat([times.to(dtype), probed.cpu()])
        family = family_of(request.pack.manifest.family)(pipeline)
        settle(family, choice, times, rows=choice.batch, dtype=dtype, device=self._device)
        for encoder in encoders_of(pipeline).values():
            encoder.to(self._device)
        return pipeline


def _go(run: Run) -> None:
    with few_threads(run.family.network):
        run.go()


def _say(progress: Progress, title: str, message: str) -> None:
    with progress.stage(title, 1) as advance:
        advance(1, message)


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
