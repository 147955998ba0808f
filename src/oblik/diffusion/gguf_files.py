"""A transformer from a GGUF file (llama.cpp's block formats: Q8_0, Q6_K, Q4_K ...), kept packed.

In: a ``.gguf`` file and the folder with the transformer's ``config.json``. Out: a diffusers transformer
whose linear layers hold the file's blocks and unpack them at each use, in ``dtype``.
Knows nothing of LoRA.

Three traps of diffusers 0.42 are met here. Without ``config`` it takes the file for Stable Diffusion 1.5
and asks the internet; a prefix before the names leaves the model without weights; and a packed tensor
that is no linear layer's weight (a BF16 norm, a bias) would be used as raw bytes, so such are unpacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig
from torch import Tensor, nn

from oblik.diffusion.single_file import check_names, drop_marks, empty_transformer, own_name
from oblik.errors import BackendUnavailable, PackBroken


def read_gguf(family: Any, folder: Path, file: Path, dtype: torch.dtype) -> Any:
    """The transformer of class ``family`` in ``file``, on the CPU.

    Raises:
        PackBroken: the file is damaged or does not fit ``folder/config.json``.
        BackendUnavailable: the file is packed in a way that diffusers cannot unpack.
    """
    empty = empty_transformer(family, folder)
    tensors = _tensors(file)
    places = empty.state_dict()
    names = drop_marks(tensors.keys(), empty.config, file)
    check_names(names, places.keys(), file)
    packable = {f"{name}.weight" for name, module in empty.named_modules() if isinstance(module, nn.Linear)}
    weights = {name: tensors[name] if name in packable else _unpacked(tensors[name]) for name in names}
    try:
        return family.from_single_file(
            weights,
            config=str(folder),
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
            dtype=dtype,
            local_files_only=True,
        )
    except ValueError as misfit:
        raise PackBroken(f"{file.name} does not fit: {misfit}", hint="oblik pack verify") from misfit


def _tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor under diffusers' name; packed ones stay packed. BF16 is a number format, not a packing."""
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
    from gguf import GGMLQuantizationType as Packing
    from gguf import GGUFReader

    try:
        entries = GGUFReader(file).tensors
    except (OSError, ValueError, IndexError) as broken:
        raise PackBroken(f"{file.name} cannot be read: {broken}", hint="oblik pack verify") from broken
    found: dict[str, Tensor] = {}
    for entry in entries:
        values = torch.from_numpy(entry.data.copy())
        if entry.tensor_type == Packing.BF16:
            values = values.view(torch.bfloat16)
        elif entry.tensor_type not in (Packing.F32, Packing.F16):
            if entry.tensor_type not in SUPPORTED_GGUF_QUANT_TYPES:
                raise BackendUnavailable(
                    f"{file.name} holds {entry.name} as {entry.tensor_type.name}, unknown to diffusers",
                    hint="take a Q8_0, Q6_K, Q5_K or Q4_K file: oblik pack list",
                )
            values = GGUFParameter(values, quant_type=entry.tensor_type)
        found[own_name(entry.name)] = values
    return found


def _unpacked(tensor: Tensor) -> Tensor:
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    plain: Tensor = dequantize_gguf_tensor(tensor)
    return plain
