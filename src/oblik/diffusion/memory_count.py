"""The arithmetic of memory: what an architecture needs of a card in each stage, in any configuration.

In: an `Architecture` and what is asked. Out: `Counted`, from which the bytes of any `Configuration` are
summed. Networks are built on the meta device: parameters are counted there, activations traced
(`live_bytes`). docs/performance.md says every row in words. Knows nothing of which configuration is better.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from oblik.diffusion import live_bytes
from oblik.diffusion.modulation import every_bfloat16, training_grid
from oblik.diffusion.weight_bytes import Census, census, lora_numbers, text_group, transformer_group
from oblik.packs import memory_plan as noun
from oblik.packs.memory_plan import Asked, Configuration, MemoryPlan, Stage, StageMemory
from oblik.training.config import ATTENTION_TARGETS, MLP_TARGETS

TEXT_TOKENS = 512  # the most that the pipeline lets a prompt have
CACHED_PHOTOS = 200
MOST_STEPS = 150
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Architecture:
    """What is known of a pack without its weights: JSON of its networks, and the formats it comes in."""

    transformer: str
    text_encoder: str
    vae: str
    dtype: str
    formats: tuple[str, ...]
    family: str = "qwen_image"
    text_encoder_2: str = ""
    eyes: bool = False

    @property
    def configs(self) -> tuple[Any, Any, Any]:
        return json.loads(self.transformer), json.loads(self.text_encoder), json.loads(self.vae)


@dataclass(frozen=True)
class Counted:
    """Everything of an architecture that a plan is summed from, for one thing asked."""

    asked: Asked
    size: int
    blocks: int
    transformer: dict[str, Census]
    text_encoder: dict[str, Census]
    vae_bytes: int
    widest: int
    lora: int
    learning: int
    text_lora: int
    table_bytes: int
    row_bytes: int
    text_bytes: int
    latent_bytes: int
    peaks: dict[str, int]
    shown_bytes: int = 0

    def plan(self, choice: Configuration, usable: int) -> MemoryPlan:
        """The arithmetic of one configuration."""
        rows = self._training(choice) if self.asked.purpose == "train" else self._generating(choice)
        text = 0 if choice.text_encoder_place == "stays" else self.text_weights(choice)
        return MemoryPlan(
            asked=self.asked,
            configuration=choice,
            usable_bytes=usable,
            ram_bytes=text + self.table_bytes * choice.baked_modulation + self._first_run(choice),
            stages=tuple(
                StageMemory(stage=stage, rows={name: n for name, n in rows[stage].items() if n})
                for stage in noun.STAGES[self.asked.purpose]
            ),
            gave_up=noun.what_was_given_up(choice, self.asked),
        )

    def offloaded(self, plan: MemoryPlan) -> MemoryPlan | None:
        """The plan with so many blocks in RAM that it fits; one of them computes while the next one comes."""
        if {plan.configuration.attention, plan.configuration.mlp} & noun.PACKED_ON_CARD:
            return None
        block = self.block_bytes(plan.configuration)
        with_blocks = [stage for stage in plan.stages if "transformer" in stage.rows]
        if any(stage.total > plan.usable_bytes for stage in plan.stages if stage not in with_blocks):
            return None
        most = max(stage.total for stage in with_blocks)
        moved = math.ceil((most - plan.usable_bytes) / block)
        if moved + 2 > self.blocks:
            return None
        choice = plan.configuration.model_copy(update={"offload_blocks": moved + 2})
        stages = tuple(
            stage.model_copy(
                update={"rows": {**stage.rows, "transformer": stage.rows["transformer"] - moved * block}}
            )
            if stage in with_blocks
            else stage
            for stage in plan.stages
        )
        return plan.model_copy(
            update={
                "configuration": choice,
                "stages": stages,
                "ram_bytes": plan.ram_bytes + (moved + 2) * block,
                "gave_up": noun.what_was_given_up(choice, self.asked),
            }
        )

    def transformer_weights(self, choice: Configuration) -> int:
        """The transformer in the formats of a configuration."""
        formats = {"attention": choice.attention, "mlp": choice.mlp, "modulation": choice.attention}
        dropped = ("modulation", "time") if choice.baked_modulation else ()
        return sum(
            part.bytes(formats.get(group, "diffusers"), self.size)
            for group, part in self.transformer.items()
            if group not in dropped
        )

    def block_bytes(self, choice: Configuration) -> int:
        """One of its blocks."""
        fixed = ("rest",) if choice.baked_modulation else ("rest", "time")
        outside = sum(self.transformer[group].bytes("diffusers", self.size) for group in fixed)
        return (self.transformer_weights(choice) - outside) // self.blocks

    def text_weights(self, choice: Configuration) -> int:
        """The text encoder as `live_bytes.text_only` leaves it."""
        return sum(
            part.bytes(choice.text_encoder if group == "layers" else "diffusers", self.size)
            for group, part in self.text_encoder.items()
        )

    def _first_run(self, choice: Configuration) -> int:
        """The latents of every step of a first run, in RAM."""
        return self.asked.beside.first_steps * choice.batch * self.latent_bytes

    def _workspace(self, choice: Configuration) -> int:
        """A quantised weight is unpacked when it is used; GGUF's way holds three copies at once."""
        return 0 if choice.attention == choice.mlp == "diffusers" else 3 * self.widest * self.size

    def _training(self, choice: Configuration) -> dict[Stage, dict[str, int]]:
        state = {"adamw": 8, "adamw8bit": 2}[choice.optimiser]
        text = self.text_weights(choice)
        held = text if choice.text_encoder_place == "stays" else 0
        transformer, vae = self.transformer_weights(choice), self.vae_bytes
        photos = CACHED_PHOTOS * self.latent_bytes
        table_row = choice.batch * self.row_bytes * choice.baked_modulation
        caches = photos + choice.batch * (4 * self.latent_bytes + self.text_bytes) + table_row
        common = {"transformer": transformer, "caches": caches, "workspace": self._workspace(choice)}
        step = choice.batch * self.peaks["train"]
        learned = {
            "LoRA": 4 * self.text_lora,
            "gradients": 4 * self.text_lora,
            "optimiser": state * self.text_lora,
        }
        return {
            "encode images": {"VAE": vae, "activations": self.peaks["encode"], "caches": photos},
            "train token": {
                **common, **learned, "text encoder": text,
                "activations": step + choice.batch * self.peaks["train text"],
            },
            "encode text": {
                "transformer": transformer, "text encoder": text, "LoRA": 4 * self.text_lora,
                "activations": self.peaks["text"], "caches": photos,
            },
            "train transformer": {
                **common, "text encoder": held, "LoRA": 4 * self.lora, "gradients": 4 * self.learning,
                "optimiser": state * self.learning, "activations": step,
            },
        }  # fmt: skip

    def _generating(self, choice: Configuration) -> dict[Stage, dict[str, int]]:
        place, text = choice.text_encoder_place, self.text_weights(choice)
        on_card = text if place == "stays" else 0
        resident = {"transformer": self.transformer_weights(choice), "VAE": self.vae_bytes}
        beside = self.asked.beside
        resident |= {"LoRA": self.size * self.lora + beside.lora_bytes, "text encoder": on_card}
        at_once = 1 if beside.alone else choice.batch
        latents = 4 + 3 * (beside.alone or beside.first_steps > 0)  # the frame or the first run, and a mask
        caches = at_once * (latents * self.latent_bytes + 2 * self.text_bytes) + self.shown_bytes
        caches += choice.batch * self.row_bytes * choice.baked_modulation
        reading = self.peaks["encode"] if beside.alone else 0
        encoding = {"text encoder": text, "activations": self.peaks["text"]}
        return {
            "encode text": {
                **({} if place == "freed" else resident), **({} if place == "cpu" else encoding),
            },
            "denoise": {
                **resident, "activations": max(at_once * self.peaks["denoise"], reading), "caches": caches,
                "workspace": self._workspace(choice),
            },
            "decode": {**resident, "activations": self.peaks["decode"], "caches": caches},
        }  # fmt: skip


