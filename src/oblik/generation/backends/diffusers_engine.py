"""The in-process engine: plain pipelines of diffusers, through their families.

In: a plan. Out: pictures, grid and record, as `oblik.generation.engine.Engine` promises. One
pipeline stays open between runs of the same pack and LoRA, with the text states of the last prompts. On a
CUDA card a memory plan decides how the pipeline is held; out of memory, all pictures are made again by the
next one.

The noise of a seed is drawn in float32 on the CPU, one generator per seed, so a seed means the
same noise in every batch, dtype and on every device. Legend: B pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.models.cache_utils import CacheMixin
from PIL import Image

from oblik.diffusion import modulation
from oblik.diffusion.device import few_threads, free_vram, pick_device
from oblik.diffusion.families.family import Family, Text, family_of
from oblik.diffusion.load import RAM, encoders_of, loading, open_pipeline, plan_for, settle
from oblik.diffusion.memory import with_replanning
from oblik.diffusion.offload import move
from oblik.errors import BackendUnavailable, OutOfMemory
from oblik.generation.adapters import Sight
from oblik.generation.backends.edit_reference import edit_view
from oblik.generation.backends.edits import Edits, made_first
from oblik.generation.backends.references import References
from oblik.generation.engine import GRID, chunks, picture_name, refuse_flawed
from oblik.generation.plan import Plan
from oblik.generation.record import Picture, Record, Step, write_record
from oblik.images import grid, save_clean_png
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import Configuration, MemoryPlan, Stage
from oblik.paths import private_dir, sha256_file
from oblik.progress import Progress
from oblik.training.artifact import WEIGHTS, read_artifact
from oblik.training.config import MLP_TARGETS

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "numpy", "pillow")


class Held(NamedTuple):
    """How a memory plan holds the pipeline, whom to tell of each stage, what the record says, references."""

    choice: Configuration | None = None
    enter: Callable[[Stage], None] = lambda _stage: None
    steps: tuple[Step, ...] = ()
    asked: Plan | None = None
    references: References | Edits | None = None


class DiffusersEngine:
    """Runs plans through one cached pipeline. ``vram_bytes`` are what a memory plan may use (default: the
    CUDA card's); ``sight`` is what it finds faces and reference photos with."""

    def __init__(
        self, device: str = "auto", vram_bytes: int | None = None, sight: Sight | None = None
    ) -> None:
        self._device, self._vram_bytes, self._sight = pick_device(device), vram_bytes, sight
        self._open: tuple[tuple[Any, ...], Family] | None = None
        self._aside: dict[str, Any] = {}
        self._texts: dict[tuple[str, float], Text] = {}

    def run(
        self, plan: Plan, *, pack: OpenPack, artifact: Path | None, out_dir: Path, now: datetime,
        progress: Progress,
    ) -> Record:  # fmt: skip
        _refuse_unknown(plan)
        memory = self._memory_plan(plan, pack, artifact)
        where = (pack, artifact, out_dir, now, progress)
        if memory is None:
            return self._run(plan, *where, Held())
        steps = [Step(name="memory plan", reason=memory.gave_up)]

        def attempt(memory: MemoryPlan, enter: Callable[[Stage], None]) -> Record:
            choice = memory.configuration
            smaller = plan.model_copy(update={"batch": min(plan.batch, choice.batch)})
            try:
                return self._run(smaller, *where, Held(choice, enter, tuple(steps), plan))
            except (torch.OutOfMemoryError, OutOfMemory):
                self._open, self._aside, self._texts = None, {}, {}
                raise

        def note(message: str) -> None:
            steps.append(Step(name="smaller memory plan", reason=message))
            with progress.stage("smaller memory plan", 1) as advance:
                advance(1, message)

        return with_replanning(attempt, memory, note)

    def _memory_plan(self, plan: Plan, pack: OpenPack, artifact: Path | None) -> MemoryPlan | None:
        lora = read_artifact(artifact) if artifact else None
        shape: dict[str, Any] = {}
        if lora:
            shape = {"rank": lora.rank, "mlp_lora": bool(set(lora.targets) & set(MLP_TARGETS))}
        return plan_for(
            pack, device=self._device, vram_bytes=self._vram_bytes, dtype=plan.dtype, purpose="generate",
            width_px=plan.width_px, height_px=plan.height_px, batch=plan.batch, **shape,
        )  # fmt: skip

    def _run(
        self, plan: Plan, pack: OpenPack, artifact: Path | None, out_dir: Path, now: datetime,
        progress: Progress, held: Held,
    ) -> Record:  # fmt: skip
        seconds: dict[str, float] = {}

        def first(plan: Plan, folder: Path) -> Record:
            with _timed(seconds, "before the edit"):
                return self._run(plan, pack, artifact, folder, now, progress, held)

        with made_first(plan, pack, out_dir, first) as made:
            references = References.of(plan, pack, self._sight, made)
        held, pack = held._replace(references=references), edit_view(plan, pack)
        free_bytes = free_vram(self._device)
        with _timed(seconds, "load"):
            family = self._family(plan, pack, artifact, held)
        record = _new_record(plan, pack, artifact, family, now, str(self._device), free_bytes, seconds)
        record.steps, record.asked = list(held.steps), held.asked or plan
        private_dir(out_dir)
        with _timed(record.seconds, "text"):
            words = self._words(family, plan, held)
        if held.references:
            held.references.begin(record)
        images: list[Image.Image] = []
        try:
            runs, at_once = (
                (held.references.passes, held.references.at_once) if held.references else (1, None)
            )
            with progress.stage("generate", runs * len(plan.seeds) * plan.steps) as advance:
                for seeds in chunks(plan.seeds, at_once or plan.batch):
                    held.enter("denoise")
                    call = (family, plan, seeds, words)
                    images += self._chunk(call, record, out_dir, progress, advance, held)
        finally:
            if record.pictures:
                _finish(record, images, out_dir)
        return record

    def _family(self, plan: Plan, pack: OpenPack, artifact: Path | None, held: Held) -> Family:
        held.enter("denoise")
        dtype: torch.dtype = getattr(torch, plan.dtype)
        weights = sha256_file(artifact / WEIGHTS) if artifact else None
        key = (pack.folder, pack.manifest.version, artifact, weights, plan.dtype, held.choice)
        if self._open is None or self._open[0] != key:
            self._open, self._aside, self._texts = None, {}, {}
            if held.choice is None:
                pipeline = open_pipeline(pack, artifact, dtype=dtype, device=self._device)
                opened: Family = family_of(pack.manifest.family)(pipeline)
            else:
                opened = self._open_by(held.choice, plan, pack, artifact, dtype)
            opened.pipeline.set_progress_bar_config(disable=True)
            opened.pipeline.vae.enable_slicing()  # a picture's bytes do not depend on its batch's size
            self._open = (key, opened)
        family = self._open[1]
        if held.choice and held.choice.baked_modulation and dtype != torch.bfloat16:
            times, rows = self._times(family, plan, dtype), min(plan.batch, len(plan.seeds))
            modulation.ensure(family.network, times, rows=rows, device=self._device)
        if artifact is not None:
            family.scale_lora(plan.lora_scale)
        return family

    def _open_by(
        self, choice: Configuration, plan: Plan, pack: OpenPack, artifact: Path | None, dtype: torch.dtype
    ) -> Family:
        """The pipeline as a plan holds it; its text encoders are set aside, in RAM unless they stay."""
        place, packing = loading(choice, self._device)
        opened = open_pipeline(pack, artifact, dtype=dtype, device=place, **packing)
        family: Family = family_of(pack.manifest.family)(opened)
        times, rows = None, min(plan.batch, len(plan.seeds))
        if choice.baked_modulation and dtype == torch.bfloat16:
            times, rows = modulation.every_bfloat16(), choice.batch
        elif choice.baked_modulation:
            times = self._times(family, plan, dtype)
        settle(family, choice, times, rows=rows, dtype=dtype, device=self._device)
        home = self._device if choice.text_encoder_place == "stays" else RAM
        self._aside = encoders_of(opened)
        for name, encoder in self._aside.items():
            encoder.to(home)
            setattr(opened, name, None)
        return family

    def _times(self, family: Family, plan: Plan, dtype: torch.dtype) -> torch.Tensor:
        size_px = (plan.width_px, plan.height_px)
        pipeline = family.pipeline
        return modulation.schedule_times(pipeline, plan.steps, size_px, device=self._device, dtype=dtype)

    def _words(self, family: Family, plan: Plan, held: Held) -> dict[str, Any]:
        """The plan's prompts, encoded, as the pipeline takes them."""
        prompts = [plan.prompt, *([plan.negative_prompt] if plan.guidance > 1 else [])]
        keys = [(prompt, plan.lora_scale) for prompt in prompts]
        if held.references or not self._texts.keys() >= set(keys):
            held.enter("encode text")
            self._texts = dict(zip(keys, self._encoded(family, prompts, held), strict=True))
        text, *negative = (self._texts[key] for key in keys)
        return family.words(text, negative[0] if negative else None)

    @torch.no_grad()
    def _encoded(self, family: Family, prompts: list[str], held: Held) -> list[Text]:
        """Text states; with a plan that frees the text encoders, the rest makes way for them."""
        pipeline = family.pipeline
        freed = held.choice is not None and held.choice.text_encoder_place == "freed"
        away = [part for part in (family.network, pipeline.vae) if freed and self._device.type != "cpu"]
        for part in away:
            move(part, RAM)
        for name, encoder in self._aside.items():
            setattr(pipeline, name, encoder.to(self._device) if freed else encoder)
        try:
            place = next(iter(encoders_of(pipeline).values())).device
            if held.references:
                held.references.encode(pipeline, self._device)
            return [family.text([prompt], place).to(self._device) for prompt in prompts]
        finally:
            for name, encoder in self._aside.items():
                setattr(pipeline, name, None)
                if freed:
                    encoder.to(RAM)
            for part in away:
                move(part, self._device)

    def _chunk(
        self, call: tuple[Family, Plan, tuple[int, ...], dict[str, Any]], record: Record, out_dir: Path,
        progress: Progress, advance: Any, held: Held,
    ) -> list[Image.Image]:  # fmt: skip
        family, plan, seeds, words = call

        def each_step(_pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            progress.check_cancelled()
            advance(len(seeds))
            held.enter("decode" if step == plan.steps - 1 else "denoise")
            return tensors

        with _timed(record.seconds, "denoise"), few_threads(family.network):
            paint = partial(_denoise, family, plan, seeds)
            if held.references:
                paint = partial(held.references.paint, paint, family.pipeline, seeds)
            pixels_BHW3 = paint(words, each_step)
        with _timed(record.seconds, "write"):
            return [
                _keep(image, seed, record, out_dir) for image, seed in zip(pixels_BHW3, seeds, strict=True)
            ]


def _denoise(
    family: Family, plan: Plan, seeds: tuple[int, ...], words: dict[str, Any], each_step: Any
) -> Any:
    """Pictures (B, H, W, 3) in 0..1. Whatever happens, no cached state reaches the next picture."""
    try:
        return family.pipeline(
            num_images_per_prompt=len(seeds),
            latents=family.noise(seeds, (plan.width_px, plan.height_px)),
            num_inference_steps=plan.steps,
            width=plan.width_px,
            height=plan.height_px,
            output_type="np",
            callback_on_step_end=each_step,
            **{family.guidance: plan.guidance},
            **words,
        ).images
    except torch.OutOfMemoryError as full:
        raise OutOfMemory(
            f"{plan.width_px}x{plan.height_px} px, {len(seeds)} at once, do not fit into memory",
            hint="ask for fewer pictures at once: --batch 1",
        ) from full
    finally:
        if isinstance(family.network, CacheMixin):
            family.network._reset_stateful_cache()


def _keep(pixels_HW3: Any, seed: int, record: Record, out_dir: Path) -> Image.Image:
    refuse_flawed(pixels_HW3, seed)
    image = Image.fromarray(np.round(pixels_HW3 * 255).astype(np.uint8))
    path = out_dir / picture_name(len(record.pictures) + 1, seed)
    save_clean_png(image, path)
    record.pictures.append(Picture(file=path.name, seed=seed, sha256=sha256_file(path)))
    return image


def _finish(record: Record, images: list[Image.Image], out_dir: Path) -> None:
    with _timed(record.seconds, "write"):
        side_px = max(record.plan.width_px, record.plan.height_px)
        save_clean_png(grid(images, min(4, len(images)), cell_px=side_px), out_dir / GRID)
    record.grid = GRID
    write_record(record, out_dir)


def _new_record(
    plan: Plan,
    pack: OpenPack,
    artifact: Path | None,
    family: Family,
    now: datetime,
    device: str,
    free_bytes: int | None,
    seconds: dict[str, float],
) -> Record:
    manifest = read_artifact(artifact) if artifact else None
    prompt_ids = family.pipeline.tokenizer(plan.prompt)["input_ids"]
    return Record(
        plan=plan,
        asked=plan,
        started_at=now,
        token_ids=[i for i in prompt_ids if manifest and i == manifest.token_id],
        prompt_ids=prompt_ids,
        lora_sha256=manifest.weights_sha256 if manifest else None,
        pack_version=pack.manifest.version,
        libraries={name: version(name) for name in LIBRARIES},
        device=device,
        free_vram_bytes=free_bytes,
        seconds=seconds,
        pictures=[],
    )


def _refuse_unknown(plan: Plan) -> None:
    """What a plan may ask for and this engine cannot do yet is said, never skipped."""
    asked = {
        "controls": plan.controls,
        "sampler euler_ancestral": plan.sampler != "euler",
    }
    for name, wanted in asked.items():
        if wanted:
            raise BackendUnavailable(
                f"the diffusers engine cannot do {name} yet", hint="oblik generate --help"
            )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started_s = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started_s, 3)
