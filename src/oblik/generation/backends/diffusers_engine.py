"""The in-process engine: plain ``diffusers.QwenImagePipeline``.

In: a plan. Out: pictures, grid and record, as `oblik.generation.engine.Engine` promises. One
pipeline stays open between runs of the same pack and LoRA. Guidance is the pipeline's
``true_cfg_scale``; its ``guidance_scale`` is ignored by Qwen-Image.

The noise of a seed is drawn in float32 on the CPU, one generator per seed, so a seed means the
same noise in every batch, dtype and on every device. Legend: B pictures, N image tokens, C packed
channels; L before a name means latent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from oblik.diffusion.device import few_threads, free_vram, pick_device
from oblik.diffusion.load import open_pipeline
from oblik.errors import BackendUnavailable, OutOfMemory
from oblik.generation.engine import GRID, picture_name, refuse_flawed
from oblik.generation.plan import Plan
from oblik.generation.record import Picture, Record, write_record
from oblik.images import grid, save_clean_png
from oblik.packs.manifest import OpenPack
from oblik.paths import private_dir, sha256_file
from oblik.progress import Progress
from oblik.training.artifact import WEIGHTS, read_artifact

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "numpy", "pillow")


class DiffusersEngine:
    """Runs plans through one cached pipeline."""

    def __init__(self, device: str = "auto") -> None:
        self._device = pick_device(device)
        self._open: tuple[tuple[Any, ...], Any] | None = None

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
        _refuse_unknown(plan)
        seconds: dict[str, float] = {}
        free_bytes = free_vram(self._device)
        with _timed(seconds, "load"):
            pipeline = self._pipeline(plan, pack, artifact)
        record = _new_record(plan, pack, artifact, pipeline, now, str(self._device), free_bytes, seconds)
        private_dir(out_dir)
        images: list[Image.Image] = []
        try:
            with progress.stage("generate", total=len(plan.seeds) * plan.steps) as advance:
                for seeds in _chunks(plan.seeds, plan.batch):
                    images += self._chunk(pipeline, plan, seeds, record, out_dir, progress, advance)
        finally:
            if record.pictures:
                _finish(record, images, out_dir)
        return record

    def _pipeline(self, plan: Plan, pack: OpenPack, artifact: Path | None) -> Any:
        weights = sha256_file(artifact / WEIGHTS) if artifact else None
        key = (pack.folder, pack.manifest.version, artifact, weights, plan.dtype)
        if self._open is None or self._open[0] != key:
            self._open = None
            opened = open_pipeline(pack, artifact, dtype=getattr(torch, plan.dtype), device=self._device)
            opened.set_progress_bar_config(disable=True)
            self._open = (key, opened)
        pipeline = self._open[1]
        if artifact is not None:
            _scale_lora(pipeline, plan.lora_scale)
        return pipeline

    def _chunk(
        self,
        pipeline: Any,
        plan: Plan,
        seeds: tuple[int, ...],
        record: Record,
        out_dir: Path,
        progress: Progress,
        advance: Any,
    ) -> list[Image.Image]:
        def each_step(_pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            progress.check_cancelled()
            advance(len(seeds))
            return tensors

        with _timed(record.seconds, "denoise"), few_threads(pipeline.transformer):
            pixels_BHW3 = _denoise(pipeline, plan, seeds, each_step)
        with _timed(record.seconds, "write"):
            return [
                _keep(image, seed, record, out_dir) for image, seed in zip(pixels_BHW3, seeds, strict=True)
            ]


def _denoise(pipeline: Any, plan: Plan, seeds: tuple[int, ...], each_step: Any) -> Any:
    """Pictures (B, H, W, 3) in 0..1. Whatever happens, no cached state reaches the next picture."""
    guided: dict[str, Any] = {"negative_prompt": plan.negative_prompt} if plan.guidance > 1 else {}
    try:
        return pipeline(
            prompt=plan.prompt,
            num_images_per_prompt=len(seeds),
            latents=noise_LBNC(pipeline, seeds, plan.width_px, plan.height_px),
            true_cfg_scale=plan.guidance,
            num_inference_steps=plan.steps,
            width=plan.width_px,
            height=plan.height_px,
            output_type="np",
            callback_on_step_end=each_step,
            **guided,
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
        "references": plan.references,
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
