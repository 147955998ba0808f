"""What a trainer needs from Qwen-Image, through its plain pipeline.

In: a `QwenImagePipeline`. Out: latents of photos, text states with gradients, velocities, samples.
Knows nothing of LoRA, personas or datasets.

B batch, T image tokens, C packed channels (64), L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oblik.diffusion.flow_match import shift_mu


class Text(NamedTuple):
    """Text states (B, L, D) and, for padded batches, their mask (B, L)."""

    states: Tensor
    mask: Tensor | None

    def of(self, rows: Tensor | slice) -> Text:
        """The states of some rows."""
        return Text(self.states[rows], None if self.mask is None else self.mask[rows])


class QwenImage:
    """A thin reading of the pipeline; it owns no weights of its own."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.transformer = pipeline.transformer
        self.text_encoder = pipeline.text_encoder
        self.device: torch.device = pipeline.transformer.device
        self._patch_px = 2 * pipeline.vae_scale_factor
        for part in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
            part.requires_grad_(False)

    @torch.no_grad()
    def latents(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        """Packed, normalised latents (T, C), float32, of the posterior's mean."""
        vae = self.pipeline.vae
        pixels = torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None, :, None].to(vae.device, vae.dtype)
        mean = vae.encode(pixels / 127.5 - 1).latent_dist.mode()[:, :, 0].float()
        shape = (1, -1, 1, 1)
        shift = torch.tensor(vae.config.latents_mean, device=mean.device).view(shape)
        scale = torch.tensor(vae.config.latents_std, device=mean.device).view(shape)
        normal = (mean - shift) / scale
        _, channels, rows, columns = normal.shape
        packed: Tensor = self.pipeline._pack_latents(normal, 1, channels, rows, columns)
        return packed[0]

    def token_weights(self, mask_HW: NDArray[np.uint8], inside: float) -> Tensor:
        """Weights (T,): 1 outside the face mask, ``inside`` within it, by area."""
        rows, columns = (side // self._patch_px for side in mask_HW.shape)
        share = torch.from_numpy(mask_HW.copy())[None, None].float() / 255
        pooled = torch.nn.functional.adaptive_avg_pool2d(share, (rows, columns)).flatten()
        return 1 + (inside - 1) * pooled

    def text(self, prompts: list[str]) -> Text:
        """Encode prompts as the pipeline does; gradients reach the token's embedding."""
        states, mask = self.pipeline.encode_prompt(prompts, device=self.device)
        return Text(states, mask)

    def velocity(self, noisy_BTC: Tensor, sigma_B: Tensor, text: Text, size_px: tuple[int, int]) -> Tensor:
        """The transformer's v at time sigma for images of (width, height)."""
        columns, rows = (side // self._patch_px for side in size_px)
        out: Tensor = self.transformer(
            hidden_states=noisy_BTC.to(self.transformer.dtype),
            timestep=sigma_B.to(self.transformer.dtype),
            encoder_hidden_states=text.states.to(self.transformer.dtype),
            encoder_hidden_states_mask=text.mask,
            img_shapes=[[(1, rows, columns)]] * len(noisy_BTC),
            return_dict=False,
        )[0]
        return out

    def mu(self, image_tokens: int) -> float:
        """The scheduler's shift for images of that many tokens."""
        return shift_mu(self.pipeline.scheduler.config, image_tokens)

    def noun_ids(self, noun: str) -> list[int]:
        """Token ids of a word as it stands inside a sentence."""
        return list(self.pipeline.tokenizer(f" {noun}")["input_ids"])

    @torch.no_grad()
    def sample(
        self, prompt: str, seeds: list[int], size_px: tuple[int, int], steps: int, guidance: float
    ) -> list[Any]:
        """A few pictures (PIL) on the way; the pipeline's own sampler."""
        self.pipeline.set_progress_bar_config(disable=True)
        return list(
            self.pipeline(
                prompt=prompt,
                negative_prompt=" ",
                true_cfg_scale=guidance,
                num_inference_steps=steps,
                width=size_px[0],
                height=size_px[1],
                num_images_per_prompt=len(seeds),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images
        )
