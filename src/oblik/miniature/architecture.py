"""The miniature's architecture: Qwen-Image's own classes, small.

Out: freshly initialised diffusers/transformers components, deterministic from a generator seed.
Knows nothing of training. Sizes were chosen on two CPU cores; docs/miniature.md has the figures.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from oblik.miniature.face_networks import EMBEDDING

IMAGE_PX = 128
LATENT_CHANNELS = 16
TEXT_DIM = 128
VOCABULARY_ROWS = 1024


def new_vae(seed: int) -> AutoencoderKLQwenImage:
    """3 x 128 x 128 -> 16 x 16 x 16."""
    torch.manual_seed(seed)
    return AutoencoderKLQwenImage(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4, 8],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )


def new_text_encoder(seed: int, special: dict[str, int]) -> Qwen2_5_VLForConditionalGeneration:
    """A three-layer Qwen2.5-VL. Its vision tower is as small as its classes allow and is never used.

    ``special`` maps the tokenizer's special tokens to their ids.
    """
    torch.manual_seed(seed)
    text = {
        "vocab_size": VOCABULARY_ROWS,
        "hidden_size": TEXT_DIM,
        "intermediate_size": 3 * TEXT_DIM,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        "bos_token_id": special["<|endoftext|>"],
        "eos_token_id": special["<|im_end|>"],
        "pad_token_id": special["<|endoftext|>"],
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": TEXT_DIM,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def new_transformer(seed: int) -> QwenImageTransformer2DModel:
    """An eight-million-parameter MMDiT over 64 image tokens.

    Modulation and output start at zero, so every block starts as the identity (Peebles and Xie 2023,
    adaLN-Zero).
    """
    torch.manual_seed(seed)
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=TEXT_DIM,
        axes_dims_rope=(8, 12, 12),
    )
    for block in transformer.transformer_blocks:
        _zero(block.img_mod[1])
        _zero(block.txt_mod[1])
    _zero(transformer.norm_out.linear)
    _zero(transformer.proj_out)
    return transformer


def new_projector() -> nn.Sequential:
    """A face vector (128) -> the embedding of a word that stands for that face."""
    return nn.Sequential(nn.Linear(EMBEDDING, TEXT_DIM), nn.SiLU(), nn.Linear(TEXT_DIM, TEXT_DIM))


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Qwen-Image's scheduler with its published settings."""
    return FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        invert_sigmas=False,
        max_image_seq_len=8192,
        max_shift=0.9,
        num_train_timesteps=1000,
        shift=1.0,
        shift_terminal=0.02,
        stochastic_sampling=False,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    )


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
