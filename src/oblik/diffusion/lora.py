"""LoRA on a transformer: attach, export, load, and prove that every key matched.

In: a diffusers transformer or pipeline. Out: files with keys ``diffusion_model.<module>.lora_A/B.weight``
and ``.alpha``, which ComfyUI, diffusers and kohya-style tools all take. Hu et al. 2021: W + (alpha/r) B A.
Knows nothing of personas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from oblik.errors import LoraBroken
from oblik.training.config import TrainConfig

ADAPTER = "person"
PREFIX = "diffusion_model."


def attach(transformer: Any, config: TrainConfig) -> list[nn.Parameter]:
    """Add a fresh LoRA to the frozen transformer; its trainable parameters, in float32.

    Its output starts equal to the transformer's: B is zero.
    """
    torch.manual_seed(config.seed)
    transformer.requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=list(config.targets),
            init_lora_weights="gaussian",
        ),
        adapter_name=ADAPTER,
    )
    parameters = [p for p in transformer.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def export(transformer: Any, path: Path, alpha: float, metadata: Mapping[str, str] | None = None) -> None:
    """Write the attached LoRA. ``alpha`` is stored beside every module, ``metadata`` in the header."""
    weights = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    tensors = {PREFIX + name: value.detach().float().cpu().contiguous() for name, value in weights.items()}
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        tensors[name.removesuffix(".lora_A.weight") + ".alpha"] = torch.tensor(alpha)
    save_file(dict(sorted(tensors.items())), path, metadata={"format": "pt", **(metadata or {})})


def load(pipeline: Any, path: Path) -> None:
    """Load a LoRA file into a pipeline as the adapter "person".

    Raises:
        LoraBroken: a key of the file did not reach a module, or a module got another value.
    """
    shapes = _shapes(path)
    pipeline.load_lora_weights(
        path.parent, weight_name=path.name, adapter_name=ADAPTER, local_files_only=True
    )
    reached = dict(lora_layers(pipeline.transformer))
    missing = sorted(shapes.keys() ^ reached.keys())
    if missing:
        raise LoraBroken(
            f"{len(missing)} of {len(shapes)} LoRA modules do not fit this pack, for example {missing[0]}",
            hint="a LoRA works on the pack that it was trained on: oblik pack list",
        )
    for module, layer in reached.items():
        if tuple(layer.lora_B[ADAPTER].weight.shape) != shapes[module]:
            raise LoraBroken(f"the LoRA of {module} has another shape", hint="train it again: oblik train")


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Module names and shapes of B in a file. Raises LoraBroken for keys of another form."""
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
        unknown = [key for key in keys if not key.startswith(PREFIX)]
        modules = [key for key in keys if key.endswith(".lora_B.weight")]
        if unknown or not modules:
            example = unknown[0] if unknown else "none at all"
            raise LoraBroken(
                f"{path.name} holds {len(unknown)} keys of an unknown form, for example {example}",
                hint="train it again: oblik train",
            )
        return {
            key.removeprefix(PREFIX).removesuffix(".lora_B.weight"): tuple(file.get_slice(key).get_shape())
            for key in modules
        }


def lora_layers(transformer: Any) -> Iterator[tuple[str, Any]]:
    """Names and layers of the transformer that carry the adapter."""
    for name, module in transformer.named_modules():
        if hasattr(module, "lora_B") and ADAPTER in module.lora_B:
            yield name, module
