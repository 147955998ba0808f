"""Qwen-Image as a `Family`: a flow-matching transformer with one text encoder.

In: a `QwenImagePipeline`. Out: see `family.py`; times are the sigma of flow_match.py. Knows nothing of
personas, datasets and optimisers.

B batch, T image tokens, C packed channels (64), L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import QwenImagePipeline
from numpy.typing import NDArray
from torch import Tensor

from oblik.diffusion import lora, memory_count, still, text_lora
from oblik.diffusion.families.family import Packing, Text, drawn, pooled_share
from oblik.diffusion.flow_match import noised, shift_mu, training_times
from oblik.diffusion.frozen_blocks import use_frozen_blocks
from oblik.diffusion.live_bytes import text_only
from oblik.diffusion.modulation import on_grid
from oblik.diffusion.quantize import load_text_encoder, load_transformer
from oblik.diffusion.real_rope import use_real_rope
from oblik.packs.manifest import Component, OpenPack
from oblik.training.artifact import TEXT_ENCODER, WEIGHTS

EYES, EDITOR = Path("edit") / "processor", "edit_transformer"
"""What prepares pictures for the text encoder; the component that is an editing transformer."""


class QwenImage:
    """A thin reading of the pipeline; it owns no weights of its own."""

    levels = (0.9, 0.7, 0.5, 0.3)
    guidance = "true_cfg_scale"  # the pipeline ignores its guidance_scale
    count = staticmethod(memory_count.count)
    made_from_folder = ("torchao-int8", "torchao-fp8", "torchao-int4", "bnb-nf4")
    text_formats = ("diffusers", "torchao-int8", "bnb-nf4")
    bakes = True

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.network = pipeline.transformer
        self.encoders = {"qwen25_7b": pipeline.text_encoder}
        self._patch_px = 2 * pipeline.vae_scale_factor

    @staticmethod
    def open(pack: OpenPack, packing: Packing) -> Any:
        """What diffusers does not read from the folder by itself comes from `quantize`."""
        dtype, how, device, text_how, text_device = packing
        parts = {}
        network, text = (pack.manifest.components.get(name) for name in ("transformer", "text_encoder"))
        if network and (network.format != "diffusers" or how.by_part or _edits(network)):
            parts["transformer"] = load_transformer(pack.folder, network, how, dtype=dtype, device=device)
        if text and (text.format != "diffusers" or text_how != "none"):
            parts["text_encoder"] = load_text_encoder(
                pack.folder, text, text_how, dtype=dtype, device=text_device
            )
        opened = QwenImagePipeline.from_pretrained(pack.folder, dtype=dtype, local_files_only=True, **parts)
        opened.sees_pictures = QwenImage.keeps_eyes(pack)
        return opened

    @staticmethod
    def keeps_eyes(pack: OpenPack) -> bool:
        """That of an editing transformer does; and any that can look, where edits are a LoRA's."""
        parts = pack.manifest.components
        looks = (pack.folder / EYES).is_dir() and EDITOR not in parts
        return looks or ("transformer" in parts and _edits(parts["transformer"]))

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.device
        return device

    def freeze(self) -> None:
        for part in (self.network, self.pipeline.text_encoder, self.pipeline.vae):
            part.requires_grad_(False)
        if self.device.type == "cpu":
            use_frozen_blocks(self.network)

    def quicken(self) -> None:
        if self.device.type == "cpu":
            use_real_rope(self.network)

    def drop_unread(self) -> None:
        text_only(self.pipeline.text_encoder, eyes=getattr(self.pipeline, "sees_pictures", False))
        self.pipeline.text_encoder.get_output_embeddings = lambda: None

    @torch.no_grad()
    def latents(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        vae = self.pipeline.vae
        pixels = torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None].to(vae.device, vae.dtype)
        mean, _ = still.encode(vae, pixels / 127.5 - 1)
        shape = (1, -1, 1, 1)
        shift = torch.tensor(vae.config.latents_mean, device=mean.device).view(shape)
        scale = torch.tensor(vae.config.latents_std, device=mean.device).view(shape)
        normal = (mean - shift) / scale
        _, channels, rows, columns = normal.shape
        packed: Tensor = self.pipeline._pack_latents(normal, 1, channels, rows, columns)
        return packed[0]

    def face_share(self, mask_HW: NDArray[np.uint8]) -> Tensor:
        return pooled_share(mask_HW, self._patch_px)

    def noun_ids(self, noun: str) -> list[int]:
        return list(self.pipeline.tokenizer(f" {noun}")["input_ids"])

    def text(self, prompts: list[str], device: torch.device | None = None) -> Text:
        states, mask = self.pipeline.encode_prompt(prompts, device=device or self.device)
        return Text(states, mask)

    def words(self, text: Text, negative: Text | None) -> dict[str, Any]:
        words = {"prompt_embeds": text.states, "prompt_embeds_mask": _mask(text)}
        if negative is not None:
            words["negative_prompt_embeds"] = negative.states
            words["negative_prompt_embeds_mask"] = _mask(negative)
        return words

    def noise(self, seeds: Sequence[int], size_px: tuple[int, int]) -> Tensor:
        """Packed as the transformer takes it, (B, T, C)."""
        channels = self.network.config.in_channels // 4
        columns, rows = (2 * (side // self._patch_px) for side in size_px)
        noise = drawn(seeds, (1, channels, rows, columns))
        packed: Tensor = self.pipeline._pack_latents(noise, len(seeds), channels, rows, columns)
        return packed

    def times(self, count: int, image_tokens: int, generator: torch.Generator) -> Tensor:
        return training_times(count, shift_mu(self.pipeline.scheduler.config, image_tokens), generator)

    def on_grid(self, time_B: Tensor) -> Tensor:
        return on_grid(time_B)

    def noised(self, x0_BTC: Tensor, eps_BTC: Tensor, time_B: Tensor) -> Tensor:
        return noised(x0_BTC, eps_BTC, time_B)

    def target(self, x0_BTC: Tensor, eps_BTC: Tensor, time_B: Tensor) -> Tensor:
        """The velocity eps - x_0, at every time."""
        return eps_BTC - x0_BTC

    def predict(self, noisy_BTC: Tensor, time_B: Tensor, text: Text, size_px: tuple[int, int]) -> Tensor:
        columns, rows = (side // self._patch_px for side in size_px)
        out: Tensor = self.network(
            hidden_states=noisy_BTC.to(self.network.dtype),
            timestep=time_B.to(self.network.dtype),
            encoder_hidden_states=text.states.to(self.network.dtype),
            encoder_hidden_states_mask=text.mask,
            img_shapes=[[(1, rows, columns)]] * len(noisy_BTC),
            return_dict=False,
        )[0]
        return out

    @torch.no_grad()
    def sample(
        self, text: Text, negative: Text, seeds: list[int], size_px: tuple[int, int], steps: int,
        guidance: float,
    ) -> list[Any]:  # fmt: skip
        self.pipeline.set_progress_bar_config(disable=True)
        return list(
            self.pipeline(
                **self.words(text, negative),
                true_cfg_scale=guidance,
                num_inference_steps=steps,
                width=size_px[0],
                height=size_px[1],
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images
        )

    def export(self, folder: Path, alpha: float, metadata: Mapping[str, str]) -> None:
        lora.export(self.network, folder / WEIGHTS, alpha, metadata)
        text_lora.export(self.encoders, folder / TEXT_ENCODER)

    def load_lora(self, folder: Path) -> None:
        text_lora.load(self.encoders, folder / TEXT_ENCODER)
        lora.load(self.pipeline, folder / WEIGHTS)

    def scale_lora(self, factor: float) -> None:
        """The transformer's alone: what the text encoder learned belongs to the token."""
        lora.scale(self.network, factor)


def _edits(network: Component) -> bool:
    return any(file.path.startswith("edit/") for file in network.files)


def _mask(text: Text) -> Tensor:
    if text.mask is not None:
        return text.mask
    return torch.ones(text.states.shape[:2], dtype=torch.long, device=text.states.device)
