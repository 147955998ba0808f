"""A trigger token's embedding: learned alone, stored alone, put back alone.

In: a text encoder whose embedding table has a row for the token. Out: the row as a parameter of its
own. No other row is ever written: the table stays frozen and a hook replaces the token's row on the
way out (Gal et al. 2022, textual inversion). Knows nothing of prompts.

D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oblik.errors import LoraBroken

KEY = "token"


def first_guess(text_encoder: Any, noun_ids: list[int]) -> nn.Parameter:
    """A trainable row (D,) that starts as the mean of the class noun's rows."""
    table = text_encoder.get_input_embeddings().weight
    return nn.Parameter(table[noun_ids].detach().float().mean(0))


@contextmanager
def replaced(text_encoder: Any, token_id: int, row_D: Tensor) -> Iterator[None]:
    """Inside, the token's embedding is ``row_D`` (with its gradient); the table is untouched."""

    def swap(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.where((inputs[0] == token_id)[..., None], row_D.to(output.dtype), output)

    handle = text_encoder.get_input_embeddings().register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()


def make_room(text_encoder: Any, token_id: int) -> None:
    """Grow the embedding table when the token has no row yet; every row that is there keeps its values."""
    if token_id >= text_encoder.get_input_embeddings().weight.shape[0]:
        text_encoder.resize_token_embeddings(token_id + 1, mean_resizing=False)
        text_encoder.get_input_embeddings().weight.requires_grad_(False)


def export(rows: Mapping[str, Tensor], path: Path, trigger: str) -> None:
    """Write the learned rows: under ``token`` where there is one text encoder, else under each one's name."""
    names = [KEY] if len(rows) == 1 else list(rows)
    whole = {
        name: row.detach().float().cpu().contiguous() for name, row in zip(names, rows.values(), strict=True)
    }
    save_file(whole, path, metadata={"trigger": trigger})


def load(text_encoder: Any, token_id: int, path: Path, key: str = KEY) -> None:
    """Write the learned row into the table, growing it when the token has no row yet.

    Raises:
        LoraBroken: the row has another width than this pack's embeddings.
    """
    row = load_file(path)[key]
    table = text_encoder.get_input_embeddings().weight
    if row.shape[0] != table.shape[1]:
        raise LoraBroken(
            f"the token has width {row.shape[0]}, this pack's embeddings {table.shape[1]}",
            hint="a LoRA works on the pack that it was trained on: oblik pack list",
        )
    make_room(text_encoder, token_id)
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[token_id] = row.to(table.dtype)
