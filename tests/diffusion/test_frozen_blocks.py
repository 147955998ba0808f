"""Blocks for training compute what diffusers' blocks compute, and keep less for the gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor

from oblik.diffusion import lora
from oblik.diffusion.frozen_blocks import FrozenAttention, FrozenBlock, use_frozen_blocks
from oblik.diffusion.lean_lora import LeanLora
from oblik.miniature.architecture import new_transformer
from oblik.training.config import ATTENTION_TARGETS, MLP_TARGETS, TrainConfig


def alive(generator: torch.Generator, **changes: Any) -> tuple[Any, list[Any]]:
    """A frozen transformer without zeros, and its LoRA."""
    transformer = new_transformer(0).eval()
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    parameters = lora.attach(transformer, TrainConfig(**changes))
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    return transformer, parameters


def call(generator: torch.Generator, *, padded: bool = False) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(2, 64, 64, generator=generator),
        "encoder_hidden_states": torch.randn(2, 11, 128, generator=generator),
        "encoder_hidden_states_mask": torch.tensor([[1] * 11, [1] * 7 + [0] * 4]) if padded else None,
        "timestep": torch.tensor([0.2, 0.8]),
        "img_shapes": [[(1, 8, 8)]] * 2,
        "return_dict": False,
    }


def kept_bytes(transformer: Any, words: dict[str, Any]) -> int:
    """What autograd holds for the backward pass beside the weights, each storage once."""
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        assert transformer(**words)[0].requires_grad
    weights = {parameter.untyped_storage().data_ptr() for parameter in transformer.parameters()}
    return sum(size for place, size in found.items() if place not in weights)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("targets", [ATTENTION_TARGETS, ATTENTION_TARGETS + MLP_TARGETS])
def test_outputs_and_gradients_are_those_of_diffusers(padded: bool, targets: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    transformer, parameters = alive(generator, targets=targets)
    words = call(generator, padded=padded)
    words["encoder_hidden_states"].requires_grad_()
    wanted = [words["encoder_hidden_states"], *parameters]
    names = set(transformer.state_dict())
    stock = transformer(**words)[0]
    expected = torch.autograd.grad(stock.square().sum(), wanted, allow_unused=True)
    use_frozen_blocks(transformer)
    use_frozen_blocks(transformer)
    ours = transformer(**words)[0]
    found = torch.autograd.grad(ours.square().sum(), wanted, allow_unused=True)
    assert set(transformer.state_dict()) == names
    assert stock.abs().mean() > 0.01
    assert torch.allclose(stock, ours, atol=5e-5)
    for gradient, other in zip(expected, found, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None and other is not None:
            assert torch.allclose(gradient, other, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_in_half_precision_it_stays_near() -> None:
    generator = torch.Generator().manual_seed(0)
    transformer, _ = alive(generator)
    words = call(generator)
    exact = transformer(**words)[0]
    use_frozen_blocks(transformer)
    transformer.to(torch.bfloat16)
    half = {
        name: value.to(torch.bfloat16) if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in words.items()
    }
    rough = transformer(**half)[0]
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_less_is_kept_for_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    transformer, _ = alive(generator, targets=ATTENTION_TARGETS + MLP_TARGETS)
    words = call(generator)
    lean = [layer for layer in transformer.modules() if isinstance(layer, LeanLora)]
    for layer in lean:
        layer.__class__ = Linear
    stock = kept_bytes(transformer, words)
    for layer in lean:
        layer.__class__ = LeanLora
    use_frozen_blocks(transformer)
    assert kept_bytes(transformer, words) < 0.9 * stock


def test_gradient_checkpointing_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    transformer, parameters = alive(generator)
    use_frozen_blocks(transformer)
    words = call(generator)
    expected = torch.autograd.grad(transformer(**words)[0].square().sum(), parameters, allow_unused=True)
    transformer.enable_gradient_checkpointing()
    transformer.train()
    found = torch.autograd.grad(transformer(**words)[0].square().sum(), parameters, allow_unused=True)
    for gradient, other in zip(expected, found, strict=True):
        assert gradient is other is None or torch.equal(gradient, other)


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="no other"):
        FrozenAttention()(None, torch.zeros(1), torch.zeros(1), attention_mask=torch.ones(1))
    block = new_transformer(0).transformer_blocks[0]
    block.__class__ = FrozenBlock
    with pytest.raises(ValueError, match="one time"):
        block(torch.zeros(1), torch.zeros(1), None, torch.zeros(1), modulate_index=[0])
