"""The noun `Plan`: everything that determines a picture.

CLI, orders, chat, web page and avatar all build a `Plan`; an engine runs it. A preset is a partial
plan; a rung of the ladder and a degradation are pure functions ``Plan -> Plan``.
Guidance is what Qwen-Image calls ``true_cfg_scale``; ranges are checked here, once.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

AdapterName = Literal["identity-tokens", "ip-adapter-faceid", "edit-reference"]


class Reference(BaseModel):
    """An identity reference: a photo and how strongly it pulls. ``image`` is a path inside the folder of the
    plan's persona."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    weight: float = Field(0.6, ge=0, le=1)
    adapter: AdapterName = "identity-tokens"
    face_mask_only: bool = True


class Control(BaseModel):
    """A control image (pose or depth) and its strength."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pose", "depth"]
    image: str
    weight: float = Field(0.8, ge=0, le=2)


class Edit(BaseModel):
    """A source image to edit, and the alpha map of what may change: paths as in `Reference`, of equal size.
    ``window`` is the part (left, top, right, bottom) that is drawn anew at the plan's size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    mask: str
    strength: float = Field(1.0, gt=0, le=1)
    window: tuple[int, int, int, int] | None = None


class Plan(BaseModel):
    """One batch of pictures, fully determined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pack: str
    persona: str | None
    prompt: str
    negative_prompt: str = " "
    lora: str | None = None
    lora_scale: float = Field(0.8, ge=0, le=1.5)
    seeds: tuple[int, ...] = Field(min_length=1)
    batch: int = Field(8, ge=1, le=64)
    sampler: Literal["euler", "euler_ancestral"] = "euler"
    steps: int = Field(30, ge=1, le=150)
    guidance: float = Field(4.0, ge=1, le=20)
    width_px: int = Field(768, ge=64, le=4096)
    height_px: int = Field(768, ge=64, le=4096)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    mode: Literal["fast", "reliable"] = "fast"
    references: tuple[Reference, ...] = ()
    controls: tuple[Control, ...] = ()
    edit: Edit | None = None


def edits_own(plan: Plan) -> bool:
    """Whether the plan makes its pictures first and then edits their faces: the ladder's third rung."""
    return plan.edit is None and any(each.adapter == "edit-reference" for each in plan.references)
