"""The loss that shows an early block of the transformer what the landmark network sees."""

from __future__ import annotations

import numpy as np
import torch

from oblik.miniature.alignment import SEEN, Alignment, see_corpus
from oblik.miniature.architecture import TEXT_DIM, new_transformer
from oblik.miniature.face_networks import Landmarks
from oblik.progress import SilentProgress


def test_it_reads_the_states_of_one_block_and_teaches_only_what_comes_before() -> None:
    transformer = new_transformer(0)
    alignment = Alignment(transformer, 2, 0)
    transformer(
        hidden_states=torch.randn(2, 64, 64), encoder_hidden_states=torch.randn(2, 5, TEXT_DIM),
        timestep=torch.tensor([0.3, 0.8]), img_shapes=[[(1, 8, 8)]], return_dict=False,
    )  # fmt: skip
    loss = alignment(torch.randn(2, 64, SEEN), torch.ones(2, 64))
    assert 0 < float(loss.detach()) < 2
    loss.backward()
    taught = [block.attn.to_q.weight.grad is not None for block in transformer.transformer_blocks]
    assert taught == [True, True, True, False, False, False]


def test_what_the_network_sees_lies_where_its_tokens_lie() -> None:
    torch.manual_seed(0)
    images = np.full((2, 128, 128, 3), 128, np.uint8)
    images[1, 64:80, 32:48] = 255  # row 4, column 2 of 8 x 8 tokens
    seen = see_corpus(Landmarks().eval(), images, SilentProgress()).astype(np.float32)
    assert seen.shape == (2, 64, SEEN)
    change = np.abs(seen[1] - seen[0]).mean(-1).reshape(8, 8)
    row, column = np.unravel_index(change.argmax(), (8, 8))
    assert abs(row - 4) <= 1
    assert abs(column - 2) <= 1
