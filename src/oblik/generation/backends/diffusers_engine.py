"""The in-process engine: one diffusers pipeline, one plan, pictures that can be made again.

In: a plan. Out: pictures, grid and record, as `oblik.generation.engine.Engine` promises. One
pipeline stays open between runs of the same pack and LoRA (`holding`). On a CUDA card a memory plan decides
how it is held; out of memory, all pictures are made again by the next smaller plan (`shortage`).

The noise of a seed is drawn in float32 on the CPU, one generator per seed, so a seed means the
same noise in every batch, dtype and on every device. Legend: B pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from oblik.diffusion import samplers
from oblik.diffusion.device import few_threads, free_memory, free_vram, is_small
from oblik.diffusion.families.family import FAMILIES, Family, Text, family_of
from oblik.errors import OutOfMemory
from oblik.generation.adapters import Sight
from oblik.generation.backends.control import Control
from oblik.generation.backends.edit_reference import edit_view
from oblik.generation.backends.edits import made_first
from oblik.generation.backends.first_runs import FirstRuns
from oblik.generation.backends.holding import Held, Holding, Vram
from oblik.generation.backends.passes import Way, at_once, stills
from oblik.generation.backends.references import Paint, References
from oblik.generation.backends.shortage import Fit, fitting, is_shortage, smaller
from oblik.generation.backends.surroundings import new_record
from oblik.generation.backends.tuning import forget
from oblik.generation.degrade import OFFLOAD, Stage
from oblik.generation.engine import GRID, chunks, flaw, picture_name, refuse_flawed, refuse_unfinished
from oblik.generation.plan import Plan, edits_own, first_run
from oblik.generation.record import (
    FILE_NAME,
    Record,
    Step,
    keep_picture,
    label_for,
    read_record,
    write_record,
)  # fmt: skip
from oblik.images import grid, open_upright
from oblik.labels import PLAIN, Labeller
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import MemoryPlan, replan
from oblik.paths import private_dir
from oblik.progress import Progress

TWO_CALLS = "true_cfg_scale"
"""The guidance of pipelines that call their network twice in each step; the others do it at once."""
NO_MASK = ("flash", "sage")


Tokens = Callable[[Plan, Sequence[int]], object]


class DiffusersEngine(Holding):
    """Runs plans through one cached pipeline. ``sight`` is what it finds faces and reference photos with;
    ``rest`` is called before every batch, as `oblik.generation.heat.HeatGuard.between`; ``labels`` signs
    pictures; ``tokens`` hears, before the first picture, which ids of the prompt are the trigger's."""

    def __init__(
        self,
        device: str = "auto",
        vram_bytes: Vram = None,
        sight: Sight | None = None,
        rest: Callable[[Progress], object] = bool,
        labels: Labeller = PLAIN,
        tokens: Tokens | None = None,
    ) -> None:
        super().__init__(device, vram_bytes)
        self._sight, self._rest, self._labels, self._tokens = sight, rest, labels, tokens
        self._first_runs = FirstRuns()

    def run(
        self, plan: Plan, *, pack: OpenPack, artifact: Path | None, out_dir: Path, now: datetime,
        progress: Progress,
    ) -> Record:  # fmt: skip
        steps: list[Step] = []
        at: list[Stage] = ["load"]
        multiple_px = max(16, pack.manifest.side_multiple_px)

        def note(name: str, reason: str) -> None:
            steps.append(Step(name=name, kind="degradation", reason=reason))
            with progress.stage(name, 1) as advance:
                advance(1, reason)

        def enter(stage: Stage) -> None:
            at[0] = stage

        def planner(tried: Plan) -> MemoryPlan | None:
            self._first(tried, pack, artifact, steps)  # fits as well
            return self._memory_plan(tried, pack, artifact)

        fit = fitting(plan, planner, note, multiple_px)
        first = self._first(fit.plan, pack, artifact, steps).memory
        if first:
            steps.append(Step(name="before the edit: memory plan", kind="note", reason=first.gave_up))
        if fit.memory:
            steps.append(Step(name="memory plan", kind="note", reason=fit.memory.gave_up))
        while True:
            fit = _as_it_runs(fit, pack)
            held = Held(fit.memory, enter, tuple(steps), plan)
            try:
                return self._run(fit.plan, pack, artifact, out_dir, now, progress, held)
            except (RuntimeError, MemoryError, OutOfMemory) as error:
                if not is_shortage(error):
                    raise
            # The error held the frames that held the tensors: only now can they be freed.
            fit = smaller(fit, at[0], note, multiple_px)
            if at[0] == "load":
                self._open, self._net, self._aside = None, None, {}
            _remove_pictures(out_dir, now)
            free_memory()

    def _first(self, plan: Plan, pack: OpenPack, artifact: Path | None, steps: Sequence[Step]) -> Fit:
        """The pictures that a plan edits, and how the pack is held for them: as far down as the edit is."""
        first = first_run(plan)
        memory = self._memory_plan(first, pack, artifact) if edits_own(plan) else None
        if memory:
            for _ in [step for step in steps if step.name == OFFLOAD]:
                memory = replan(memory, "denoise")
        return _as_it_runs(Fit(first, memory), pack)

    def _run(
        self, plan: Plan, pack: OpenPack, artifact: Path | None, out_dir: Path, now: datetime,
        progress: Progress, held: Held,
    ) -> Record:  # fmt: skip
        seconds: dict[str, float] = {}

        def first(folder: Path) -> Record:
            plain, memory = self._first(plan, pack, artifact, held.steps)
            with _timed(seconds, "before the edit"):
                begun = held._replace(memory=memory, built_on=True)
                return self._run(plain, pack, artifact, folder, now, progress, begun)

        control = Control.of(plan, pack, self._sight)
        with made_first(plan, pack, out_dir, first) as made:
            references = References.of(plan, pack, self._sight, made, control)
        held = held._replace(references=references, control=control)
        pack = edit_view(plan, pack)
        free_bytes = free_vram(self._device)
        with _timed(seconds, "load"):
            family = self._family(plan, pack, artifact, held)
        record = new_record(plan, pack, artifact, family, now, self._device, free_bytes)
        record.steps, record.asked, record.seconds = list(held.steps), held.asked or plan, seconds
        if self._tokens:
            self._tokens(plan, record.token_ids)
        private_dir(out_dir)
        with _timed(record.seconds, "text"):
            words = self._words(family, plan, held)
        if held.references:
            held.references.begin(record)
        if held.control:
            held.control.begin(record)
        flaws: dict[int, str] = {}
        try:
            runs, most = (held.references.passes, held.references.at_once) if held.references else (1, None)
            with progress.stage("generate", runs * len(plan.seeds) * plan.steps) as advance:
                for seeds in chunks(plan.seeds, most or plan.batch):
                    self._rest(progress)
                    held.enter("denoise")
                    pixels_BHW3 = self._chunk((family, plan, seeds, words), record, progress, advance, held)
                    with _timed(record.seconds, "write"):
                        flaws |= _keep(pixels_BHW3, seeds, record, out_dir, self._labels)
        finally:
            if record.pictures:
                _finish(record, out_dir, self._labels)
        if flaws:
            self._first_runs = FirstRuns()
        refuse_flawed(flaws, len(record.pictures), plan.attention)
        return record

    def _chunk(
        self, call: tuple[Family, Plan, tuple[int, ...], dict[str, Any]], record: Record, progress: Progress,
        advance: Any, held: Held,
    ) -> Any:  # fmt: skip
        """Pictures (B, H, W, 3) in 0..1."""
        family, plan, seeds, words = call

        def each_step(_pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            progress.check_cancelled()
            advance(len(seeds))
            held.enter("decode" if step == plan.steps - 1 else "denoise")
            return tensors

        way = self._way(family, plan, held.choice)
        with _timed(record.seconds, "denoise"), few_threads(family.network):
            paint: Paint = partial(_denoise, family, plan, seeds, way=way)
            known_by = (first_run(plan), self._open and self._open[0], _followed(plan, record))
            if held.built_on or isinstance(held.references, References):
                paint = self._first_runs.giving(paint, seeds, known_by, words)
            elif held.references is None:
                paint = self._first_runs.keeping(paint, seeds, known_by)
            if held.references:
                paint = partial(held.references.paint, paint, family.pipeline, seeds)
            with held.control.following() if held.control else nullcontext():
                return paint(words, each_step)


def _denoise(
    family: Family, plan: Plan, seeds: tuple[int, ...], words: dict[str, Any], each_step: Any,
    way: Way = "two calls",
) -> Any:  # fmt: skip
    """Pictures (B, H, W, 3) in 0..1. Whatever happens, no cached state reaches the next picture."""
    done: list[int] = []

    def counted(pipeline: Any, step: int, *rest: Any) -> Any:
        done.append(step)
        return each_step(pipeline, step, *rest)

    negative = words.get("negative_prompt_embeds") if family.guidance == TWO_CALLS else None
    other = None if negative is None else Text(negative, words.get("negative_prompt_embeds_mask"))
    if other and plan.attention in NO_MASK and other.states.shape[1] != words["prompt_embeds"].shape[1]:
        way = "two calls"
    threads = 2 if is_small(family.network) else 1
    try:
        with at_once(family.network, other, way), stills(family.pipeline.vae, threads):
            pixels_BHW3 = family.pipeline(
                num_images_per_prompt=len(seeds),
                latents=family.noise(seeds, (plan.width_px, plan.height_px)),
                num_inference_steps=plan.steps,
                width=plan.width_px,
                height=plan.height_px,
                output_type="np",
                callback_on_step_end=counted,
                **{family.guidance: plan.guidance},
                **samplers.begin(family.pipeline, seeds),
                **words,
            ).images
    finally:
        forget(family.network)
    refuse_unfinished(len(done), getattr(family.pipeline, "num_timesteps", plan.steps))
    return pixels_BHW3


def _followed(plan: Plan, record: Record) -> list[str | None]:
    """The hashes of the control images that the plan's pictures follow."""
    return [record.references_sha256.get(control.image) for control in plan.controls if control.image]


def _as_it_runs(fit: Fit, pack: OpenPack) -> Fit:
    """The plan with the batch of its memory plan; with guidance at once only where that can be and fits."""
    plan, memory = fit
    twice = pack.manifest.family in FAMILIES and family_of(pack.manifest.family).guidance == TWO_CALLS
    once = plan.guidance_at_once and twice and (memory is None or _holds_both(memory))
    batch = min(plan.batch, memory.configuration.batch) if memory else plan.batch
    return Fit(plan.model_copy(update={"batch": batch, "guidance_at_once": once}), memory)


def _holds_both(memory: MemoryPlan) -> bool:
    """Whether both passes of guidance fit beside each other."""
    stage = next(each for each in memory.stages if each.stage == "denoise")
    return stage.total + stage.rows.get("activations", 0) <= memory.usable_bytes


def _remove_pictures(folder: Path, now: datetime) -> None:
    """What this run's attempt that ran out of memory had finished: the next attempt makes all of them."""
    if (folder / FILE_NAME).is_file() and (record := read_record(folder)).started_at == now:
        for name in (*(picture.file for picture in record.pictures), record.grid or GRID, FILE_NAME):
            (folder / name).unlink(missing_ok=True)


def _keep(
    pixels_BHW3: Any, seeds: tuple[int, ...], record: Record, out_dir: Path, labels: Labeller
) -> dict[int, str]:
    """Write the whole pictures and put them into the record; what is wrong with the others, by seed."""
    flaws: dict[int, str] = {}
    for pixels_HW3, seed in zip(pixels_BHW3, seeds, strict=True):
        if wrong := flaw(pixels_HW3):
            flaws[seed] = wrong
            continue
        image = Image.fromarray(np.round(pixels_HW3 * 255).astype(np.uint8))
        path = out_dir / picture_name(len(record.pictures) + 1, seed)
        record.pictures.append(keep_picture(image, path, seed, record.plan, labels))
    return flaws


def _finish(record: Record, out_dir: Path, labels: Labeller) -> None:
    """The sheet of the pictures that are there, and the record of them."""
    with _timed(record.seconds, "write"):
        side_px = max(record.plan.width_px, record.plan.height_px)
        images = [open_upright(out_dir / picture.file) for picture in record.pictures]
        sheet = grid(images, min(4, len(images)), cell_px=side_px)
        labels.save(sheet, out_dir / GRID, label_for(record.plan))
    record.grid = GRID
    write_record(record, out_dir)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started_s = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started_s, 3)
