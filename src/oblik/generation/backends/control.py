"""A ControlNet beside the engine's pipeline: pictures that follow the plan's control image.

In: a plan with a control, the family of an open pack. Out: the family with the control form of its pipeline
(Zhang, Rao and Agrawala 2023), made of the same parts, and the arguments of each call. Knows nothing of
poses and depths.

Qwen-Image's net reads the control image through the VAE, whose posterior is drawn from: each picture gets
the same draw, so that its bytes depend neither on its place in a batch nor on an earlier run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from PIL import Image

from oblik.diffusion.families.family import Family
from oblik.errors import BackendUnavailable, InvalidInput, PackBroken
from oblik.generation.adapters import Sight
from oblik.generation.backends.references import EachStep, Paint, Pixels_BHW3
from oblik.generation.control import fitted, lack, net_folder
from oblik.generation.plan import Plan
from oblik.generation.record import Record
from oblik.images import open_upright
from oblik.packs.manifest import OpenPack
from oblik.paths import sha256_file

DRAW = 0
"""The seed of the VAE's posterior."""


class Form(NamedTuple):
    """The control form of a pipeline: its class and its net's in diffusers (which imports each when it is
    first asked for), what it calls the image, what it is opened with; ``encodes`` where the image goes
    through the VAE."""

    pipeline: str
    net: str
    image: str
    opened_with: dict[str, Any]
    encodes: bool


FORMS = {
    "QwenImagePipeline": Form(
        "QwenImageControlNetPipeline", "QwenImageControlNetModel", "control_image", {}, encodes=True
    ),
    "StableDiffusionPipeline": Form(
        "StableDiffusionControlNetPipeline", "ControlNetModel", "image", {"requires_safety_checker": False},
        encodes=False,
    ),
    "StableDiffusionXLPipeline": Form(
        "StableDiffusionXLControlNetPipeline", "ControlNetModel", "image", {"add_watermarker": False},
        encodes=False,
    ),
}  # fmt: skip
"""By the class of the plain pipeline."""


class Control:
    """The control of one plan. The image is read when this is made, before any weights are."""

    @classmethod
    def of(cls, plan: Plan, pack: OpenPack, sight: Sight | None) -> Control | None:
        """The plan's; None where it has none.

        Raises:
            BackendUnavailable: the pack has no ControlNet; the hint is what does instead.
            InvalidInput: the plan has several controls, or nothing knows where images lie.
        """
        if not plan.controls:
            return None
        if len(plan.controls) > 1:
            raise InvalidInput("a picture follows one control image", hint="oblik generate --help")
        if missing := lack(plan.controls[0].kind, pack):
            raise BackendUnavailable(missing.what, hint=f"{missing.instead}: {missing.hint}")
        if sight is None:
            raise InvalidInput(
                "a control image needs the folder of a persona", hint="oblik generate --pose PHOTO"
            )
        return cls(plan, pack, sight)

    def __init__(self, plan: Plan, pack: OpenPack, sight: Sight) -> None:
        asked = plan.controls[0]
        path = sight.file(plan, asked.image)
        folder = net_folder(asked.kind, pack)
        assert folder is not None
        self._folder, self._weight = folder, asked.weight
        self._image: Image.Image = fitted(open_upright(path), (plan.width_px, plan.height_px))
        self._sha256 = {asked.image: sha256_file(path)}

    def begin(self, record: Record) -> None:
        """Put the image's hash into the record."""
        record.references_sha256 = record.references_sha256 | self._sha256

    def join(self, family: Family, dtype: torch.dtype, device: torch.device) -> None:
        """Give the family's pipeline the net, unless it has it from the last run."""
        if origin(family.pipeline) == self._folder:
            return
        leave(family)
        plain = family.pipeline
        form = FORMS[type(plain).__name__]
        try:
            kind = getattr(diffusers, form.net)
            net = kind.from_pretrained(self._folder, torch_dtype=dtype, local_files_only=True)
        except (OSError, ValueError) as broken:
            raise PackBroken(
                f"the ControlNet in {self._folder} cannot be loaded: {broken}", hint="oblik pack verify"
            ) from broken
        net.to(device).requires_grad_(False)
        family.pipeline = getattr(diffusers, form.pipeline)(
            **plain.components, controlnet=net, **form.opened_with
        )
        family.pipeline.set_progress_bar_config(disable=True)
        family.pipeline.plain = type(plain)

    def beside(self, paint: Paint, family: Family, count: int) -> Paint:
        """``paint``, with the control image in every call."""
        form = FORMS[family.pipeline.plain.__name__]

        def controlled(words: dict[str, Any], each_step: EachStep) -> Pixels_BHW3:
            more: dict[str, Any] = {
                form.image: self._image,
                "controlnet_conditioning_scale": self._weight,
            }
            if form.encodes:
                more["generator"] = [torch.Generator().manual_seed(DRAW) for _ in range(count)]
            return paint(words | more, each_step)

        return controlled


def origin(pipeline: Any) -> Path | None:
    """The folder that a pipeline's ControlNet was read from; None without one."""
    net = getattr(pipeline, "controlnet", None)
    return None if net is None else Path(net.config._name_or_path)


def leave(family: Family) -> None:
    """Make the family's pipeline the plain one again; the net is dropped."""
    pipeline = family.pipeline
    if origin(pipeline) is None:
        return
    parts = {name: each for name, each in pipeline.components.items() if name != "controlnet"}
    opened_with = FORMS[pipeline.plain.__name__].opened_with
    family.pipeline = pipeline.plain(**parts, **opened_with)
    family.pipeline.set_progress_bar_config(disable=True)


def room_beside(plan: Plan, pack: OpenPack, vram_bytes: int | None) -> int | None:
    """What a memory plan may use beside the plan's ControlNet, as large in memory as on disk."""
    folder = net_folder(plan.controls[0].kind, pack) if plan.controls else None
    if folder is None or vram_bytes is None:
        return vram_bytes
    return vram_bytes - sum(file.stat().st_size for file in folder.glob("*.safetensors"))
