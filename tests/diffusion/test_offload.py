"""Blocks that wait in RAM, with a fence: at home their tensors are spoiled, only a copy holds the truth."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tests.diffusion import tiny_qwen
from tests.diffusion.test_load_gguf import read, write
from tests.diffusion.tiny_qwen import CPU, velocity
from torch import Tensor, nn

from oblik.diffusion.fp8_files import FLOAT8, Fp8Linear
from oblik.diffusion.offload import keep_in_ram, move

BLOCKS = 5
WATCHED = "attn.to_q"


class Fence:
    """Lets ``count`` blocks of a model wait; ``came`` are the blocks that were copied, in order."""

    def __init__(self, model: Any, count: int) -> None:
        self.model, self.came = model, list[int]()
        self.true: dict[int, Tensor] = {}
        self.watched: dict[int, int] = {}
        self.copies: list[weakref.ref[Any]] = []
        self.most = 0
        keep_in_ram(model, count, CPU, self._copy)
        for block in model.waiting._slots:
            for slot in block:
                self.true[id(slot.home)] = slot.home.detach().clone()
                slot.home.detach().view(torch.uint8).fill_(0xFF)  # not a number, as float32
        for place, block in enumerate(model.transformer_blocks):
            layer = block.get_submodule(WATCHED)
            self.watched[id(getattr(layer, "base_layer", layer).weight)] = place

    def _copy(self, home: Tensor) -> Tensor:
        copy = self.true[id(home)].clone()
        if id(home) in self.watched:
            self.came.append(self.watched[id(home)])
            self.copies.append(weakref.ref(copy.untyped_storage()))
            self.most = max(self.most, sum(each() is not None for each in self.copies))
        return copy


def plain(_: Path) -> Any:
    return tiny_qwen.transformer(num_layers=BLOCKS)


def gguf(folder: Path) -> Any:
    write(folder, "Q8_0", num_layers=BLOCKS)
    return read(folder)


def fp8(_: Path) -> Any:
    """Its layers read their weights again in the backward pass."""
    model = plain(_)
    for name, layer in list(model.transformer_blocks.named_modules()):
        if isinstance(layer, nn.Linear):
            packed = Fp8Linear(layer, (1,))
            packed.weight = nn.Parameter(layer.weight.to(FLOAT8).view(torch.uint8), requires_grad=False)
            packed.bias, packed.scale_bits = layer.bias, torch.ones(1).view(torch.int32)
            model.transformer_blocks.set_submodule(name, packed)
    return model


def learn(model: Any) -> list[Tensor]:
    """Gradients of a LoRA after a checkpointed step."""
    torch.manual_seed(3)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "img_mlp.net.2"], init_lora_weights=False))
    model.enable_gradient_checkpointing()
    velocity(model).square().mean().backward()
    return [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]


def test_pictures_are_the_same_and_blocks_come_in_order(tmp_path: Path) -> None:
    fence = Fence(plain(tmp_path), 3)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(velocity(fence.model), velocity(plain(tmp_path)))
    assert fence.came == [1, 3, 4, 1, 3, 4]
    assert fence.most == 2


@pytest.mark.parametrize("make", [plain, gguf, fp8])
def test_gradients_under_checkpointing_are_the_same(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    fence = Fence(make(tmp_path), BLOCKS)
    found, expected = learn(fence.model), learn(make(tmp_path))
    assert len(found) == 2 * 2 * BLOCKS
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert fence.came == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert fence.most == 2


def test_a_model_that_moves_leaves_what_waits_in_ram(tmp_path: Path) -> None:
    model = plain(tmp_path)
    tiny_qwen.pipeline_of(model).load_lora_weights(tiny_qwen.write_lora(tmp_path / "lora.safetensors"))
    keep_in_ram(model, 2, CPU)
    seen: list[str] = []

    def note(tensor: Tensor) -> Tensor:
        seen.extend(name for name, held in model.named_parameters() if held is tensor)
        return tensor

    whole = {name for name, _ in model.named_parameters()}
    with model.waiting.absent():
        model._apply(note)
    waits = {name for name in whole if name.startswith(("transformer_blocks.2", "transformer_blocks.4"))}
    assert set(seen) == whole - waits
    assert any(".lora_A." in name for name in seen), "a LoRA does not wait"
    move(model, CPU)
    assert {name for name, _ in model.named_parameters()} == whole
