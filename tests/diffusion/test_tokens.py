"""One row of an embedding table, learned and put back alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from oblik.diffusion import tokens
from oblik.errors import LoraBroken


class Encoder(nn.Module):
    """As much of a text encoder as tokens need."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def resize_token_embeddings(self, rows: int, mean_resizing: bool) -> None:
        grown = nn.Embedding(rows, 4)
        grown.weight.data[: self.table.num_embeddings] = self.table.weight.data
        self.table = grown


def test_the_first_guess_is_the_mean_of_the_noun() -> None:
    encoder = Encoder()
    assert torch.allclose(tokens.first_guess(encoder, [1, 3]), encoder.table.weight[[1, 3]].mean(0))


def test_the_row_is_replaced_inside_only_and_takes_the_gradient() -> None:
    encoder = Encoder()
    encoder.table.weight.requires_grad_(False)
    row = nn.Parameter(torch.full((4,), 9.0))
    ids = torch.tensor([[1, 5, 2]])
    with tokens.replaced(encoder, 5, row):
        out = encoder.table(ids)
        out.sum().backward()
    assert torch.equal(out[0, 1], row)
    assert torch.equal(out[0, 0], encoder.table.weight[1])
    assert row.grad is not None
    assert torch.equal(row.grad, torch.ones(4))
    assert not torch.equal(encoder.table(ids)[0, 1], row)


def test_a_stored_row_comes_back_and_the_table_grows_for_it(tmp_path: Path) -> None:
    encoder, row = Encoder(), torch.arange(4.0)
    before = encoder.table.weight.detach().clone()
    tokens.export({"qwen": row}, tmp_path / "t.safetensors", "<x>")
    tokens.load(encoder, 7, tmp_path / "t.safetensors")
    assert encoder.table.num_embeddings == 8
    assert torch.equal(encoder.table.weight[7], row)
    assert torch.equal(encoder.table.weight[:6], before)


def test_a_row_of_another_width_is_refused(tmp_path: Path) -> None:
    tokens.export({"qwen": torch.zeros(5)}, tmp_path / "t.safetensors", "<x>")
    with pytest.raises(LoraBroken, match="width 5"):
        tokens.load(Encoder(), 1, tmp_path / "t.safetensors")
