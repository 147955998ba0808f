"""A transformer or a text encoder in the format that its pack stores, or packed as it is read.

In: a pack's folder, one of its components, and how to hold its weights. Out: the diffusers or transformers
model on its device. Never goes online. A packed model refuses to have a LoRA fused into it: requantising
rounds the LoRA away. Which format fits a card is decided elsewhere.

The parts of Qwen-Image's transformer: attention, MLP and modulation of its blocks; what stands before and
after the blocks keeps ``dtype``.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from diffusers import QwenImageTransformer2DModel
from pydantic import BaseModel, ConfigDict
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from oblik.diffusion.fp8_files import read_fp8
from oblik.diffusion.single_file import empty_text_encoder, empty_transformer, only_file, text_encoder_name
from oblik.errors import BackendUnavailable, InvalidInput, LoraBroken, PackBroken
from oblik.packs.manifest import Component

Scheme = Literal["none", "torchao-int8", "torchao-fp8", "torchao-int4", "bnb-nf4"]
PARTS = {"attention": ("attn",), "mlp": ("img_mlp", "txt_mlp"), "modulation": ("img_mod", "txt_mod")}
OUTSIDE = ("img_in", "txt_in", "time_text_embed", "norm_out", "proj_out")
INT4_GROUP = 32
STORED = ("diffusers", "gguf", "fp8")


class Quantisation(BaseModel):
    """How the blocks' linear layers are packed while a diffusers folder is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attention: Scheme = "none"
    mlp: Scheme = "none"
    modulation: Scheme = "none"

    @classmethod
    def all(cls, scheme: Scheme) -> Quantisation:
        """The same for all of the blocks."""
        return cls(attention=scheme, mlp=scheme, modulation=scheme)

    @property
    def by_part(self) -> dict[str, Scheme]:
        """The parts that are packed."""
        schemes: dict[str, Scheme] = {
            "attention": self.attention,
            "mlp": self.mlp,
            "modulation": self.modulation,
        }
        return {part: scheme for part, scheme in schemes.items() if scheme != "none"}


AS_STORED = Quantisation()


def load_transformer(
    folder: Path, component: Component, how: Quantisation, *, dtype: torch.dtype, device: torch.device
) -> Any:
    """The transformer of the pack in ``folder``, computing in ``dtype`` on ``device``.

    A folder is read from where the component's config.json lies; a one-file transformer has it beside it, so
    that an edit transformer may lie elsewhere in the pack.

    Raises:
        BackendUnavailable: a package or a GPU that the format needs is missing, or no loader knows it.
        InvalidInput: a stored packing would be packed again.
        PackBroken: the files do not fit their configuration.
    """
    _check_request(component, bool(how.by_part))
    configs = (Path(file.path) for file in component.files if file.path.endswith("config.json"))
    place = folder / next((config.parent for config in configs), Path("transformer"))
    family = QwenImageTransformer2DModel
    if component.format == "diffusers":
        transformer = _load_folder(family, place, how, dtype, device)
    elif component.format == "gguf":
        from oblik.diffusion.gguf_files import read_gguf

        file = only_file(folder, component, ".gguf")
        transformer = read_gguf(family, file.parent, file, dtype)
    else:
        file = only_file(folder, component, ".safetensors")
        transformer = empty_transformer(family, file.parent)
        read_fp8(transformer, file, dtype=dtype, device=device)
    if component.format != "diffusers" or how.by_part:
        transformer.fuse_lora = _refuse_fusing
    return transformer.eval().to(device)


def load_text_encoder(
    folder: Path, component: Component, scheme: Scheme, *, dtype: torch.dtype, device: torch.device
) -> Any:
    """The text encoder in ``folder/text_encoder``; raises as `load_transformer`.

    A one-file text encoder has no output head: pictures are made from the states before it.
    """
    _check_request(component, scheme != "none")
    place = folder / "text_encoder"
    family = Qwen2_5_VLForConditionalGeneration
    if component.format == "gguf":
        raise BackendUnavailable(
            "a text encoder in GGUF is not read: its vision part lies in a file of llama.cpp's own kind",
            hint="take the pack's fp8 text encoder, or a folder packed as it is read (bnb-nf4, torchao-int8)",
        )
    if component.format == "fp8":
        file = only_file(folder, component, ".safetensors")
        encoder = empty_text_encoder(family, file.parent)
        read_fp8(encoder, file, dtype=dtype, device=device, rename=text_encoder_name)
        return encoder.eval().to(device)
    options = _text_encoder_packing(scheme, dtype, device)
    encoder = family.from_pretrained(place, dtype=dtype, local_files_only=True, **options)
    if scheme != "none":
        _check_packed(encoder, r"model\.language_model\.layers\..*", scheme)
    return encoder.eval() if "device_map" in options else encoder.eval().to(device)


def require(package: str, extra: str) -> None:
    """Raise BackendUnavailable with the install command when ``package`` is missing."""
    if find_spec(package) is None:
        raise BackendUnavailable(
            f"this format needs the package {package}", hint=f"pip install 'oblik[{extra}]'"
        )


def _check_request(component: Component, packs: bool) -> None:
    if component.format not in STORED:
        raise BackendUnavailable(
            f"no loader knows the format {component.format!r}; known: {', '.join(STORED)}",
            hint="oblik pack list",
        )
    if packs and component.format != "diffusers":
        raise InvalidInput(
            f"the file is packed already ({component.format}); only a folder is packed as it is read",
            hint="oblik pack list",
        )


