"""Captions by the pack's own text encoder, which is a vision-language model (Qwen2.5-VL).

In: a pack's folder (``text_encoder/``, ``tokenizer/``) and pictures. Out: a few plain descriptors. Only local
files are read. The image processor is the one that works on Pillow and NumPy: `Qwen2_5_VLProcessor` also
needs a video processor, and that needs torchvision; so the image tokens are laid out here. What the model
answers is cleaned by `oblik.datasets.answers`. Knows nothing of tokens, personas or identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer, Qwen2VLImageProcessorPil

from oblik.datasets.answers import QUESTION, descriptors_from
from oblik.datasets.sources import Picture
from oblik.diffusion.device import pick_device
from oblik.errors import BackendUnavailable, PackBroken

IMAGE, START, END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
SYSTEM = "You describe photographs for a catalogue, in a few plain words."
MAX_NEW_TOKENS = 64
MAX_SIDE_PX = 448


class VisionLanguage:
    """Asks the model one question about each picture; the same picture gives the same answer."""

    name = "model"

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.device = pick_device(device)
        try:
            self.tokenizer: Any = Qwen2Tokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            self.model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                folder / "text_encoder", local_files_only=True, dtype="auto"
            )
        except (OSError, ValueError) as broken:
            raise PackBroken(
                f"the text encoder in {folder.name} cannot be loaded: {broken}", hint="oblik pack verify"
            ) from broken
        self.model.to(self.device).eval()
        self.processor = image_processor(self.model.config.vision_config)
        self.ids = {word: self.tokenizer.convert_tokens_to_ids(word) for word in (IMAGE, START, END)}
        if self.ids[IMAGE] != self.model.config.image_token_id:
            raise BackendUnavailable(
                f"the text encoder in {folder.name} has no token for pictures",
                hint="caption with the measured words: oblik dataset build PHOTOS --captions words",
            )

    def describe(self, picture: Picture) -> str:
        """The user's own words where there are some, else the model's answer, cleaned."""
        return picture.words or descriptors_from(self.ask(picture.image, QUESTION))

    @torch.no_grad()
    def ask(self, image: Image.Image, question: str) -> str:
        """The model's answer, as it gave it. Greedy: nothing is drawn."""
        inputs = self.inputs(image, question)
        made = self.model.generate(
            **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, top_k=None, top_p=None,
            temperature=None, repetition_penalty=1.05, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        answer: str = self.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer

    def inputs(self, image: Image.Image, question: str) -> dict[str, Any]:
        """Ids (1, L) with one image token per merged patch, patches (P, C), grid (1, 3), and token types."""
        seen = self.processor(images=[image.convert("RGB")], return_tensors="pt")
        pieces = int(seen["image_grid_thw"].prod()) // self.processor.merge_size**2
        ids_1L = self.tokenizer(prompt(question, pieces), return_tensors="pt").input_ids
        return {
            "input_ids": ids_1L.to(self.device),
            "attention_mask": torch.ones_like(ids_1L).to(self.device),
            "pixel_values": seen["pixel_values"].to(self.device, self.model.dtype),
            "image_grid_thw": seen["image_grid_thw"].to(self.device),
            "mm_token_type_ids": (ids_1L == self.ids[IMAGE]).long().to(self.device),
        }


def image_processor(vision: Any) -> Any:
    """The Pillow image processor for a vision tower's patches, at most 448 px square."""
    unit = vision.patch_size * vision.spatial_merge_size
    return Qwen2VLImageProcessorPil(
        patch_size=vision.patch_size, merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        size={"shortest_edge": 4 * unit**2, "longest_edge": MAX_SIDE_PX**2},
    )  # fmt: skip


def prompt(question: str, pieces: int) -> str:
    """Qwen2.5-VL's chat with one picture of ``pieces`` image tokens."""
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
        f"<|im_start|>user\n{START}{IMAGE * pieces}{END}{question}<|im_end|>\n<|im_start|>assistant\n"
    )
