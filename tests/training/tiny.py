"""Base models with random weights, small enough that a training takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
)

from oblik.miniature.architecture import new_scheduler
from oblik.packs.manifest import OpenPack, Pack
from oblik.packs.store import open_pack
from oblik.paths import Home

TINY = {"text_rank": 2, "rank": 2, "alpha": 2.0, "dtype": "float32"}


def miniature() -> OpenPack:
    return open_pack("miniature", Home(Path("nowhere")))


def open_tiny(pack: OpenPack, dtype: torch.dtype, device: torch.device) -> Any:
    """The pipeline of a pack made here; weights are the same every time."""
    torch.manual_seed(0)
    makers = {"tiny-qwen": _qwen, "tiny-sd": _sd, "tiny-v": _sd, "tiny-xl": _xl}
    pipeline = makers[pack.manifest.name](pack)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            for parameter in part.parameters():
                if parameter.ndim < 2 or parameter.abs().max() == 0:
                    continue
                torch.nn.init.normal_(parameter, std=0.05)
            part.requires_grad_(False).eval()
            part.to(device, dtype)
    return pipeline


def qwen_pack(folder: Path) -> OpenPack:
    """A Qwen-Image at 32 px with the miniature's vocabulary; its folder holds the tokenizer only."""
    (folder / "tokenizer").symlink_to(miniature().folder / "tokenizer")
    return OpenPack(manifest=_manifest("tiny-qwen", "qwen_image", 16), folder=folder)


def sd_pack(folder: Path, name: str) -> OpenPack:
    """A Stable Diffusion (``tiny-sd``, ``tiny-v``) or an SDXL (``tiny-xl``) at 32 px."""
    for part in ("tokenizer", "tokenizer_2") if name == "tiny-xl" else ("tokenizer",):
        _clip_tokenizer().save_pretrained(folder / part)
    return OpenPack(manifest=_manifest(name, "stable_diffusion", 8), folder=folder)


def _manifest(name: str, family: str, multiple: int) -> Pack:
    return Pack(name=name, version="1", family=family, native_size_px=32, side_multiple_px=multiple)


def _qwen(pack: OpenPack) -> QwenImagePipeline:
    tokenizer = Qwen2Tokenizer.from_pretrained(pack.folder / "tokenizer", local_files_only=True)
    special = {word: tokenizer.convert_tokens_to_ids(word) for word in ("<|endoftext|>", "<|im_end|>")}
    text = {
        "vocab_size": 1024, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]},
        "bos_token_id": special["<|endoftext|>"], "eos_token_id": special["<|im_end|>"],
        "pad_token_id": special["<|endoftext|>"],
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 1, "out_hidden_size": 32,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
            temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        tokenizer=tokenizer, scheduler=new_scheduler(),
    )  # fmt: skip


def _sd(pack: OpenPack) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=_vae(), unet=_unet(16), text_encoder=CLIPTextModel(_clip_config(2)),
        tokenizer=CLIPTokenizer.from_pretrained(pack.folder / "tokenizer", local_files_only=True),
        scheduler=DDIMScheduler(
            steps_offset=1, clip_sample=False,
            prediction_type="v_prediction" if pack.manifest.name == "tiny-v" else "epsilon"
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _xl(pack: OpenPack) -> StableDiffusionXLPipeline:
    """Its second encoder has the old ``eos_token_id`` of 2, as the published SDXL has."""
    first, second = (
        CLIPTokenizer.from_pretrained(pack.folder / name, local_files_only=True)
        for name in ("tokenizer", "tokenizer_2")
    )
    return StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_clip_config(2)),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(2, width=32)), tokenizer=first,
        tokenizer_2=second,
        unet=_unet(48, addition_embed_type="text_time", addition_time_embed_dim=4,
                   projection_class_embeddings_input_dim=6 * 4 + 16),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False), add_watermarker=False,
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def _unet(text_width: int, **more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), norm_num_groups=4,
        layers_per_block=1, attention_head_dim=4, cross_attention_dim=text_width,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
    )  # fmt: skip


def _clip_config(eos_token_id: int, width: int = 16) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(_clip_tokenizer()), hidden_size=width, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, projection_dim=16, eos_token_id=eos_token_id,
    )  # fmt: skip


def _clip_tokenizer() -> CLIPTokenizer:
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: place for place, word in enumerate(words)}, merges=[], model_max_length=77
    )