def _load_folder(
    family: Any, place: Path, how: Quantisation, dtype: torch.dtype, device: torch.device
) -> Any:
    options: dict[str, Any] = {}
    if how.by_part:
        schemes = set(how.by_part.values())
        if "bnb-nf4" in schemes:
            options["quantization_config"] = _nf4(how, dtype, device)
        else:
            _check_groups(empty_transformer(family, place), how)
            options["quantization_config"] = _torchao(how, device)
        # On a CPU a device map means offload to torchao, and offloaded weights are left unpacked.
        options |= {} if device.type == "cpu" else {"device_map": {"": device}}
    try:
        transformer = family.from_pretrained(place, dtype=dtype, local_files_only=True, **options)
    except (OSError, ValueError) as broken:
        raise PackBroken(f"the transformer cannot be loaded: {broken}", hint="oblik pack verify") from broken
    for part, scheme in how.by_part.items():
        _check_packed(transformer, _inside(part), scheme)
    return transformer


def _inside(part: str) -> str:
    """Pattern of the names of what lies in ``part`` of a block."""
    return rf".*\.({'|'.join(PARTS[part])})\..*"


def _torchao(how: Quantisation, device: torch.device) -> Any:
    """diffusers' configuration; what no pattern names stays as it is."""
    require("torchao", "quantised")
    from diffusers import TorchAoConfig
    from torchao.quantization import FqnToConfig

    parts = {f"re:{_inside(part)}": _torchao_scheme(scheme, device) for part, scheme in how.by_part.items()}
    return TorchAoConfig(FqnToConfig(parts))


def _torchao_scheme(scheme: Scheme, device: torch.device) -> Any:
    """Weight-only schemes of torchao: int8 and float8 per output, int4 per group of 32 inputs.

    torchao has no packed int4 for a CPU; there a group's int4 values stand in a byte each.
    """
    from torchao import quantization as ao

    if scheme == "torchao-int8":
        return ao.Int8WeightOnlyConfig()
    if scheme == "torchao-fp8":
        return ao.Float8WeightOnlyConfig()
    if device.type == "cuda":
        return ao.Int4WeightOnlyConfig(group_size=INT4_GROUP, int4_packing_format="tile_packed_to_4d")
    return ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        granularity=ao.PerGroup(INT4_GROUP),
    )


def _nf4(how: Quantisation, dtype: torch.dtype, device: torch.device) -> Any:
    if set(how.by_part.values()) != {"bnb-nf4"}:
        raise InvalidInput("bnb-nf4 and torchao cannot be mixed in one transformer", hint="oblik pack list")
    _check_nf4(device)
    from diffusers import BitsAndBytesConfig

    plain = [name for part, names in PARTS.items() if part not in how.by_part for name in names]
    return BitsAndBytesConfig(llm_int8_skip_modules=[*OUTSIDE, *plain], **_nf4_options(dtype))


def _nf4_options(dtype: torch.dtype) -> dict[str, Any]:
    """NF4 with double quantisation off, computing in ``dtype`` (Dettmers et al. 2023, section 3)."""
    return {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}


def _check_nf4(device: torch.device) -> None:
    if device.type != "cuda":
        raise BackendUnavailable(
            f"bnb-nf4 needs an NVIDIA GPU: diffusers packs nothing with bitsandbytes on {device.type}",
            hint="take torchao-int8, or a GGUF pack: oblik pack list",
        )
    require("bitsandbytes", "gpu")


def _text_encoder_packing(scheme: Scheme, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    if scheme == "none":
        return {}
    if scheme == "bnb-nf4":
        _check_nf4(device)
        from transformers import BitsAndBytesConfig

        return {"quantization_config": BitsAndBytesConfig(**_nf4_options(dtype)), "device_map": {"": device}}
    require("torchao", "quantised")
    from transformers import TorchAoConfig

    # The vision part's 3,420 inputs are no whole number of int4 groups, and the head's answer is not used.
    config = TorchAoConfig(
        quant_type=_torchao_scheme(scheme, device), modules_to_not_convert=["model.visual", "lm_head"]
    )
    packing = {"quantization_config": config}
    return packing | ({} if device.type == "cpu" else {"device_map": {"": device}})


def _check_groups(empty: Any, how: Quantisation) -> None:
    """int4 packs whole groups. Raises InvalidInput."""
    parts = [part for part, scheme in how.by_part.items() if scheme == "torchao-int4"]
    for name, module in empty.named_modules():
        packs = isinstance(module, nn.Linear) and any(re.fullmatch(_inside(part), name) for part in parts)
        if packs and module.in_features % INT4_GROUP:
            raise InvalidInput(
                f"{name} has {module.in_features} inputs; torchao-int4 packs {INT4_GROUP} together",
                hint="oblik pack list",
            )


def _check_packed(model: Any, pattern: str, scheme: Scheme) -> None:
    """Libraries pass over layers that they cannot pack, without a word. Raises BackendUnavailable."""
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.fullmatch(pattern, name)
    }
    plain = [name for name, layer in layers.items() if type(layer.weight) is nn.Parameter]
    if plain or not layers:
        raise BackendUnavailable(
            f"{len(plain)} of {len(layers)} layers cannot be held as {scheme}, for example "
            f"{plain[0] if plain else pattern}",
            hint="oblik pack list",
        )


def _refuse_fusing(*_args: Any, **_options: Any) -> NoReturn:
    raise LoraBroken(
        "a LoRA is not fused into a packed transformer: packing it again would round the LoRA away",
        hint="leave it beside the weights (set_adapters), or take the pack's unpacked transformer",
    )
