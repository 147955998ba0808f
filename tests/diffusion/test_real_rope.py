"""Real-valued rotary attention equals diffusers' processor."""

from __future__ import annotations

import pytest
import torch

from oblik.diffusion.real_rope import RealRopeProcessor, use_real_rope
from oblik.miniature.architecture import new_transformer


@pytest.mark.parametrize("padded", [False, True])
def test_it_computes_what_the_stock_processor_computes(padded: bool) -> None:
    transformer = new_transformer(0).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    names = set(transformer.state_dict())
    call = {
        "hidden_states": torch.randn(2, 64, 64, generator=generator),
        "encoder_hidden_states": torch.randn(2, 11, 128, generator=generator),
        "encoder_hidden_states_mask": torch.tensor([[1] * 11, [1] * 7 + [0] * 4]) if padded else None,
        "timestep": torch.tensor([0.2, 0.8]),
        "img_shapes": [[(1, 8, 8)]] * 2,
        "return_dict": False,
    }
    stock = transformer(**call)[0]
    (stock_grad,) = torch.autograd.grad(stock.square().sum(), transformer.img_in.weight)
    use_real_rope(transformer)
    use_real_rope(transformer)
    real = transformer(**call)[0]
    (real_grad,) = torch.autograd.grad(real.square().sum(), transformer.img_in.weight)
    assert set(transformer.state_dict()) == names
    assert stock.abs().mean() > 0.01
    assert torch.allclose(stock, real, atol=2e-5)
    assert torch.allclose(stock_grad, real_grad, rtol=1e-3, atol=1e-3 * float(stock_grad.abs().max()))


def test_any_other_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="no other"):
        RealRopeProcessor()(None, torch.zeros(1), torch.zeros(1), attention_mask=torch.ones(1))
