"""One open pipeline, held as a memory plan says, and the text states of the last prompts.

In: a plan, the pack and the LoRA it names, a `Held`. Out: the pipeline as a `Family`, the words of its call.
It stays open for the next run of the same pack and LoRA. Text states are kept by (prompt, LoRA scale, text
encoder with its token), in RAM. Knows nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from oblik.diffusion import modulation
from oblik.diffusion.device import free_memory, is_small, pick_device, usable_vram
from oblik.diffusion.families.family import Family, Text, family_of
from oblik.diffusion.load import RAM, encoders_of, loading, open_pipeline, plan_for, settle
from oblik.diffusion.memory import RESERVE_BYTES
from oblik.diffusion.offload import move
from oblik.generation.backends.control import Control, Net, room_beside
from oblik.generation.backends.edit_reference import edit_view
from oblik.generation.backends.edits import Edits, needed
from oblik.generation.backends.passes import Way
from oblik.generation.backends.references import References
from oblik.generation.backends.tuning import compile_blocks, tune
from oblik.generation.degrade import Stage
from oblik.generation.plan import Plan
from oblik.generation.record import Step
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import Configuration, MemoryPlan
from oblik.paths import sha256_file
from oblik.training.artifact import WEIGHTS, read_artifact
from oblik.training.config import MLP_TARGETS

KEPT_TEXTS = 64
"""How many prompts' text states wait in RAM; at most 4 MB each with Qwen-Image."""
Vram = int | Callable[[], int | None] | None


class Held(NamedTuple):
    """How a memory plan holds the pipeline, whom to tell of each stage, what the record says, references;
    ``built_on``: the run is made for what builds on it, and may be taken from the one before."""

    memory: MemoryPlan | None = None
    enter: Callable[[Stage], None] = lambda _stage: None
    steps: tuple[Step, ...] = ()
    asked: Plan | None = None
    references: References | Edits | None = None
    control: Control | None = None
    built_on: bool = False

    @property
    def choice(self) -> Configuration | None:
        return self.memory.configuration if self.memory else None


