"""LoRA of a U-Net and its CLIP encoders in one file, under the names of kohya's trainer.

    lora_unet_<module>.lora_down.weight, .lora_up.weight, .alpha      the U-Net
    lora_te_text_model_<module>...                                    the encoder of Stable Diffusion 1.5
    lora_te1_..., lora_te2_...                                        both of SDXL

In: networks with the adapter attached, or a pipeline and such a file. Out: the file, whose names diffusers,
ComfyUI and sd-scripts share; the adapter, with the proof that every key matched. SDXL's U-Net has the block
names that sd-scripts gives it (``input_blocks_4_1``). Knows nothing of prompts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from oblik.diffusion.lora import ADAPTER, lora_layers
from oblik.errors import LoraBroken

ONE, TWO = {"clip_l": "lora_te_"}, {"clip_l": "lora_te1_", "clip_g": "lora_te2_"}
UNET, DOWN, UP, ALPHA = "lora_unet_", ".lora_down.weight", ".lora_up.weight", ".alpha"
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.(.*)")


def export(network: Any, encoders: Mapping[str, Any], path: Path, metadata: Mapping[str, str]) -> None:
    """Write what is attached to the U-Net, and to the encoders where they carry the adapter."""
    layers = dict(lora_layers(network))
    names = _unet_names(list(layers), network.config.layers_per_block, is_xl=len(encoders) == 2)
    named = [(UNET + names[module], layer) for module, layer in layers.items()]
    for encoder, prefix in (TWO if len(encoders) == 2 else ONE).items():
        for module, layer in lora_layers(encoders[encoder]):
            named.append((f"{prefix}text_model_{module.removeprefix('text_model.')}", layer))
    tensors = {}
    for name, layer in named:
        key = name.replace(".", "_")
        tensors[key + DOWN], tensors[key + UP] = _weights(layer)
        tensors[key + ALPHA] = torch.tensor(float(layer.lora_alpha[ADAPTER]))
    whole = {name: value.detach().float().cpu().contiguous() for name, value in sorted(tensors.items())}
    save_file(whole, path, metadata={"format": "pt", **metadata})


def load(pipeline: Any, encoders: Mapping[str, Any], path: Path) -> None:
    """Attach a file's LoRA as diffusers does, cast to the networks' type and beside their weights.

    Raises:
        LoraBroken: a key is of another form, or one of its tensors did not arrive.
    """
    pairs = _pairs(load_file(path), path.name)
    try:
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=ADAPTER)
    except (KeyError, ValueError, RuntimeError) as unfit:
        raise _broken(f"{path.name} does not fit this pack: {unfit}") from unfit
    known: dict[torch.dtype, dict[bytes, str]] = {}
    reached = set()
    for network in (pipeline.unet, *encoders.values()):
        for module, layer in lora_layers(network):
            down, up = _weights(layer)
            if up.dtype not in known:
                known[up.dtype] = {_digest(d, u, up.dtype): name for name, (d, u, _) in pairs.items()}
            name = known[up.dtype].get(_digest(down, up, up.dtype))
            if name is None or abs(layer.scaling[ADAPTER] - pairs[name][2]) > 1e-6:
                raise _broken(f"the LoRA of {module} was changed while it loaded")
            reached.add(name)
    if lost := sorted(pairs.keys() - reached):
        raise _broken(f"{len(lost)} of {len(pairs)} LoRA modules found no place, for example {lost[0]}")


def _pairs(tensors: Mapping[str, Tensor], file: str) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Down, up and alpha / rank by module. Raises LoraBroken for a key that is no part of a pair."""
    ends = (DOWN, UP, ALPHA)
    unknown = [key for key in tensors if not (key.startswith("lora_") and key.endswith(ends))]
    modules = {key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)}
    unknown += [key for key in tensors if key.endswith(ends[1:]) and key.partition(".")[0] not in modules]
    unknown += [module for module in modules if module + UP not in tensors]
    if unknown or not modules:
        example = sorted(unknown)[0] if unknown else "none at all"
        raise _broken(f"{file} holds {len(unknown)} keys of an unknown form, for example {example}")
    pairs = {}
    for module in sorted(modules):
        down, up = tensors[module + DOWN], tensors[module + UP]
        alpha = float(tensors.get(module + ALPHA, torch.tensor(float(len(down)))))
        pairs[module] = (down, up, alpha / len(down))
    return pairs


def _digest(down: Tensor, up: Tensor, dtype: torch.dtype) -> bytes:
    """What tells a pair's numbers from all others', in a type."""
    found = hashlib.sha256()
    for part in (down, up):
        found.update(
            part.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return found.digest()


def _unet_names(modules: Iterable[str], per_block: int, *, is_xl: bool) -> dict[str, str]:
    """Names in the file. SDXL's as in sd-scripts, unless a module is none that has such a name here.

    diffusers would drop half of a file that has both kinds.
    """
    plain = {module: module for module in modules}
    renamed = {module: _sgm(module, per_block) for module in plain}
    return {k: v for k, v in renamed.items() if v} if is_xl and all(renamed.values()) else plain


def _sgm(module: str, per_block: int) -> str | None:
    """``down_blocks.1.attentions.0.x`` -> ``input_blocks.4.1.x``, with two layers a block."""
    if module.startswith("mid_block.attentions.0."):
        return module.replace("mid_block.attentions.0", "middle_block.1", 1)
    match = _BLOCK.fullmatch(module)
    if match is None:
        return None
    place = (per_block + 1) * int(match[2]) + int(match[3])
    return (
        f"input_blocks.{place + 1}.1.{match[4]}"
        if match[1] == "down"
        else f"output_blocks.{place}.1.{match[4]}"
    )


def _weights(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _broken(message: str) -> LoraBroken:
    return LoraBroken(message, hint="a LoRA works on the pack that it was trained on: oblik pack list")
