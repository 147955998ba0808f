"""Real-valued rotary attention equals diffusers' processor."""

from __future__ import annotations

import pytest
import torch

from oblik.miniature.architecture import new_transformer
from oblik.miniature.fast_attention import RealRope, RealRopeProcessor


def test_it_computes_what_the_stock_processor_computes() -> None:
    transformer = new_transformer(0).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    call = {
        "hidden_states": torch.randn(2, 64, 64, generator=generator),
        "encoder_hidden_states": torch.randn(2, 11, 128, generator=generator),
        "timestep": torch.tensor([0.2, 0.8]),
        "img_shapes": [[(1, 8, 8)]] * 2,
        "return_dict": False,
    }
    with torch.no_grad():
        stock = transformer(**call)[0]
        transformer.pos_embed = RealRope(transformer.pos_embed)
        transformer.set_attn_processor(RealRopeProcessor())
        fast = transformer(**call)[0]
    assert stock.abs().mean() > 0.01
    assert torch.allclose(stock, fast, atol=2e-5)


def test_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="unpadded"):
        RealRopeProcessor()(None, torch.zeros(1), torch.zeros(1), encoder_hidden_states_mask=torch.ones(1))
