"""The engine: runs a plan and leaves pictures, a grid and a record in a folder.

In: a `Plan`, the pack and the LoRA it names. Out: a `Record`. The Protocol mentions no tensor
library; beside it stands the table of engines. Knows nothing of prompts, consent and likeness:
whoever builds a plan has asked for those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oblik.errors import BackendError
from oblik.generation.heat import HeatGuard
from oblik.generation.plan import Plan
from oblik.generation.record import Record
from oblik.packs.manifest import OpenPack
from oblik.progress import Progress
from oblik.registry import load

GRID = "grid.png"
FIRST = ".before"
"""Inside a batch's folder, while it is made: the pictures whose faces are going to be edited."""


class Engine(Protocol):
    """What runs a plan. Pictures are ``<place>-seed<seed>.png``, the contact sheet is `GRID`."""

    def run(
        self,
        plan: Plan,
        *,
        pack: OpenPack,
        artifact: Path | None,
        out_dir: Path,
        now: datetime,
        progress: Progress,
    ) -> Record:
        """Run ``plan`` and write everything into ``out_dir``.

        The same plan gives the same bytes on the same machine. When it is stopped, the pictures
        that were finished and a record of them stay. A broken picture is thrown away, and the others are made
        before that is raised.

        Out of memory, smaller plans follow (`oblik.generation.degrade`); the record has the one that ran in
        ``plan`` and what was given up in ``steps``.

        Raises:
            BackendError: pictures came out broken, or the machine cannot run the plan.
            OutOfMemory: not even the smallest plan fits.
            JobCancelled: somebody asked to stop.
        """
        ...


BACKENDS = {"diffusers": "oblik.generation.backends.diffusers_engine:DiffusersEngine"}
EXTRAS: dict[str, str] = {}


def open_engine(name: str = "diffusers", **options: Any) -> Engine:
    """Open an engine by name."""
    engine: Engine = load("engine", name, BACKENDS, EXTRAS)(**options)
    return engine


class Guarded:
    """An engine that rests between batches and stops when the card gets too hot, whoever runs it."""

    def __init__(self, guard: HeatGuard, **options: Any) -> None:
        self._guard, self._engine = guard, open_engine(rest=guard.between, **options)

    def run(
        self, plan: Plan, *, pack: OpenPack, artifact: Path | None, out_dir: Path, now: datetime,
        progress: Progress,
    ) -> Record:  # fmt: skip
        return self._engine.run(
            plan, pack=pack, artifact=artifact, out_dir=out_dir, now=now, progress=self._guard.watch(progress)
        )


def flaw(image_HW3: NDArray[np.floating[Any]]) -> str | None:
    """What is wrong with a picture (values 0..1), or None: not finite, black, or one flat colour."""
    if not np.isfinite(image_HW3).all():
        return "it holds values that are not numbers"
    if float(image_HW3.max()) < 0.02:
        return "it is black"
    if float(np.ptp(image_HW3, axis=(0, 1)).max()) < 0.02:
        return "it is one flat colour"
    return None


def refuse_flawed(flaws: Mapping[int, str], kept: int, attention: str = "native") -> None:
    """Raise BackendError when pictures were broken: ``flaws`` by seed, beside ``kept`` whole ones."""
    if not flaws:
        return
    hint = "try dtype float32, or check the pack with: oblik pack verify"
    if attention != "native":
        hint = f"attention {attention!r} does that with some models: --attention native"
    which = "the picture of seed" if len(flaws) == 1 else "the pictures of seeds"
    seeds, wrong = ", ".join(map(str, flaws)), "; ".join(dict.fromkeys(flaws.values()))
    others = f"; {kept} others of the batch are kept" if kept else ""
    raise BackendError(f"{which} {seeds} thrown away: {wrong}{others}", hint=hint)


def refuse_unfinished(done: int, steps: int) -> None:
    """Raise BackendError for a batch whose denoising ended early, which a pipeline does without a word."""
    if done != steps:
        raise BackendError(
            f"the pictures were thrown away: {done} of {steps} steps were done",
            hint="give the same command again",
        )


def picture_name(place: int, seed: int) -> str:
    """File name of the picture at ``place`` (from 1) in its batch."""
    return f"{place:02d}-seed{seed}.png"


def chunks(seeds: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """The seeds in groups of at most ``size``."""
    for start in range(0, len(seeds), size):
        yield tuple(seeds[start : start + size])
