"""Stable Diffusion 1.5 and SDXL as a `Family`: a UNet that predicts noise, and CLIP.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps,   the target is eps (Ho et al. 2020, eq. 14)
    or v = sqrt(a_t) eps - sqrt(1 - a_t) x_0   (Salimans & Ho 2022, appendix D)

In: a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`. Out: see `family.py`; times are the integer
timesteps of the scheduler, latents are flattened row by row. SDXL is told sizes and crop by its time ids
(Podell et al. 2023, section 2.2): photos are cut before training, so the crop starts at (0, 0).
Pictures are sampled by Euler's method whatever sampler the pack was published with; betas and prediction are
the pack's. Knows nothing of personas, datasets and optimisers.

B batch, T latent pixels, C latent channels (4), L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray
from torch import Tensor

from oblik.diffusion import lora, memory_unet, unet_lora
from oblik.diffusion.families.family import Packing, Text, drawn, pooled_share
from oblik.diffusion.single_file import only_file, read_config
from oblik.errors import BackendUnavailable, PackBroken
from oblik.packs.manifest import OpenPack
from oblik.training.artifact import WEIGHTS

PIPELINES: dict[str, tuple[Any, dict[str, Any]]] = {
    "StableDiffusionPipeline": (
        StableDiffusionPipeline,
        {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
    "StableDiffusionXLPipeline": (StableDiffusionXLPipeline, {"add_watermarker": False}),
}
"""By the name in ``model_index.json``; and what such a pipeline is opened without."""


class StableDiffusion:
    """A thin reading of the pipeline; it owns no weights of its own."""

    levels = (900.0, 700.0, 500.0, 300.0)
    guidance = "guidance_scale"
    count = staticmethod(memory_unet.count)
    made_from_folder, text_formats, bakes = (), ("diffusers",), False

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.network = pipeline.unet
        self.is_xl = getattr(pipeline, "text_encoder_2", None) is not None
        self.encoders = {"clip_l": pipeline.text_encoder}
        if self.is_xl:
            self.encoders["clip_g"] = pipeline.text_encoder_2
        self._patch_px = pipeline.vae_scale_factor
        config = pipeline.scheduler.config
        self._predicts = config.prediction_type
        if self._predicts not in ("epsilon", "v_prediction"):
            raise PackBroken(
                f"this scheduler predicts {self._predicts!r}; epsilon and v_prediction are known",
                hint="oblik pack list",
            )
        self._alpha_bar = pipeline.scheduler.alphas_cumprod.float()
        for encoder in self.encoders.values():
            _end_of_text_by_id(encoder, pipeline.tokenizer.eos_token_id)

    @staticmethod
    def open(pack: OpenPack, packing: Packing) -> Any:
        """A diffusers folder; or its configurations and tokenizers beside one checkpoint file."""
        if packing.how.by_part or packing.text_how != "none":
            raise BackendUnavailable(
                f"the weights of {pack.manifest.name!r} are not packed as they are read",
                hint=f"oblik plan {pack.manifest.name}",
            )
        name = read_config(pack.folder, "model_index.json")["_class_name"]
        if name not in PIPELINES:
            raise PackBroken(f"model_index.json names {name!r}", hint="oblik pack verify")
        family, left_out = PIPELINES[name]
        options: dict[str, Any] = {"dtype": packing.dtype, "local_files_only": True, **left_out}
        whole = pack.manifest.components.get("checkpoint")
        if whole is None:
            pipeline = family.from_pretrained(pack.folder, **options)
        else:
            file = only_file(pack.folder, whole, ".safetensors")
            pipeline = family.from_single_file(str(file), config=str(pack.folder), **options)
        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
        return pipeline

    @staticmethod
    def keeps_eyes(_pack: OpenPack) -> bool:
        return False

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.device
        return device

    def freeze(self) -> None:
        for part in (self.network, self.pipeline.vae, *self.encoders.values()):
            part.requires_grad_(False)

    def quicken(self) -> None:
        """Nothing."""

    def drop_unread(self) -> None:
        """Nothing."""

    @torch.no_grad()
    def latents(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        vae, wider = self.pipeline.vae, False
        if self.is_xl and vae.dtype == torch.float16 and vae.config.force_upcast:
            wider = True  # SDXL's own VAE overflows in float16; the pipeline decodes so, too
            vae.to(torch.float32)
        pixels = torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None].to(vae.device, vae.dtype)
        mean = vae.encode(pixels / 127.5 - 1).latent_dist.mode().float() * vae.config.scaling_factor
        if wider:
            vae.to(torch.float16)
        flat: Tensor = mean[0].flatten(1).T.contiguous()
        return flat

    def face_share(self, mask_HW: NDArray[np.uint8]) -> Tensor:
        return pooled_share(mask_HW, self._patch_px)

    def noun_ids(self, noun: str) -> list[int]:
        return list(self.pipeline.tokenizer(noun, add_special_tokens=False)["input_ids"])

    def text(self, prompts: list[str], device: torch.device | None = None) -> Text:
        found = self.pipeline.encode_prompt(
            prompts, device=device or self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Text(found[0], None, found[2] if self.is_xl else None)

    def words(self, text: Text, negative: Text | None) -> dict[str, Any]:
        words = {"prompt_embeds": text.states, "pooled_prompt_embeds": text.pooled}
        if negative is not None:
            words["negative_prompt_embeds"] = negative.states
            words["negative_pooled_prompt_embeds"] = negative.pooled
        return {name: value for name, value in words.items() if value is not None}

    def noise(self, seeds: Sequence[int], size_px: tuple[int, int]) -> Tensor:
        """(B, C, H, W) of the latents."""
        columns, rows = (side // self._patch_px for side in size_px)
        noise = drawn(seeds, (self.network.config.in_channels, rows, columns))
        return noise.to(self.network.dtype)  # the pipeline would not

    def times(self, count: int, image_tokens: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, len(self._alpha_bar), (count,), generator=generator).float()

    def on_grid(self, time_B: Tensor) -> Tensor:
        """As they are: the scheduler's times are a grid already."""
        return time_B

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
        return list(
            self.pipeline(
                **self.words(text, negative),
                guidance_scale=guidance,
                num_inference_steps=steps,
                width=size_px[0],
                height=size_px[1],
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images
        )

    def export(self, folder: Path, alpha: float, metadata: Mapping[str, str]) -> None:
        unet_lora.export(self.network, self.encoders, folder / WEIGHTS, metadata)

    def load_lora(self, folder: Path) -> None:
        unet_lora.load(self.pipeline, self.encoders, folder / WEIGHTS)

    def scale_lora(self, factor: float) -> None:
        """The text encoders' too, as in every other program for these models."""
        for part in (self.network, *self.encoders.values()):
            lora.scale(part, factor)


def _end_of_text_by_id(encoder: Any, eos_token_id: int) -> None:
    """Have CLIP look for its end of text by id.

    With the old configuration (eos_token_id 2) it takes the largest id of a sentence instead, and that would
    be the trigger token, which comes after the vocabulary.
    """
    model = getattr(encoder, "text_model", encoder)
    if hasattr(model, "eos_token_id"):
        model.eos_token_id = eos_token_id
