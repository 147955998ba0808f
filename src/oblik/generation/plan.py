"""The noun `Plan`: everything that determines a picture.

CLI, orders, chat, web page and avatar all build a `Plan`; an engine runs it. A preset is a partial
plan; a rung of the ladder and a degradation are pure functions ``Plan -> Plan``.
Guidance is what Qwen-Image calls ``true_cfg_scale``; ranges are checked here, once.
"""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

AdapterName = Literal["identity-tokens", "ip-adapter-faceid", "edit-reference"]
Sampler = Literal["euler", "euler_ancestral"]
Attention = Literal["native", "flash", "xformers", "sage"]


LARGEST_BATCH = 100
"""Pictures at once: that of the preview level."""


class Reference(BaseModel):
    """An identity reference: a photo and how strongly it pulls. ``image`` is a path inside the folder of the
    plan's persona."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    weight: float = Field(0.6, ge=0, le=1)
    adapter: AdapterName = "identity-tokens"
    face_mask_only: bool = True


class Control(BaseModel):
    """A control image and its strength. ``image`` is a path inside the folder of the plan's persona; the kind
    ``given`` is whatever the pack's ControlNet reads. A pose without an image is kept: that of the face which
    references or an edit replace, in each picture its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pose", "depth", "given"]
    image: str | None = None
    weight: float = Field(0.8, ge=0, le=2)

    @model_validator(mode="after")
    def _has_an_image(self) -> Control:
        if self.image is None and self.kind != "pose":
            raise ValueError("only a pose can be that of the face which is there; the others need an image")
        return self


class Edit(BaseModel):
    """A source image to edit, and the alpha map of what may change: paths as in `Reference`, of equal size.
    ``window`` is the part (left, top, right, bottom) that is drawn anew at the plan's size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    mask: str
    strength: float = Field(1.0, gt=0, le=1)
    window: tuple[int, int, int, int] | None = None


class Plan(BaseModel):
    """One batch of pictures, fully determined.

    The last four say how the network is run. ``guidance_at_once`` (both passes of guidance in one call),
    ``attention`` and ``compiled`` change a picture by rounding only; ``cache_threshold`` above 0 skips blocks
    whose input hardly changed since the step before (first-block cache), and that is seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pack: str
    persona: str | None
    prompt: str
    negative_prompt: str = " "
    lora: str | None = None
    lora_scale: float = Field(0.8, ge=0, le=1.5)
    seeds: tuple[int, ...] = Field(min_length=1)
    batch: int = Field(8, ge=1, le=LARGEST_BATCH)
    sampler: Sampler = "euler"
    steps: int = Field(30, ge=1, le=150)
    guidance: float = Field(4.0, ge=1, le=20)
    width_px: int = Field(768, ge=64, le=4096)
    height_px: int = Field(768, ge=64, le=4096)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    mode: Literal["fast", "reliable"] = "fast"
    references: tuple[Reference, ...] = ()
    controls: tuple[Control, ...] = ()
    edit: Edit | None = None
    attention: Attention = "native"
    guidance_at_once: bool = True
    cache_threshold: float = Field(0.0, ge=0, le=1)
    compiled: bool = False


def value_range(name: str) -> str:
    """What a value of a plan may be, in words: "1 to 150", "euler, euler_ancestral"; empty where any may."""
    known = Plan.model_fields[name]
    if choices := get_args(known.annotation) if get_origin(known.annotation) is Literal else ():
        return ", ".join(str(choice) for choice in choices)
    bounds = {type(each).__name__: each for each in known.metadata}
    if {"Ge", "Le"} <= bounds.keys():
        return f"{bounds['Ge'].ge:g} to {bounds['Le'].le:g}"
    return ""


def first_run(plan: Plan) -> Plan:
    """The run that references build on: without them, in fast mode; a control without an image goes, too."""
    controls = tuple(each for each in plan.controls if each.image)
    return plan.model_copy(update={"references": (), "controls": controls, "mode": "fast"})


def edits_own(plan: Plan) -> bool:
    """Whether the plan makes its pictures first and then edits their faces: the ladder's third rung."""
    return plan.edit is None and any(each.adapter == "edit-reference" for each in plan.references)
