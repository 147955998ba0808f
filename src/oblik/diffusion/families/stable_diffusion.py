"""Stable Diffusion 1.5 and SDXL as a `Family`: a UNet that predicts noise, and CLIP.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps,   the target is eps (Ho et al. 2020, eq. 14)
    or v = sqrt(a_t) eps - sqrt(1 - a_t) x_0   (Salimans & Ho 2022, appendix D)

In: a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`. Out: see `family.py`; times are the integer
timesteps of the scheduler, latents are flattened row by row. SDXL is told sizes and crop by its time ids
(Podell et al. 2023, section 2.2): photos are cut before training, so the crop starts at (0, 0).
Knows nothing of personas, datasets and optimisers.

B batch, T latent pixels, C latent channels (4), L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from oblik.diffusion.families.family import Text, pooled_share
from oblik.diffusion.lora import ADAPTER, lora_layers
from oblik.errors import PackBroken


class StableDiffusion:
    """A thin reading of the pipeline; it owns no weights of its own."""

    levels = (900.0, 700.0, 500.0, 300.0)

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.network = pipeline.unet
        self.is_xl = getattr(pipeline, "text_encoder_2", None) is not None
        self.encoders = {"clip_l": pipeline.text_encoder}
        if self.is_xl:
            self.encoders["clip_g"] = pipeline.text_encoder_2
        self.device: torch.device = pipeline.unet.device
        self._patch_px = pipeline.vae_scale_factor
        config = pipeline.scheduler.config
        self._predicts = config.prediction_type
        if self._predicts not in ("epsilon", "v_prediction"):
            raise PackBroken(
                f"this scheduler predicts {self._predicts!r}; epsilon and v_prediction are known",
                hint="oblik pack list",
            )
        self._alpha_bar = pipeline.scheduler.alphas_cumprod.float()
        for part in (pipeline.unet, pipeline.vae, *self.encoders.values()):
            part.requires_grad_(False)
        for encoder in self.encoders.values():
            _end_of_text_by_id(encoder, pipeline.tokenizer.eos_token_id)

    @torch.no_grad()
    def latents(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        vae = self.pipeline.vae
        pixels = torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None].to(vae.device, vae.dtype)
        mean = vae.encode(pixels / 127.5 - 1).latent_dist.mode().float() * vae.config.scaling_factor
        flat: Tensor = mean[0].flatten(1).T.contiguous()
        return flat

    def face_share(self, mask_HW: NDArray[np.uint8]) -> Tensor:
        return pooled_share(mask_HW, self._patch_px)

    def noun_ids(self, noun: str) -> list[int]:
        return list(self.pipeline.tokenizer(noun, add_special_tokens=False)["input_ids"])

    def text(self, prompts: list[str]) -> Text:
        found = self.pipeline.encode_prompt(
            prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Text(found[0], None, found[2] if self.is_xl else None)

    def times(self, count: int, image_tokens: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, len(self._alpha_bar), (count,), generator=generator).float()

    def noised(self, x0_BTC: Tensor, eps_BTC: Tensor, time_B: Tensor) -> Tensor:
        signal, noise = self._amounts(time_B)
        return signal * x0_BTC + noise * eps_BTC

    def target(self, x0_BTC: Tensor, eps_BTC: Tensor, time_B: Tensor) -> Tensor:
        if self._predicts == "epsilon":
            return eps_BTC
        signal, noise = self._amounts(time_B)
        return signal * eps_BTC - noise * x0_BTC

    def _amounts(self, time_B: Tensor) -> tuple[Tensor, Tensor]:
        bar = self._alpha_bar.to(time_B.device)[time_B.long()][:, None, None]
        return bar.sqrt(), (1 - bar).sqrt()

    def predict(self, noisy_BTC: Tensor, time_B: Tensor, text: Text, size_px: tuple[int, int]) -> Tensor:
        columns, rows = (side // self._patch_px for side in size_px)
        dtype, device = self.network.dtype, noisy_BTC.device
        beside = None
        if self.is_xl:
            assert text.pooled is not None
            width, height = size_px
            ids = torch.tensor([[height, width, 0, 0, height, width]] * len(noisy_BTC), device=device)
            beside = {"text_embeds": text.pooled.to(dtype), "time_ids": ids.to(dtype)}
        out = self.network(
            noisy_BTC.to(dtype).transpose(1, 2).unflatten(2, (rows, columns)),
            time_B.long(),
            encoder_hidden_states=text.states.to(dtype),
            added_cond_kwargs=beside,
            return_dict=False,
        )[0]
        flat: Tensor = out.flatten(2).transpose(1, 2)
        return flat

    @torch.no_grad()
    def sample(
        self, text: Text, negative: Text, seeds: list[int], size_px: tuple[int, int], steps: int,
        guidance: float,
    ) -> list[Any]:  # fmt: skip
        self.pipeline.set_progress_bar_config(disable=True)
        pooled = (
            {"pooled_prompt_embeds": text.pooled, "negative_pooled_prompt_embeds": negative.pooled}
            if self.is_xl
            else {}
        )
        return list(
            self.pipeline(
                prompt_embeds=text.states,
                negative_prompt_embeds=negative.states,
                guidance_scale=guidance,
                num_inference_steps=steps,
                width=size_px[0],
                height=size_px[1],
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                **pooled,
            ).images
        )

    def export(self, path: Path, alpha: float, metadata: Mapping[str, str]) -> None:
        """Keys as kohya's trainer writes them, ``lora_unet_<module>.lora_down.weight`` and ``.alpha``.

        ComfyUI, the web interfaces for Stable Diffusion and diffusers all read these.
        """
        tensors = {}
        for name, layer in lora_layers(self.network):
            key = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = layer.lora_A[ADAPTER].weight
            tensors[f"{key}.lora_up.weight"] = layer.lora_B[ADAPTER].weight
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
        whole = {name: value.detach().float().cpu().contiguous() for name, value in sorted(tensors.items())}
        save_file(whole, path, metadata={"format": "pt", **metadata})


def _end_of_text_by_id(encoder: Any, eos_token_id: int) -> None:
    """Have CLIP look for its end of text by id.

    With the old configuration (eos_token_id 2) it takes the largest id of a sentence instead, and that would
    be the trigger token, which comes after the vocabulary.
    """
    model = getattr(encoder, "text_model", encoder)
    if hasattr(model, "eos_token_id"):
        model.eos_token_id = eos_token_id
