"""Qwen-Image as a `Family`: a flow-matching transformer with one text encoder.

In: a `QwenImagePipeline`. Out: see `family.py`; times are the sigma of flow_match.py. Knows nothing of
personas, datasets and optimisers.

B batch, T image tokens, C packed channels (64), L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oblik.diffusion import lora
from oblik.diffusion.families.family import Text, pooled_share
from oblik.diffusion.flow_match import noised, shift_mu, training_times
from oblik.diffusion.real_rope import use_real_rope
from oblik.diffusion.still import one_frame


class QwenImage:
    """A thin reading of the pipeline; it owns no weights of its own."""

    levels = (0.9, 0.7, 0.5, 0.3)

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.network = pipeline.transformer
        self.encoders = {"qwen25_7b": pipeline.text_encoder}
        self.device: torch.device = pipeline.transformer.device
        self._patch_px = 2 * pipeline.vae_scale_factor
        for part in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
            part.requires_grad_(False)
        if self.device.type == "cpu":
            use_real_rope(self.network)

    @torch.no_grad()
    def latents(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        vae = self.pipeline.vae
        pixels = torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None, :, None].to(vae.device, vae.dtype)
        with one_frame(vae):
            mean = vae.encode(pixels / 127.5 - 1).latent_dist.mode()[:, :, 0].float()
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

    def text(self, prompts: list[str]) -> Text:
        states, mask = self.pipeline.encode_prompt(prompts, device=self.device)
        return Text(states, mask)

    def times(self, count: int, image_tokens: int, generator: torch.Generator) -> Tensor:
        return training_times(count, shift_mu(self.pipeline.scheduler.config, image_tokens), generator)

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
                prompt_embeds=text.states,
                prompt_embeds_mask=_mask(text),
                negative_prompt_embeds=negative.states,
                negative_prompt_embeds_mask=_mask(negative),
                true_cfg_scale=guidance,
                num_inference_steps=steps,
                width=size_px[0],
                height=size_px[1],
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images
        )

    def export(self, path: Path, alpha: float, metadata: Mapping[str, str]) -> None:
        lora.export(self.network, path, alpha, metadata)


def _mask(text: Text) -> Tensor:
    if text.mask is not None:
        return text.mask
    return torch.ones(text.states.shape[:2], dtype=torch.long, device=text.states.device)
