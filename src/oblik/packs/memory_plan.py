"""The noun `MemoryPlan`: how a pack is held in a card's memory, and what each stage needs of it.

In: a plan with the smaller ones that come after it. Out: the next plan after a stage ran out of memory, and
a table for a person. Pure values: `oblik.diffusion.memory` counts the bytes; trainers and engines read the
plan. Knows nothing of tensors.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from oblik.errors import OutOfMemory

GIB = 1024**3
SMALLER = 0.97
PACKED_ON_CARD = {"torchao-int4", "bnb-nf4"}
"""Formats that only a card can pack, the whole transformer at once: their blocks cannot wait in RAM."""

Purpose = Literal["train", "generate"]
Stage = Literal["encode text", "encode images", "train token", "train transformer", "denoise", "decode"]
Place = Literal["stays", "freed", "cpu"]
STAGES: dict[Purpose, tuple[Stage, ...]] = {
    "train": ("encode images", "train token", "encode text", "train transformer"),
    "generate": ("encode text", "denoise", "decode"),
}


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Beside(Frozen):
    """What references and edits need beside the pictures.

    ``shown_px`` are the sizes of what the network is shown beside the noise; the text encoder looks at
    ``seen`` of them; ``lora_bytes`` are those of an editing LoRA or of FaceID. ``alone``: pictures
    are edited one at a time, and the VAE reads each. ``first_steps`` are those of a first run, whose latents
    wait in RAM.
    """

    shown_px: tuple[tuple[int, int], ...] = ()
    seen: int = 0
    lora_bytes: int = 0
    alone: bool = False
    first_steps: int = 0


class Asked(Frozen):
    """What is to fit, into how many bytes. ``ranks`` are those of the two LoRAs."""

    pack: str
    purpose: Purpose
    vram_bytes: int = Field(gt=0)
    width_px: int = Field(768, ge=16)
    height_px: int = Field(768, ge=16)
    batch: int = Field(4, ge=1)
    rank: int = Field(16, ge=1)
    text_rank: int = Field(16, ge=0)
    text_layers: int = Field(8, ge=0)
    mlp_lora: bool = True
    beside: Beside = Beside()


class Configuration(Frozen):
    """The choices. Formats are those of pack components; ``batch`` of training is one micro-batch."""

    attention: str
    mlp: str
    baked_modulation: bool
    text_encoder: str
    text_encoder_place: Place
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    batch: int
    offload_blocks: int = 0


class StageMemory(Frozen):
    """Bytes on the card while a stage runs, by what they are for."""

    stage: Stage
    rows: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


class MemoryPlan(Frozen):
    """A configuration with its arithmetic; ``smaller`` come after it, in order of what they give up."""

    asked: Asked
    configuration: Configuration
    usable_bytes: int
    ram_bytes: int
    stages: tuple[StageMemory, ...]
    gave_up: str
    smaller: tuple[MemoryPlan, ...] = Field((), exclude=True, repr=False)

    @property
    def peak_bytes(self) -> int:
        return max(stage.total for stage in self.stages)

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.usable_bytes

    def stage_bytes(self, stage: Stage) -> int:
        """What the plan counts for one stage."""
        return next(each.total for each in self.stages if each.stage == stage)


def replan(plan: MemoryPlan, stage: Stage) -> MemoryPlan:
    """The next plan whose ``stage`` needs less, after that stage ran out of memory.

    Raises:
        OutOfMemory: none is left.
    """
    limit = SMALLER * plan.stage_bytes(stage)
    for at, smaller in enumerate(plan.smaller):
        if smaller.stage_bytes(stage) < limit:
            return smaller.model_copy(update={"smaller": plan.smaller[at + 1 :]})
    raise OutOfMemory(
        f"{plan.asked.pack}: the stage {stage!r} ran out of memory and no smaller plan is left",
        hint=f"ask for a smaller picture: oblik plan {plan.asked.pack} --size 512x512",
    )


def in_order(plans: list[MemoryPlan]) -> MemoryPlan | None:
    """The first plan, with those after it that need less than all before them in some stage."""
    if not plans:
        return None
    least = {stage.stage: stage.total for stage in plans[0].stages}
    kept = []
    for plan in plans[1:]:
        if any(stage.total < SMALLER * least[stage.stage] for stage in plan.stages):
            kept.append(plan)
            least = {stage.stage: min(stage.total, least[stage.stage]) for stage in plan.stages}
    return plans[0].model_copy(update={"smaller": tuple(kept)})


def described(choice: Configuration, purpose: Purpose) -> dict[str, str]:
    """The choices in words, for a table."""
    place = {"stays": "on the card", "freed": "on the card, then freed", "cpu": "on the CPU"}
    words = {
        "attention": choice.attention,
        "MLP": choice.mlp,
        "modulation": "baked into a table" if choice.baked_modulation else "as it is",
        "text encoder": f"{choice.text_encoder}, {place[choice.text_encoder_place]}",
        "optimiser": choice.optimiser,
        "at once": str(choice.batch),
        "offloaded blocks": str(choice.offload_blocks),
    }
    return words if purpose == "train" else {key: words[key] for key in words if key != "optimiser"}


def what_was_given_up(choice: Configuration, asked: Asked) -> str:
    """One sentence."""
    lost = []
    if choice.offload_blocks:
        lost.append(f"speed: {choice.offload_blocks} blocks travel from RAM in every step")
    if choice.attention != "diffusers":
        pair = f"attention {choice.attention}, MLP {choice.mlp}"
        formats = choice.attention if choice.attention == choice.mlp else pair
        lost.append(f"precision of the transformer ({formats})")
    if choice.text_encoder != "diffusers":
        lost.append(f"precision of the text encoder ({choice.text_encoder})")
    if choice.text_encoder_place == "cpu":
        lost.append("speed of encoding text (on the CPU)")
    if choice.text_encoder_place == "freed":
        lost.append("a text encoder that stays loaded")
    if choice.optimiser != "adamw":
        lost.append("32-bit optimiser state")
    if choice.baked_modulation:
        lost.append("free choice of times (baked modulation, exact)")
    if choice.batch < asked.batch:
        lost.append(f"{asked.batch} pictures at once ({choice.batch} instead)")
    return "Gave up " + "; ".join(lost) + "." if lost else "Gave up nothing."
