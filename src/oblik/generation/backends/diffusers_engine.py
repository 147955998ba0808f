"""The in-process engine: plain ``diffusers.QwenImagePipeline``.

In: a plan. Out: pictures, grid and record, as `oblik.generation.engine.Engine` promises. One
pipeline stays open between runs of the same pack and LoRA. Guidance is the pipeline's
``true_cfg_scale``; its ``guidance_scale`` is ignored by Qwen-Image. On a CUDA card a memory plan decides how
the pipeline is held; out of memory, all pictures are made again by the next one.

The noise of a seed is drawn in float32 on the CPU, one generator per seed, so a seed means the
same noise in every batch, dtype and on every device. Legend: B pictures, N image tokens, C packed
channels; L before a name means latent.
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
from PIL import Image

from oblik.diffusion import modulation
from oblik.diffusion.device import few_threads, free_vram, pick_device
from oblik.diffusion.load import RAM, loading, open_pipeline, plan_for, settle
from oblik.diffusion.memory import with_replanning
from oblik.errors import BackendUnavailable, OutOfMemory
from oblik.generation.adapters import Sight
from oblik.generation.backends.references import References
from oblik.generation.engine import GRID, picture_name, refuse_flawed
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
    references: References | None = None


class DiffusersEngine:
    """Runs plans through one cached pipeline. ``vram_bytes`` are what a memory plan may use (default: the
    CUDA card's); ``sight`` is what it finds faces and reference photos with."""

    def __init__(
        self, device: str = "auto", vram_bytes: int | None = None, sight: Sight | None = None
    ) -> None:
        self._device, self._vram_bytes, self._sight = pick_device(device), vram_bytes, sight
        self._open: tuple[tuple[Any, ...], Any] | None = None
        self._encoder: Any = None
        self._texts: dict[str, Any] = {}

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
                self._open = self._encoder = None
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
        held = held._replace(references=References.of(plan, pack, self._sight))
        free_bytes = free_vram(self._device)
        with _timed(seconds, "load"):
            pipeline = self._pipeline(plan, pack, artifact, held)
        record = _new_record(plan, pack, artifact, pipeline, now, str(self._device), free_bytes, seconds)
        record.steps, record.asked = list(held.steps), held.asked or plan
        private_dir(out_dir)
        texts = self._texts_for(pipeline, plan, held) if self._encoder is not None else {}
        if held.references:
            held.references.begin(record, pipeline)
        images: list[Image.Image] = []
        try:
            runs = 2 if held.references else 1
            with progress.stage("generate", runs * len(plan.seeds) * plan.steps) as advance:
                for seeds in _chunks(plan.seeds, plan.batch):
                    held.enter("denoise")
                    call = (pipeline, plan, seeds, _words(plan, texts))
                    images += self._chunk(call, record, out_dir, progress, advance, held)
        finally:
            if record.pictures:
                _finish(record, images, out_dir)
        return record

    def _pipeline(self, plan: Plan, pack: OpenPack, artifact: Path | None, held: Held) -> Any:
        held.enter("denoise")
        dtype: torch.dtype = getattr(torch, plan.dtype)
        weights = sha256_file(artifact / WEIGHTS) if artifact else None
        key = (pack.folder, pack.manifest.version, artifact, weights, plan.dtype, held.choice)
        if self._open is None or self._open[0] != key:
            self._open, self._encoder, self._texts = None, None, {}
            if held.choice is None:
                opened = open_pipeline(pack, artifact, dtype=dtype, device=self._device)
            else:
                opened = self._open_by(held.choice, plan, pack, artifact, dtype)
            opened.set_progress_bar_config(disable=True)
            self._open = (key, opened)
        pipeline = self._open[1]
        if held.choice and held.choice.baked_modulation and dtype != torch.bfloat16:
            times, rows = self._times(pipeline, plan, dtype), min(plan.batch, len(plan.seeds))
            modulation.ensure(pipeline.transformer, times, rows=rows, device=self._device)
        if artifact is not None:
            _scale_lora(pipeline, plan.lora_scale)
        return pipeline

    def _open_by(
        self, choice: Configuration, plan: Plan, pack: OpenPack, artifact: Path | None, dtype: torch.dtype
    ) -> Any:
        """The pipeline as a memory plan holds it; its text encoder is set aside, in RAM unless it stays."""
        place, packing = loading(choice, self._device)
        opened = open_pipeline(pack, artifact, dtype=dtype, device=place, **packing)
        baked = dtype == torch.bfloat16
        times = modulation.every_bfloat16() if baked else self._times(opened, plan, dtype)
        rows = choice.batch if baked else min(plan.batch, len(plan.seeds))
        settle(opened, choice, times, rows=rows, dtype=dtype, device=self._device)
        home = self._device if choice.text_encoder_place == "stays" else RAM
        self._encoder, opened.text_encoder = opened.text_encoder.to(home), None
        return opened

    def _times(self, pipeline: Any, plan: Plan, dtype: torch.dtype) -> torch.Tensor:
        size_px = (plan.width_px, plan.height_px)
        return modulation.schedule_times(pipeline, plan.steps, size_px, device=self._device, dtype=dtype)

    @torch.no_grad()
    def _texts_for(self, pipeline: Any, plan: Plan, held: Held) -> dict[str, Any]:
        """Text states and masks of the plan's prompts; the rest makes way for a text encoder that does."""
        prompts = {plan.prompt, plan.negative_prompt}
        if prompts <= self._texts.keys() and not held.references:
            return self._texts
        held.enter("encode text")
        freed = held.choice is not None and held.choice.text_encoder_place == "freed"
        place = self._device if freed else self._encoder.device
        away = [part for part in (pipeline.transformer, pipeline.vae) if freed and place.type != "cpu"]
        for part in away:
            part.to(RAM)
        pipeline.text_encoder, self._texts = self._encoder.to(place), {}
        try:
            for prompt in prompts:
                states, mask = pipeline.encode_prompt(prompt, device=place)
                mask = torch.ones(states.shape[:2], dtype=torch.long) if mask is None else mask
                self._texts[prompt] = (states.to(self._device), mask.to(self._device))
            if held.references:
                held.references.encode(pipeline, self._device)
        finally:
            pipeline.text_encoder = None
            if freed:
                self._encoder.to(RAM)
            for part in away:
                part.to(self._device)
        return self._texts

    def _chunk(
        self, call: tuple[Any, Plan, tuple[int, ...], dict[str, Any]], record: Record, out_dir: Path,
        progress: Progress, advance: Any, held: Held,
    ) -> list[Image.Image]:  # fmt: skip
        pipeline, plan, seeds, words = call

        def each_step(_pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            progress.check_cancelled()
            advance(len(seeds))
            held.enter("decode" if step == plan.steps - 1 else "denoise")
            return tensors

        with _timed(record.seconds, "denoise"), few_threads(pipeline.transformer):
            paint = partial(_denoise, pipeline, plan, seeds)
            if held.references:
                paint = partial(held.references.paint, paint, pipeline, seeds)
            pixels_BHW3 = paint(words, each_step)
        with _timed(record.seconds, "write"):
            return [
                _keep(image, seed, record, out_dir) for image, seed in zip(pixels_BHW3, seeds, strict=True)
            ]


def _words(plan: Plan, texts: dict[str, Any]) -> dict[str, Any]:
    """The plan's prompts as the pipeline takes them, encoded where they are in ``texts``."""
    prompts = {"prompt": plan.prompt, "negative_prompt": plan.negative_prompt}
    prompts = prompts if plan.guidance > 1 else {"prompt": plan.prompt}
    if not texts:
        return dict(prompts)
    words = {f"{name}_embeds": texts[text][0] for name, text in prompts.items()}
    return words | {f"{name}_embeds_mask": texts[text][1] for name, text in prompts.items()}


def _denoise(pipeline: Any, plan: Plan, seeds: tuple[int, ...], words: dict[str, Any], each_step: Any) -> Any:
    """Pictures (B, H, W, 3) in 0..1. Whatever happens, no cached state reaches the next picture."""
    try:
        return pipeline(
            num_images_per_prompt=len(seeds),
            latents=noise_LBNC(pipeline, seeds, plan.width_px, plan.height_px),
            true_cfg_scale=plan.guidance,
            num_inference_steps=plan.steps,
            width=plan.width_px,
            height=plan.height_px,
            output_type="np",
            callback_on_step_end=each_step,
            **words,
        ).images
    except torch.OutOfMemoryError as full:
        raise OutOfMemory(
            f"{plan.width_px}x{plan.height_px} px, {len(seeds)} at once, do not fit into memory",
            hint="ask for fewer pictures at once: --batch 1",
        ) from full
    finally:
        pipeline.transformer._reset_stateful_cache()


def noise_LBNC(pipeline: Any, seeds: tuple[int, ...], width_px: int, height_px: int) -> torch.Tensor:
    """The starting noise (B, N, C) of the seeds, packed as the transformer takes it."""
    channels = pipeline.transformer.config.in_channels // 4
    rows, columns = (2 * (side // (pipeline.vae_scale_factor * 2)) for side in (height_px, width_px))
    drawn = [
        torch.randn((1, 1, channels, rows, columns), generator=torch.Generator("cpu").manual_seed(seed))
        for seed in seeds
    ]
    packed: torch.Tensor = pipeline._pack_latents(torch.cat(drawn), len(seeds), channels, rows, columns)
    return packed


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
    pipeline: Any,
    now: datetime,
    device: str,
    free_bytes: int | None,
    seconds: dict[str, float],
) -> Record:
    manifest = read_artifact(artifact) if artifact else None
    prompt_ids = pipeline.tokenizer(plan.prompt)["input_ids"]
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
        "edit": plan.edit,
        "sampler euler_ancestral": plan.sampler != "euler",
    }
    for name, wanted in asked.items():
        if wanted:
            raise BackendUnavailable(
                f"the diffusers engine cannot do {name} yet", hint="oblik generate --help"
            )


def _scale_lora(pipeline: Any, scale: float) -> None:
    adapters = pipeline.get_list_adapters().get("transformer", [])
    if adapters:
        pipeline.set_adapters(adapters, [scale] * len(adapters))


def _chunks(seeds: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started_s = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started_s, 3)
