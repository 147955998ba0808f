"""Editing with references: Qwen-Image-Edit's way to show a frame and a person's heads to the transformer.

In: a pipeline, a frame and what may change in it, heads cut out of the person's photos. Out: text states, and
a block inside which the pipeline's transformer sees the pictures beside the noise. The editing weights are a
transformer of their own (component ``edit_transformer``: Qwen-Image-Edit-2509 and later) or a LoRA in
``edit/`` on the pack's transformer. What may change in the frame is hidden: nobody else is copied.

With ``edit/processor`` the text encoder looks at the same pictures ("Picture 1: ..."), as in
QwenImageEditPlusPipeline; without it the prompt is only read, with identity tokens where the pack has them.

N photos, D face vector, T tokens, C packed channels, H height, W width.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import QwenImageEditPlusPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, Qwen2VLImageProcessorPil

from oblik.diffusion.families.family import family_of, pooled_share
from oblik.diffusion.families.qwen_image import EDITOR, EYES
from oblik.diffusion.identity import FILE
from oblik.diffusion.lora import ADAPTER as PERSON
from oblik.diffusion.lora import lora_layers
from oblik.errors import PackBroken
from oblik.faces.crops import GREY, hide
from oblik.generation.backends.beside import Shown, beside
from oblik.generation.backends.identity_tokens import IdentityTokens
from oblik.generation.backends.shortage import is_shortage
from oblik.generation.plan import Plan
from oblik.packs.manifest import OpenPack

LORA = Path("edit") / "pytorch_lora_weights.safetensors"
ADAPTER = "edit"
PLACE = "<|image_pad|>"
SEEN_AREA_PX = 384 * 384
"""The area at which the text encoder looks at a picture (QwenImageEditPlusPipeline)."""


def edit_view(plan: Plan, pack: OpenPack) -> OpenPack:
    """The pack with its editing transformer in place of its own, for a plan that is to run it."""
    network = pack.manifest.components.get(EDITOR)
    if network is None or not any(each.adapter == "edit-reference" for each in plan.references):
        return pack
    components = {**pack.manifest.components, "transformer": network}
    changed = {"components": components, "version": f"{pack.manifest.version}+edit"}
    return pack.model_copy(update={"manifest": pack.manifest.model_copy(update=changed)})


class EditReference:
    """An `oblik.generation.adapters.Adapter`; `seeing` and `reading` are what an edit needs besides."""

    @torch.no_grad()
    def words(
        self, pipeline: Any, plan: Plan, vectors_ND: NDArray[np.float32], *, pack: OpenPack, stack: str
    ) -> dict[str, Any]:
        """Text states without pictures: identity tokens, where the pack has them, else nothing instead."""
        if not pack.find(str(FILE)).is_file():
            return {}
        return IdentityTokens().words(pipeline, plan, vectors_ND, pack=pack, stack=stack)

    def drawing(self, pipeline: Any, plan: Plan) -> AbstractContextManager[None]:
        """For its words nothing is needed; for its pictures `reading`."""
        return nullcontext()

    @torch.no_grad()
    def seeing(
        self, pipeline: Any, plan: Plan, frame_HW3: NDArray[np.uint8], alpha_HW: NDArray[np.uint8],
        heads_NHW3: NDArray[np.uint8], pack: OpenPack,
    ) -> dict[str, Any] | None:  # fmt: skip
        """Text states of an encoder that looks at frame and heads; None without ``edit/processor``."""
        if not (pack.folder / EYES).is_dir():
            return None
        eyes = Qwen2VLImageProcessorPil.from_pretrained(pack.folder / EYES, local_files_only=True)
        processor = Looking(eyes, pipeline.tokenizer)
        seer = QwenImageEditPlusPipeline(
            scheduler=pipeline.scheduler, vae=pipeline.vae, text_encoder=pipeline.text_encoder,
            tokenizer=pipeline.tokenizer, processor=processor, transformer=pipeline.transformer,
        )  # fmt: skip
        pictures = [_seen(hide(frame_HW3, alpha_HW)), *map(_seen, heads_NHW3)]
        words: dict[str, Any] = {}
        asked = {
            "prompt": plan.prompt,
            **({"negative_prompt": plan.negative_prompt} if plan.guidance > 1 else {}),
        }
        for name, prompt in asked.items():
            states, mask = seer.encode_prompt(prompt, image=pictures, device=pipeline.text_encoder.device)
            words[f"{name}_embeds"] = states
            words[f"{name}_embeds_mask"] = (
                torch.ones(states.shape[:2], dtype=torch.long) if mask is None else mask
            )
        return words

    @contextmanager
    def reading(
        self, pipeline: Any, plan: Plan, frame_HW3: NDArray[np.uint8], alpha_HW: NDArray[np.uint8],
        heads_NHW3: NDArray[np.uint8], pack: OpenPack,
    ) -> Iterator[None]:  # fmt: skip
        """Inside, the pipeline's transformer sees the frame without what may change, and the heads.

        An editing LoRA has learned to do without heads (`oblik.miniature.train_edit`), so the negative
        prompt's call sees none. Whether Qwen-Image-Edit's own weights gain by it is not known: there both
        calls see everything, as in diffusers.
        """
        family = family_of(pack.manifest.family)(pipeline)
        patch_px = 2 * pipeline.vae_scale_factor
        frame = _shown(family, frame_HW3, patch_px)
        grey_TC = family.latents(np.full_like(frame_HW3, GREY))
        hidden_T = pooled_share(alpha_HW, patch_px).to(grey_TC.device) > 0
        kept = torch.where(hidden_T[:, None], grey_TC, frame.latents[0])[None]
        frame = frame._replace(latents=kept)
        pictures = [frame, *(_shown(family, head, patch_px) for head in heads_NHW3)]
        apart = plan.guidance > 1 and (pack.folder / LORA).is_file()
        seen = beside(pipeline.transformer, pictures, [frame] if apart else None)
        with _with_lora(pipeline, plan, pack), seen:
            yield


class Looking:
    """What Qwen2VLProcessor does of what an edit needs, without its videos, which want torchvision.

    The tokenizer is the pipeline's: with a LoRA it knows the trigger.
    """

    def __init__(self, eyes: Any, tokenizer: Any) -> None:
        self._eyes, self._tokenizer = eyes, tokenizer

    def __call__(self, text: list[str], images: list[Image.Image], **_: Any) -> BatchFeature:
        """Token ids with as many places for each picture as it has patches, and the patches."""
        seen = self._eyes(images=images, return_tensors="pt")
        counts = (seen["image_grid_thw"].prod(-1) // self._eyes.merge_size**2).tolist()
        pieces = [line.split(PLACE) for line in text]
        places = [PLACE * count for count in counts] + [""]
        texts = ["".join(map("".join, zip(line, places, strict=True))) for line in pieces]
        words = self._tokenizer(texts, padding=True, return_tensors="pt")
        return BatchFeature({**words, **seen})


def _shown(family: Any, image_HW3: NDArray[np.uint8], patch_px: int) -> Shown:
    height, width = image_HW3.shape[:2]
    latents_TC: Tensor = family.latents(image_HW3)
    return Shown(latents_TC[None], height // patch_px, width // patch_px)


def _seen(image_HW3: NDArray[np.uint8]) -> Image.Image:
    """As large as the text encoder looks at it."""
    height, width = image_HW3.shape[:2]
    scale = (SEEN_AREA_PX / (height * width)) ** 0.5
    size = (round(width * scale / 32) * 32, round(height * scale / 32) * 32)
    return Image.fromarray(image_HW3).resize(size, Image.Resampling.LANCZOS)


@contextmanager
def _with_lora(pipeline: Any, plan: Plan, pack: OpenPack) -> Iterator[None]:
    """Inside, the pack's editing LoRA acts beside the person's; afterwards it is gone."""
    if not (pack.folder / LORA).is_file():
        yield
        return
    transformer = pipeline.transformer
    person = [PERSON] if next(lora_layers(transformer), None) else []
    try:
        with warnings.catch_warnings():  # peft asks whether a second adapter is meant
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            pipeline.load_lora_weights(pack.folder / LORA.parent, weight_name=LORA.name, adapter_name=ADAPTER)
    except (OSError, ValueError, RuntimeError) as broken:
        if is_shortage(broken):
            raise
        raise PackBroken(f"{LORA} cannot be loaded: {broken}", hint="oblik pack verify") from broken
    try:
        transformer.set_adapters([*person, ADAPTER], [plan.lora_scale] * len(person) + [1.0])
        yield
    finally:
        transformer.delete_adapters(ADAPTER)
        if person:
            transformer.set_adapters(person, [plan.lora_scale])
