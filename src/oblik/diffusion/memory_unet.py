"""The arithmetic of memory for a U-Net with CLIP: what `memory_count` does for a transformer.

In: an `Architecture` and what is asked. Out: `Counted`. Networks are built on the meta device: parameters
are counted there, activations traced (`live_bytes`), the U-Net's as a whole, for its blocks are not alike.
Weights have one format, the folder's own, and no block can stay in RAM. Guidance doubles the batch of a
picture, as the pipeline does it. Knows nothing of which configuration is better.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from oblik.diffusion.live_bytes import META, LiveBytes, add_lora, fused_attention, typed
from oblik.diffusion.memory_count import Architecture, Counted
from oblik.diffusion.weight_bytes import Census, census, lora_numbers, text_group
from oblik.packs.memory_plan import Asked
from oblik.training.config import ATTENTION_TARGETS

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


@lru_cache(maxsize=8)
def count(architecture: Architecture, asked: Asked) -> Counted:
    """Build the networks on the meta device, count their parameters and trace their peaks."""
    network_config, _, vae_config = architecture.configs
    dtype: torch.dtype = getattr(torch, architecture.dtype)
    unet, encoders = new_unet(network_config, dtype), new_encoders(architecture, dtype)
    is_xl = len(encoders) == 2
    vae = new_vae(vae_config, dtype, is_xl=is_xl)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    sides = (asked.height_px // factor, asked.width_px // factor)
    tokens = sum(each.config.max_position_embeddings for each in encoders) // len(encoders)
    ends = tuple(f".{target}" for target in ATTENTION_TARGETS)
    lora = lora_numbers(unet, asked.rank, lambda name: name.endswith(ends))
    texts: dict[str, Census] = {}
    for encoder in encoders:
        for group, part in census(encoder, text_group).items():
            texts[group] = Census(*(a + b for a, b in zip(texts.get(group, Census()), part, strict=True)))
    return Counted(
        asked=asked,
        size=dtype.itemsize,
        blocks=1,
        transformer={**census(unet, lambda _: "attention"), "rest": Census(), "time": Census()},
        text_encoder=texts,
        vae_bytes=sum(p.numel() * p.element_size() for p in vae.parameters()),
        widest=0,
        lora=lora,
        learning=lora,
        text_lora=sum(_text_lora(encoder, asked) for encoder in encoders),
        table_bytes=0,
        row_bytes=0,
        text_bytes=tokens * unet.config.cross_attention_dim * dtype.itemsize,
        latent_bytes=sides[0] * sides[1] * unet.config.in_channels * 4,
        peaks=_peaks(unet, encoders, vae, sides, asked),
    )


def new_unet(config: dict[str, Any], dtype: torch.dtype) -> Any:
    """A frozen U-Net on the meta device."""
    with META:
        return typed(UNet2DConditionModel(**_own(config)), dtype)


def new_encoders(architecture: Architecture, dtype: torch.dtype) -> list[Any]:
    """The one CLIP text encoder, or SDXL's two; frozen, on the meta device."""
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    configs = [json.loads(each) for each in (architecture.text_encoder, architecture.text_encoder_2) if each]
    with META:
        return [
            typed(kind(CLIPTextConfig.from_dict(config)), dtype)
            for kind, config in zip(kinds, configs, strict=False)
        ]


def new_vae(config: dict[str, Any], dtype: torch.dtype, *, is_xl: bool) -> Any:
    """A frozen VAE on the meta device; SDXL's own is computed in float32, where float16 is asked for."""
    with META:
        vae = AutoencoderKL(**_own(config))
    wider = is_xl and dtype == torch.float16 and vae.config.force_upcast
    return typed(vae, torch.float32 if wider else dtype)


def _own(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _text_lora(encoder: Any, asked: Asked) -> int:
    """Numbers learned in an encoder: LoRA on the attention of its upper layers, and one token."""
    layers = next(part for name, part in encoder.named_modules() if name.endswith("encoder.layers"))
    upper = layers[max(0, len(layers) - asked.text_layers) :]
    found = lora_numbers(upper, asked.text_rank, lambda name: name.endswith(TEXT_TARGETS))
    return found + int(encoder.config.hidden_size)


def _peaks(
    unet: Any, encoders: Sequence[Any], vae: Any, sides: tuple[int, int], asked: Asked
) -> dict[str, int]:
    """Traced activations of one picture or prompt, by stage."""
    found = {"text": max(_text_peak(encoder, train=False) for encoder in encoders)}
    pixels = _empty(vae, 1, 3, asked.height_px, asked.width_px)
    if asked.purpose == "train" or asked.beside.alone:
        found["encode"] = _traced([vae], lambda: vae.encode(pixels))
    if asked.purpose == "generate":
        denoise = _traced([unet], lambda: _noise(unet, sides, batch=2))
        latents = _empty(vae, 1, vae.config.latent_channels, *sides)
        return found | {"denoise": denoise, "decode": _traced([vae], lambda: vae.decode(latents))}
    found["train text"] = sum(_text_peak(encoder, train=True) for encoder in encoders)
    parameters = add_lora(unet, asked.rank, ATTENTION_TARGETS)
    unet.enable_gradient_checkpointing()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    with LiveBytes([*unet.parameters(), *gradients]) as live, fused_attention():
        torch.autograd.backward(_noise(unet, sides, batch=1).float().square().mean())
    return found | {"train": live.peak}


def _traced(networks: Sequence[Any], run: Any) -> int:
    known = [parameter for network in networks for parameter in network.parameters()]
    with LiveBytes(known) as live, fused_attention(), torch.no_grad():
        run()
    return int(live.peak)


def _text_peak(encoder: Any, *, train: bool) -> int:
    """One prompt through an encoder; with ``train`` back to its embeddings, with checkpointing."""
    ids = torch.zeros(1, encoder.config.max_position_embeddings, dtype=torch.long, device=META)
    if not train:
        return _traced([encoder], lambda: encoder(ids, output_hidden_states=True))
    encoder.train()
    encoder.activation_checkpointing_enable()
    table = encoder.get_input_embeddings()
    handle = table.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())
    with LiveBytes(encoder.parameters()) as live, fused_attention():
        out = encoder(ids, output_hidden_states=True)
        torch.autograd.backward(out.hidden_states[-1].float().sum())
    handle.remove()
    return int(live.peak)


def _noise(unet: Any, sides: tuple[int, int], batch: int) -> Tensor:
    """What the U-Net says of a batch."""
    config, beside = unet.config, None
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        beside = {"text_embeds": _empty(unet, batch, pooled), "time_ids": _empty(unet, batch, 6)}
    out: Tensor = unet(
        _empty(unet, batch, config.in_channels, *sides),
        torch.zeros(batch, dtype=torch.long, device=META),
        encoder_hidden_states=_empty(unet, batch, 77, config.cross_attention_dim),
        added_cond_kwargs=beside,
        return_dict=False,
    )[0]
    return out


def _empty(network: Any, *shape: int) -> Tensor:
    return torch.empty(shape, device=META, dtype=network.dtype)
