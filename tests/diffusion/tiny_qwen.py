"""A random Qwen-Image transformer of two blocks, its inputs, and its LoRA file.

Its inner width is 256: llama.cpp's K formats pack 256 weights of a row together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from oblik.packs.manifest import Component, PackFile

CPU = torch.device("cpu")
WIDTH = 256
LORA_TARGETS = ("attn.to_q", "attn.add_k_proj", "img_mlp.net.2")


def transformer(**changed: Any) -> Any:
    """Random weights in float32, every tensor distinct from its initial constant."""
    torch.manual_seed(0)
    made = QwenImageTransformer2DModel(
        num_layers=changed.pop("num_layers", 2), num_attention_heads=4, attention_head_dim=64,
        axes_dims_rope=(16, 24, 24), joint_attention_dim=WIDTH, in_channels=64, out_channels=16, patch_size=2,
        **changed,
    )  # fmt: skip
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.1)
    return made.requires_grad_(False).eval()


def velocity(model: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """The model's answer to a fixed 4x4 latent and five text states."""
    chance = torch.Generator().manual_seed(1)
    answer: Tensor = model(
        hidden_states=torch.randn(1, 16, 64, generator=chance).to(dtype),
        timestep=torch.tensor([0.5]).to(dtype),
        encoder_hidden_states=torch.randn(1, 5, WIDTH, generator=chance).to(dtype),
        encoder_hidden_states_mask=None,
        img_shapes=[[(1, 4, 4)]],
        return_dict=False,
    )[0]
    return answer


def with_weights(values: dict[str, Tensor]) -> Any:
    """The transformer of plain layers with these values."""
    made = transformer()
    made.load_state_dict({name: value.float() for name, value in values.items()})
    return made


def distance(one: Tensor, other: Tensor) -> float:
    """|one - other| / |other|."""
    return float((one.float() - other.float()).norm().detach() / other.float().norm().detach())


def component(stored: str, *paths: str) -> Component:
    files = [PackFile(path=path, bytes=0, sha256="") for path in paths]
    return Component(source="test", licence="none", commercial_use=False, format=stored, files=files)


def pipeline_of(model: Any) -> Any:
    """A pipeline that is a transformer and nothing else: what LoRA loading needs."""
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        transformer=model,
    )


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def lora_tensors(rank: int = 4, alpha: float = 2.0) -> dict[str, Tensor]:
    """A LoRA in our own form on the first block, large enough to be seen."""
    chance = torch.Generator().manual_seed(2)
    tensors = {}
    for name, layer in linear_layers(transformer()).items():
        if name.startswith("transformer_blocks.0.") and name.endswith(LORA_TARGETS):
            key = f"diffusion_model.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, layer.in_features, generator=chance) * 0.3
            tensors[f"{key}.lora_B.weight"] = torch.randn(layer.out_features, rank, generator=chance) * 0.3
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


def write_lora(path: Path, tensors: dict[str, Tensor] | None = None) -> Path:
    save_file(lora_tensors() if tensors is None else tensors, path)
    return path


def with_lora(values: dict[str, Tensor], alpha: float = 2.0) -> dict[str, Tensor]:
    """W + (alpha / r) B A, by hand."""
    lora, changed = lora_tensors(alpha=alpha), dict(values)
    for key in [key for key in lora if key.endswith(".lora_A.weight")]:
        name = key.removeprefix("diffusion_model.").removesuffix(".lora_A.weight")
        down, up = lora[key], lora[key.replace("lora_A", "lora_B")]
        changed[f"{name}.weight"] = values[f"{name}.weight"].float() + alpha / down.shape[0] * (up @ down)
    return changed