class Holding:
    """An open pipeline. ``vram_bytes``: what a memory plan may use, or who is asked for it before each run
    (default: what is free on the CUDA card)."""

    def __init__(self, device: str = "auto", vram_bytes: Vram = None) -> None:
        self._device = pick_device(device)
        self._vram_bytes = vram_bytes
        self._open: tuple[tuple[Any, ...], Family] | None = None
        self._aside: dict[str, Any] = {}
        self._net: Net | None = None
        self._texts: dict[tuple[Any, ...], Text] = {}

    def _memory_plan(self, plan: Plan, pack: OpenPack, artifact: Path | None) -> MemoryPlan | None:
        lora = read_artifact(artifact) if artifact else None
        shape: dict[str, Any] = {}
        if lora:
            shape = {"rank": lora.rank, "mlp_lora": bool(set(lora.targets) & set(MLP_TARGETS))}
        vram = self._vram_bytes
        vram = vram() if callable(vram) else vram or usable_vram(self._device, RESERVE_BYTES)
        return plan_for(
            edit_view(plan, pack), device=self._device, vram_bytes=room_beside(plan, pack, vram),
            dtype=plan.dtype, purpose="generate", width_px=plan.width_px, height_px=plan.height_px,
            batch=plan.batch, beside=needed(plan, pack), **shape,
        )  # fmt: skip

    def _family(self, plan: Plan, pack: OpenPack, artifact: Path | None, held: Held) -> Family:
        held.enter("load")
        dtype: torch.dtype = getattr(torch, plan.dtype)
        weights = sha256_file(artifact / WEIGHTS) if artifact else None
        encoder = (pack.folder, pack.manifest.version, artifact, weights, plan.dtype)
        key = (*encoder, held.choice, plan.compiled)
        if held.control is None:
            self._net = None
        if self._open is None or self._open[0] != key:
            self._open, self._aside = None, {}
            free_memory()
            if held.choice is None:
                pipeline = open_pipeline(pack, artifact, dtype=dtype, device=self._device)
                opened: Family = family_of(pack.manifest.family)(pipeline)
            else:
                opened = self._open_by(held.choice, plan, pack, artifact, dtype)
            opened.quicken()
            opened.pipeline.set_progress_bar_config(disable=True)
            opened.pipeline.vae.enable_slicing()  # a picture's bytes do not depend on its batch's size
            if plan.compiled:
                compile_blocks(opened.network)
            self._open = (key, opened)
        family = self._open[1]
        if held.control:
            self._net = held.control.join(self._net, family, dtype, self._device)
        tune(family, plan)
        if held.choice and held.choice.baked_modulation and dtype != torch.bfloat16:
            times, rows = self._times(family, plan, dtype), self._rows(plan)
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
        times, rows = None, self._rows(plan)
        if choice.baked_modulation and dtype == torch.bfloat16:
            times, rows = modulation.every_bfloat16(), self._rows(plan, choice.batch)
        elif choice.baked_modulation:
            times = self._times(family, plan, dtype)
        settle(family, choice, times, rows=rows, dtype=dtype, device=self._device)
        home = self._device if choice.text_encoder_place == "stays" else RAM
        self._aside = encoders_of(opened)
        for name, encoder in self._aside.items():
            encoder.to(home)
            setattr(opened, name, None)
        return family

    def _rows(self, plan: Plan, batch: int | None = None) -> int:
        """The height of the network's batch, for a batch of pictures (default: the plan's)."""
        once = plan.guidance_at_once and plan.guidance > 1 and self._device.type != "cpu"
        return (batch or min(plan.batch, len(plan.seeds))) * (2 if once else 1)

    def _times(self, family: Family, plan: Plan, dtype: torch.dtype) -> torch.Tensor:
        size_px = (plan.width_px, plan.height_px)
        pipeline = family.pipeline
        return modulation.schedule_times(pipeline, plan.steps, size_px, device=self._device, dtype=dtype)

    def _way(self, family: Family, plan: Plan, choice: Configuration | None) -> Way:
        """How the two passes of guidance are run."""
        if not plan.guidance_at_once or plan.guidance <= 1:
            return "two calls"
        if self._device.type != "cpu":
            return "one call"
        alone = plan.cache_threshold or plan.compiled or (choice and choice.offload_blocks)
        return "two calls" if alone or not is_small(family.network) else "two threads"

    def _words(self, family: Family, plan: Plan, held: Held) -> dict[str, Any]:
        """The plan's prompts, encoded, as the pipeline takes them."""
        assert self._open is not None
        choice = held.choice
        packed = (choice.text_encoder, choice.text_encoder_place == "cpu") if choice else ()
        encoder = (*self._open[0][:5], *packed)
        prompts = [plan.prompt, *([plan.negative_prompt] if plan.guidance > 1 else [])]
        keys = [(prompt, plan.lora_scale, encoder) for prompt in prompts]
        missing = [prompt for prompt, key in zip(prompts, keys, strict=True) if key not in self._texts]
        if held.references or missing:
            held.enter("encode text")
            found = dict(zip(missing, self._encoded(family, missing, held), strict=True))
            self._texts |= {(prompt, plan.lora_scale, encoder): text for prompt, text in found.items()}
        texts = [self._texts[key].to(self._device) for key in keys]
        for oldest in list(self._texts)[: max(0, len(self._texts) - KEPT_TEXTS)]:
            del self._texts[oldest]
        return family.words(texts[0], texts[1] if len(texts) > 1 else None)

    @torch.no_grad()
    def _encoded(self, family: Family, prompts: list[str], held: Held) -> list[Text]:
        """Text states, in RAM; with a plan that frees the text encoders, the rest makes way for them."""
        pipeline = family.pipeline
        freed = held.choice is not None and held.choice.text_encoder_place == "freed"
        away = [part for part in (family.network, pipeline.vae) if freed and self._device.type != "cpu"]
        for part in away:
            move(part, RAM)
        try:
            for name, encoder in self._aside.items():
                setattr(pipeline, name, encoder.to(self._device) if freed else encoder)
            place = next(iter(encoders_of(pipeline).values())).device
            if held.references:
                held.references.encode(pipeline, self._device)
            return [family.text([prompt], place).to(RAM) for prompt in prompts]
        finally:
            for name, encoder in self._aside.items():
                setattr(pipeline, name, None)
                if freed:
                    encoder.to(RAM)
            for part in away:
                move(part, self._device)