@lru_cache(maxsize=8)
def count(architecture: Architecture, asked: Asked) -> Counted:
    """Build the networks on the meta device, count their parameters and trace their peaks."""
    transformer_config, text_config, vae_config = architecture.configs
    dtype: torch.dtype = getattr(torch, architecture.dtype)
    transformer = live_bytes.new_transformer(transformer_config, dtype)
    text_encoder = live_bytes.new_text_encoder(text_config, dtype, eyes=architecture.eyes)
    vae = live_bytes.new_vae(vae_config, dtype)
    factor = 2 ** len(vae.temperal_downsample) * transformer.config.patch_size
    beside = asked.beside
    tokens = (asked.height_px // factor, asked.width_px // factor)
    shown = [(height_px // factor, width_px // factor) for width_px, height_px in beside.shown_px]
    most_text = TEXT_TOKENS + beside.seen * live_bytes.SEEN_TOKENS
    blocks = transformer.transformer_blocks
    row = (12 * len(blocks) + 1) * transformer.inner_dim * dtype.itemsize
    linear = [part.weight.numel() for part in blocks.modules() if isinstance(part, nn.Linear)]
    lora = lora_numbers(transformer, asked.rank, _targeted(asked))
    return Counted(
        asked=asked,
        size=dtype.itemsize,
        blocks=len(blocks),
        transformer=census(transformer, transformer_group),
        text_encoder=census(text_encoder, text_group),
        vae_bytes=sum(p.numel() for p in vae.parameters()) * dtype.itemsize,
        widest=max(linear),
        lora=lora,
        learning=lora - lora_numbers(blocks[-1], asked.rank, _unread(asked)),
        text_lora=_text_lora(text_encoder, asked),
        table_bytes=_table_times(asked, dtype) * row,
        row_bytes=row,
        text_bytes=most_text * transformer.config.joint_attention_dim * dtype.itemsize,
        latent_bytes=tokens[0] * tokens[1] * transformer.config.in_channels * 4,
        peaks=_peaks(architecture, asked, tokens, shown, most_text),
        shown_bytes=sum(rows * columns for rows, columns in shown) * transformer.config.in_channels * 4,
    )


def _targets(asked: Asked) -> list[str]:
    return [*ATTENTION_TARGETS, *(MLP_TARGETS if asked.mlp_lora else ())]


def _targeted(asked: Asked) -> Callable[[str], bool]:
    ends = tuple(f".{target}" for target in _targets(asked))
    return lambda name: f".{name}".endswith(ends)


def _unread(asked: Asked) -> Callable[[str], bool]:
    """Of the last block: nobody reads its text stream, so LoRA there gets no gradient."""
    targeted = _targeted(asked)
    return lambda name: targeted(name) and ("to_add_out" in name or "txt_mlp" in name)


def _text_lora(text_encoder: Any, asked: Asked) -> int:
    """Numbers learned in the text encoder: LoRA on the attention of its upper layers, and one token."""
    model = text_encoder.model.language_model
    upper = model.layers[max(0, len(model.layers) - asked.text_layers) :]
    return lora_numbers(upper, asked.text_rank, lambda name: name.endswith(TEXT_TARGETS)) + int(
        model.config.hidden_size
    )


def _table_times(asked: Asked, dtype: torch.dtype) -> int:
    """Times in the table: the training grid in its dtype, or whatever a schedule may ask for."""
    if asked.purpose == "train":
        return len(training_grid().to(dtype).unique())
    return len(every_bfloat16()) if dtype == torch.bfloat16 else MOST_STEPS


def _peaks(
    architecture: Architecture, asked: Asked, tokens: tuple[int, int], shown: list[tuple[int, int]],
    most_text: int,
) -> dict[str, int]:  # fmt: skip
    """Traced activations of one picture or prompt, by stage."""
    transformer, text, vae = architecture.configs
    dtype: torch.dtype = getattr(torch, architecture.dtype)
    size_px, most = (asked.width_px, asked.height_px), TEXT_TOKENS
    found = {"text": live_bytes.text_peak(text, dtype, most_text, train=False)}
    if asked.purpose == "generate":
        if asked.beside.seen:
            found["text"] = max(found["text"], live_bytes.eyes_peak(text, dtype, asked.beside.seen))
        if asked.beside.alone:
            found["encode"] = live_bytes.vae_peak(vae, dtype, size_px, decode=False)
        return found | {
            "denoise": live_bytes.denoise_peak(transformer, dtype, tokens, most_text, shown),
            "decode": live_bytes.vae_peak(vae, dtype, size_px, decode=True),
        }
    return found | {
        "encode": live_bytes.vae_peak(vae, dtype, size_px, decode=False),
        "train text": live_bytes.text_peak(text, dtype, most, train=True),
        "train": live_bytes.train_peak(transformer, dtype, tokens, most, asked.rank, _targets(asked)),
    }
