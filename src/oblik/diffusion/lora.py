"""LoRA on a transformer: attach, export, load, and prove that every key matched.

In: a diffusers transformer or pipeline. Out: files with keys ``diffusion_model.<module>.lora_A/B.weight``
and ``.alpha``, which ComfyUI, diffusers and kohya-style tools all take. Hu et al. 2021: W + (alpha/r) B A.
Knows nothing of personas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oblik.diffusion.lean_lora import make_lean
from oblik.diffusion.modulation import refuse_lora
from oblik.errors import InvalidInput, LoraBroken
from oblik.training.config import TARGETS, TrainConfig

ADAPTER = "person"
PREFIX = "diffusion_model."
ENDS = (".lora_A.weight", ".lora_B.weight", ".alpha")
Pair = tuple[Tensor, Tensor]


def attach(transformer: Any, config: TrainConfig) -> list[nn.Parameter]:
    """Add a fresh LoRA to the frozen transformer; its trainable parameters, in float32 and on its device.

    Its output starts equal to the transformer's: B is zero. Raises InvalidInput for targets that it lacks.
    """
    _check_targets(transformer, config.targets)
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
        parameter.data = parameter.data.to(transformer.device, torch.float32)
    make_lean(transformer)
    return parameters


def _check_targets(transformer: Any, targets: Sequence[str]) -> None:
    names = [f".{name}" for name, _ in transformer.named_modules()]
    missing = [target for target in targets if not any(name.endswith(f".{target}") for name in names)]
    of_words = {name for group in TARGETS.values() for name in group}
    typed = [target for target in missing if target not in of_words]
    if typed or len(missing) == len(targets):
        raise InvalidInput(
            f"this model has no layer called {(typed or missing)[0]!r}",
            hint=f"oblik train --targets {','.join(TARGETS)}",
        )


def export(transformer: Any, path: Path, alpha: float, metadata: Mapping[str, str] | None = None) -> None:
    """Write the attached LoRA. ``alpha`` is stored beside every module, ``metadata`` in the header."""
    weights = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    tensors = {PREFIX + name: value.detach().float().cpu().contiguous() for name, value in weights.items()}
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        tensors[name.removesuffix(".lora_A.weight") + ".alpha"] = torch.tensor(alpha)
    save_file(dict(sorted(tensors.items())), path, metadata={"format": "pt", **(metadata or {})})


def load(pipeline: Any, path: Path) -> None:
    """Load a LoRA file into a pipeline as the adapter "person": beside the weights, never fused into them.

    It computes in the transformer's dtype, also where the weights are packed.

    Raises:
        LoraBroken: a key of the file has no module, or a module did not get its value; or loading moved the
            transformer (diffusers has turned a packed one to sequential offload unasked).
    """
    transformer, pairs = pipeline.transformer, _read(path)
    refuse_lora(transformer, pairs)
    _check_fit(transformer, pairs)
    before = _places(transformer)
    named = {f"transformer.{module}.lora_A.weight": down for module, (down, _) in pairs.items()}
    named |= {f"transformer.{module}.lora_B.weight": up for module, (_, up) in pairs.items()}
    pipeline.load_lora_weights(named, adapter_name=ADAPTER)
    reached = dict(lora_layers(transformer))
    for module, layer in reached.items():
        got = layer.lora_A[ADAPTER].to(transformer.dtype), layer.lora_B[ADAPTER].to(transformer.dtype)
        wanted = pairs.get(module, ())
        if layer.scaling[ADAPTER] != 1 or not all(map(_holds, got, wanted)):
            raise LoraBroken(f"the LoRA of {module} was changed while it loaded", hint="oblik doctor")
    if reached.keys() != pairs.keys():
        raise LoraBroken(
            f"{len(reached.keys() & pairs.keys())} of {len(pairs)} LoRA modules loaded", hint="oblik doctor"
        )
    if _places(transformer) != before:
        raise LoraBroken(
            f"loading the LoRA moved the transformer from {before} to {_places(transformer)}",
            hint="load the LoRA before any offload is switched on",
        )


def _check_fit(transformer: Any, pairs: dict[str, Pair]) -> None:
    """Every module exists and has the width of its LoRA. Raises LoraBroken."""
    layers = {
        name.removesuffix(".base_layer"): layer
        for name, layer in transformer.named_modules()
        if isinstance(layer, nn.Linear)
    }
    unfit = [
        module
        for module, (down, up) in sorted(pairs.items())
        if module not in layers
        or (layers[module].in_features, layers[module].out_features) != (down.shape[1], up.shape[0])
    ]
    if unfit:
        raise LoraBroken(
            f"{len(unfit)} of {len(pairs)} LoRA modules do not fit this pack, for example {unfit[0]}",
            hint="a LoRA works on the pack that it was trained on: oblik pack list",
        )


def _holds(layer: nn.Linear, wanted: Tensor) -> bool:
    return torch.equal(layer.weight.detach().cpu(), wanted.to(layer.weight.dtype))


def _places(transformer: Any) -> list[str]:
    """The devices of its parameters."""
    return sorted({str(parameter.device) for parameter in transformer.parameters()})


def _read(path: Path) -> dict[str, Pair]:
    """A and (alpha / r) B of every module in a file.

    alpha is taken in here, for older releases of diffusers pass it over in this form of keys (0.41 does).

    Raises:
        LoraBroken: a key is of another form than ours. diffusers would pass over some without a word (DoRA's
            scale, a text encoder's keys, bare names), and A without B would do nothing.
    """
    tensors = load_file(path)
    down, up, alphas = (
        {key.removeprefix(PREFIX).removesuffix(end): value for key, value in tensors.items() if _is(key, end)}
        for end in ENDS
    )
    unknown = sorted(key for key in tensors if not any(_is(key, end) for end in ENDS))
    if unknown or not up:
        example = unknown[0] if unknown else "none at all"
        raise LoraBroken(
            f"{path.name} holds {len(unknown)} keys of an unknown form, for example {example}",
            hint="train it again: oblik train",
        )
    odd = sorted((down.keys() ^ up.keys()) | (alphas.keys() - up.keys()))
    if odd:
        raise LoraBroken(f"{path.name} holds half a LoRA of {odd[0]}", hint="train it again: oblik train")
    ranks = {module: values.shape[0] for module, values in down.items()}
    return {
        module: (down[module], up[module] * (float(alphas.get(module, ranks[module])) / ranks[module]))
        for module in sorted(up)
    }


def _is(key: str, end: str) -> bool:
    return key.startswith(PREFIX) and key.endswith(end)


def scale(network: Any, factor: float) -> None:
    """How strongly the attached LoRA acts, 1 being as it was trained."""
    for _, layer in lora_layers(network):
        layer.set_scale(ADAPTER, factor)


def lora_layers(transformer: Any) -> Iterator[tuple[str, Any]]:
    """Names and layers of the transformer that carry the adapter."""
    for name, module in transformer.named_modules():
        if hasattr(module, "lora_B") and ADAPTER in module.lora_B:
            yield name, module
