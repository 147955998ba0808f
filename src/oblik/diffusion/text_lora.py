"""LoRA on the upper layers of text encoders: attach, export with ComfyUI's names, load back.

In: text encoders by ComfyUI's names for them (``qwen25_7b``, ``clip_l``, ``clip_g``). Out: trainable
parameters, and ``text_encoder.safetensors`` with keys
``text_encoders.<name>.transformer.<path>.layers.N.self_attn.q_proj.lora_A.weight`` and ``.alpha``: the only
form in which ComfyUI takes a text-encoder LoRA for Qwen-Image. Knows nothing of prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oblik.diffusion.lora import ADAPTER, lora_layers
from oblik.errors import LoraBroken

PATHS = {"qwen25_7b": "model.", "clip_l": "text_model.encoder.", "clip_g": "text_model.encoder."}
"""Where ComfyUI's own classes keep the layers of an encoder."""
_PROJECTION = re.compile(r"(layers\.(\d+)\.self_attn\.(?:q_proj|k_proj|v_proj|o_proj|out_proj))$")


def attach(encoder: Any, layers: int, rank: int, alpha: float, seed: int) -> list[nn.Parameter]:
    """Add a fresh LoRA to the attention of the upper ``layers`` layers; its parameters, in float32."""
    torch.manual_seed(seed)
    names = [name for name, _ in _upper(encoder, layers)]
    _add(encoder, names, rank, alpha)
    encoder.set_adapter(ADAPTER)
    parameters = [p for _, layer in lora_layers(encoder) for p in _weights(layer)]
    for parameter in parameters:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return parameters


def export(encoders: Mapping[str, Any], path: Path) -> None:
    """Write the attached LoRA of every encoder; no file where none is attached."""
    tensors: dict[str, Tensor] = {}
    for name, encoder in encoders.items():
        for module, layer in lora_layers(encoder):
            key = f"text_encoders.{name}.transformer.{PATHS[name]}{_tail(module)}"
            down, up = _weights(layer)
            tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"] = down, up
            tensors[f"{key}.alpha"] = torch.tensor(float(layer.lora_alpha[ADAPTER]))
    whole = {key: value.detach().float().cpu().contiguous() for key, value in sorted(tensors.items())}
    if whole:
        save_file(whole, path, metadata={"format": "pt"})


def load(encoders: Mapping[str, Any], path: Path) -> None:
    """Attach the LoRA of a file, each to its encoder, cast to the encoder's type and never merged.

    Raises:
        LoraBroken: a key of the file fits no layer, or has another shape.
    """
    if not path.is_file():
        return
    left = load_file(path)
    for name, encoder in encoders.items():
        prefix = f"text_encoders.{name}.transformer.{PATHS[name]}"
        mine = {key.removeprefix(prefix): left.pop(key) for key in list(left) if key.startswith(prefix)}
        if mine:
            _put(encoder, mine)
    if left:
        raise _broken(f"{len(left)} keys fit no text encoder, for example {next(iter(left))}")


def _put(encoder: Any, tensors: dict[str, Tensor]) -> None:
    tails = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    known = {_tail(name): name for name, _ in _upper(encoder, None)}
    if not tails or tails - known.keys():
        raise _broken(f"layers that this pack lacks, for example {next(iter(tails - known.keys()), 'none')}")
    first = sorted(tails)[0]
    alpha = float(tensors[f"{first}.alpha"])
    _add(encoder, [known[tail] for tail in tails], len(tensors[f"{first}.lora_A.weight"]), alpha)
    for module, layer in lora_layers(encoder):
        for part, name in zip(_weights(layer), ("lora_A", "lora_B"), strict=True):
            value = tensors[f"{_tail(module)}.{name}.weight"]
            if part.shape != value.shape:
                raise _broken(f"the text LoRA of {module} has another shape")
            part.data = value.to(part.device, encoder.dtype)
    encoder.set_adapter(ADAPTER)
    encoder.requires_grad_(False)


def _add(encoder: Any, names: Sequence[str], rank: int, alpha: float) -> None:
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(names), init_lora_weights="gaussian")
    encoder.add_adapter(config, adapter_name=ADAPTER)


def _upper(encoder: Any, layers: int | None) -> Iterator[tuple[str, nn.Module]]:
    """The attention projections of the text layers, of the upper ``layers`` or of all."""
    found = [
        (name, module, int(match[2]))
        for name, module in encoder.named_modules()
        if (match := _PROJECTION.search(name)) and "visual" not in name
    ]
    count = 1 + max((number for _, _, number in found), default=-1)
    lowest = 0 if layers is None else max(0, count - layers)
    return ((name, module) for name, module, number in found if number >= lowest)


def _tail(module: str) -> str:
    match = _PROJECTION.search(module)
    assert match is not None, module
    return match[1]


def _weights(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _broken(message: str) -> LoraBroken:
    return LoraBroken(message, hint="a LoRA works on the pack that it was trained on: oblik pack list")
