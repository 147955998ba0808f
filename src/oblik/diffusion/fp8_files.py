"""A model from an fp8 safetensors file, kept at one byte per weight.

In: an empty model and a file of float8 e4m3fn weights, plain or with ComfyUI's scales (Micikevicius et al.
2022: w = s q). Out: the same model; its float8 linear layers stay float8 in memory and are widened one at
a time, in the forward and again in the backward pass. Everything else is cast to ``dtype``: biases, norms,
embeddings. ComfyUI's input scales are for float8 products, which are not used here, and are passed over.
Knows nothing of LoRA; a LoRA beside such a layer keeps its own dtype.

B batch and positions, I inputs, O outputs of a linear layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from oblik.diffusion.single_file import check_names, drop_marks, own_name
from oblik.errors import BackendUnavailable, PackBroken

FLOAT8 = torch.float8_e4m3fn
MARK = "scaled_fp8"
SCALES = (".scale_weight", ".weight_scale")
PASSED_OVER = (".scale_input", ".input_scale")
PACKING, METADATA = ".comfy_quant", "_quantization_metadata"
HARMLESS = {"format", "full_precision_matrix_mult"}


class Fp8Linear(nn.Linear):
    """y = x (s Q)^T + b, with Q (O, I) in float8 and s a number or one per output.

    ``weight`` holds Q's bytes as uint8 and ``scale_bits`` the bits of s as int32: a ``.to(dtype)`` of the
    whole model leaves both as they are, and PEFT, which copies a floating weight's dtype, does not make
    a float8 LoRA.
    """

    scale_bits: Tensor

    def __init__(self, like: nn.Linear, scale_shape: tuple[int, ...]) -> None:
        super().__init__(like.in_features, like.out_features, bias=like.bias is not None, device="meta")
        stored = torch.empty(like.weight.shape, dtype=torch.uint8, device="meta")
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.register_buffer("scale_bits", torch.empty(scale_shape, dtype=torch.int32, device="meta"))

    def widened(self, dtype: torch.dtype) -> Tensor:
        """s Q (O, I), computed in float32 and rounded once."""
        return (self.weight.view(FLOAT8).float() * self.scale_bits.view(torch.float32)).to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = _Product.apply(input, self)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """x W^T + b that keeps neither x nor the widened W for the backward pass: W is frozen."""

    @staticmethod
    def forward(ctx: Any, input_BI: Tensor, layer: Fp8Linear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(input_BI.dtype)
        return functional.linear(input_BI, layer.widened(input_BI.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_BO,) = gradients
        return gradient_BO @ ctx.layer.widened(gradient_BO.dtype), None


def read_fp8(
    model: Any,
    file: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    rename: Callable[[str], str] = own_name,
) -> None:
    """Fill the empty ``model`` from ``file``. A tensor that ``rename`` gives no name is not read.

    Raises:
        PackBroken: the file is damaged or does not fit the model.
        BackendUnavailable: its weights are packed in another way than e4m3fn.
    """
    try:
        stored = _read(file, device, rename)
    except (OSError, SafetensorError) as broken:
        raise PackBroken(f"{file.name} cannot be read: {broken}", hint="oblik pack verify") from broken
    scales = {_layer(name): stored.pop(name) for name in list(stored) if name.endswith(SCALES)}
    names = drop_marks(stored.keys(), model.config, file)
    check_names(names, model.state_dict().keys(), file)
    ready = {}
    for name, tensor in ((name, stored.pop(name)) for name in names):
        layer = _submodule(model, _layer(name))
        if tensor.dtype == FLOAT8 and isinstance(layer, nn.Linear) and name.endswith(".weight"):
            scale = _scale(scales.pop(_layer(name), torch.ones(())), layer, tensor.device, file)
            model.set_submodule(_layer(name), Fp8Linear(layer, tuple(scale.shape)))
            ready[name] = tensor.view(torch.uint8)
            ready[f"{_layer(name)}.scale_bits"] = scale.view(torch.int32)
        else:
            ready[name] = tensor.to(dtype)
    if scales:
        raise PackBroken(
            f"{file.name} scales {next(iter(scales))}, which is no float8 layer", hint="oblik pack verify"
        )
    try:
        model.load_state_dict(ready, assign=True)
    except RuntimeError as misfit:
        raise PackBroken(f"{file.name} does not fit: {misfit}", hint="oblik pack verify") from misfit


def _read(file: Path, device: torch.device, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The tensors under their own names, without what is passed over."""
    found = {}
    with safe_open(file, "pt", device=str(device)) as opened:
        _check_metadata((opened.metadata() or {}).get(METADATA), file)
        for key in list(opened.keys()):
            name = rename(key)
            if name in ("", MARK) or name.endswith(PASSED_OVER):
                continue
            tensor = opened.get_tensor(key)
            if name.endswith(PACKING):
                _check_packing(json.loads(bytes(tensor.tolist())), name, file)
                continue
            if tensor.dtype not in (FLOAT8, torch.float32, torch.bfloat16, torch.float16):
                raise _another_packing(name, str(tensor.dtype), file)
            found[name] = tensor
    return found


def _check_metadata(text: str | None, file: Path) -> None:
    for name, packing in json.loads(text)["layers"].items() if text else ():
        _check_packing(packing, name, file)


def _check_packing(packing: dict[str, Any], name: str, file: Path) -> None:
    """Only e4m3fn as such: no rotation, no other code."""
    if packing.get("format") != "float8_e4m3fn" or not packing.keys() <= HARMLESS:
        raise _another_packing(name, str(packing), file)


def _another_packing(name: str, how: str, file: Path) -> BackendUnavailable:
    return BackendUnavailable(
        f"{file.name} holds {name} as {how}; only float8_e4m3fn is read", hint="oblik pack list"
    )


def _scale(scale: Tensor, layer: nn.Linear, device: torch.device, file: Path) -> Tensor:
    """s as () or (O, 1), float32. Raises BackendUnavailable for scales of smaller blocks."""
    scale = scale.to(device, torch.float32)
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.shape in ((layer.out_features,), (layer.out_features, 1)):
        return scale.reshape(-1, 1)
    raise BackendUnavailable(
        f"{file.name} scales blocks of shape {tuple(scale.shape)}; one scale or one per output is read",
        hint="oblik pack list",
    )


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _submodule(model: Any, name: str) -> nn.Module | None:
    try:
        found: nn.Module = model.get_submodule(name)
    except AttributeError:
        return None
    return found
