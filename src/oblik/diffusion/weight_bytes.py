"""How many bytes weights take: parameters by group, linear weights in each format.

In: networks (the meta device will do), names of formats. Out: numbers of parameters, bytes. Knows nothing of
activations and plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import nn


class Format(NamedTuple):
    """Bytes of a linear layer's weight: for each number, and for each row."""

    each: float
    row: float = 0.0


# GGUF: bytes of a block over its numbers (ggml-quants). torchao: a bfloat16 scale for each row; int4 a scale
# and a zero point for 128 numbers. NF4: a float32 for 64 numbers.
FORMATS = {
    "gguf-q8_0": Format(34 / 32),
    "torchao-int8": Format(1, 2),
    "gguf-q6_k": Format(210 / 256),
    "torchao-fp8": Format(1, 4),
    "fp8": Format(1),
    "gguf-q4_k": Format(144 / 256),
    "bnb-nf4": Format(0.5 + 4 / 64),
    "torchao-int4": Format(0.5 + 4 / 128),
}


class Census(NamedTuple):
    """Numbers of a group of parameters: in linear weights, rows of those, all others."""

    weights: int = 0
    rows: int = 0
    others: int = 0

    def bytes(self, name: str, size: int) -> int:
        """In a format; what is no linear weight stays in ``size`` bytes each."""
        format = FORMATS.get(name, Format(size))
        return math.ceil(self.weights * format.each + self.rows * format.row) + self.others * size


def census(model: nn.Module, group_of: Callable[[str], str]) -> dict[str, Census]:
    """The parameters of a model by group."""
    linear = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear)}
    found: dict[str, Census] = {}
    for name, parameter in model.named_parameters():
        group = group_of(name)
        old, numbers = found.get(group, Census()), parameter.numel()
        more = (numbers, parameter.shape[0], 0) if id(parameter) in linear else (0, 0, numbers)
        found[group] = Census(*(a + b for a, b in zip(old, more, strict=True)))
    return found


def transformer_group(name: str) -> str:
    """attention, mlp, modulation (with the time embedding), or rest: never quantised."""
    marks = {"_mod.": "modulation", "time_text_embed": "time", ".attn.": "attention", "_mlp.": "mlp"}
    return next((group for mark, group in marks.items() if mark in name), "rest")


def text_group(name: str) -> str:
    """layers, or the embeddings: never quantised."""
    return "layers" if ".layers." in name else "rest"


def lora_numbers(model: nn.Module, rank: int, wanted: Callable[[str], bool]) -> int:
    """Numbers of a LoRA on the linear layers whose names are wanted: r (in + out) for each."""
    return sum(
        rank * (part.in_features + part.out_features)
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and wanted(name)
    )
