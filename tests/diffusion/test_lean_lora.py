"""A LoRA layer in one function computes what peft's layer computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear
from torch import nn

from oblik.diffusion.lean_lora import LeanLora, make_lean


def layer(*, bias: bool = True, **changes: Any) -> Any:
    """One frozen linear layer with a LoRA, as peft makes it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5, bias=bias)).requires_grad_(False)
    config = LoraConfig(r=2, lora_alpha=3.0, target_modules=["0"], **changes)
    made = inject_adapter_in_model(config, net, "person")[0]
    nn.init.normal_(made.lora_B["person"].weight)
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_output_and_gradients_are_those_of_peft(bias: bool, gelu: bool) -> None:
    made, x = layer(bias=bias), torch.randn(3, 4, 6, requires_grad=True)
    wanted = [x, made.lora_A["person"].weight, made.lora_B["person"].weight]
    expected = made(F.gelu(x, approximate="tanh") if gelu else x)
    gradients = torch.autograd.grad(expected.square().sum(), wanted)
    make_lean(made)
    assert type(made) is LeanLora
    found = made(x, gelu=gelu)
    assert torch.allclose(expected, found, atol=1e-6)
    for gradient, other in zip(gradients, torch.autograd.grad(found.square().sum(), wanted), strict=True):
        assert torch.allclose(gradient, other, atol=1e-5)


def test_an_input_without_a_gradient_is_fine() -> None:
    made, x = layer(), torch.randn(4, 6)
    make_lean(made)
    (gradient,) = torch.autograd.grad(made(x).sum(), [made.lora_B["person"].weight])
    assert gradient.shape == (5, 2)


def test_a_layer_that_is_switched_off_is_its_base() -> None:
    made, x = layer(), torch.randn(4, 6)
    make_lean(made)
    made.enable_adapters(False)
    assert torch.equal(made(x), made.base_layer(x))


def test_its_scale_can_be_changed() -> None:
    made, x = layer(), torch.randn(4, 6)
    make_lean(made)
    full = made(x) - made.base_layer(x)
    made.set_scale("person", 0.5)
    assert torch.allclose(made(x) - made.base_layer(x), full / 2, atol=1e-6)


@pytest.mark.parametrize("other", ["dropout", "type"])
def test_what_is_not_plain_is_left_to_peft(other: str) -> None:
    made = layer(lora_dropout=0.5 if other == "dropout" else 0.0)
    if other == "type":
        made.base_layer.to(torch.bfloat16)
    x = torch.randn(4, 6, dtype=made.base_layer.weight.dtype)
    torch.manual_seed(1)
    expected = made(x)
    assert type(made) is Linear
    make_lean(made)
    torch.manual_seed(1)
    assert torch.equal(made(x), expected)
