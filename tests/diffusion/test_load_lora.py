"""Every form in which a LoRA file comes: what is ours loads whole, and nothing is passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.diffusion import tiny_qwen
from tests.diffusion.tiny_qwen import distance, lora_tensors, velocity, write_lora
from torch import Tensor

from oblik.diffusion import lora
from oblik.errors import LoraBroken

OURS = "diffusion_model."
MODULE = f"{OURS}transformer_blocks.0.attn.to_q"
EXTRA = torch.zeros(4, 256)


def renamed(to: str) -> dict[str, Tensor]:
    return {key.replace(OURS, to): value for key, value in lora_tensors().items()}


def without_alpha(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.endswith(".alpha")}


def load(folder: Path, tensors: dict[str, Tensor]) -> Any:
    model = tiny_qwen.transformer()
    lora.load(tiny_qwen.pipeline_of(model), write_lora(folder / "lora.safetensors", tensors))
    return model


@pytest.mark.parametrize("alpha", [2.0, 8.0])
def test_our_form_reaches_every_module_with_its_alpha(tmp_path: Path, alpha: float) -> None:
    model = load(tmp_path, lora_tensors(alpha=alpha))
    assert len(dict(lora.lora_layers(model))) == 3
    values = tiny_qwen.with_lora(tiny_qwen.transformer().state_dict(), alpha)
    assert distance(velocity(model), velocity(tiny_qwen.with_weights(values))) < 1e-5


def test_without_alpha_it_is_the_rank(tmp_path: Path) -> None:
    model = load(tmp_path, without_alpha(lora_tensors()))
    values = tiny_qwen.with_lora(tiny_qwen.transformer().state_dict(), alpha=4.0)
    assert distance(velocity(model), velocity(tiny_qwen.with_weights(values))) < 1e-5


def test_it_is_cast_to_the_transformers_dtype(tmp_path: Path) -> None:
    model = tiny_qwen.transformer().to(torch.bfloat16)
    lora.load(tiny_qwen.pipeline_of(model), write_lora(tmp_path / "lora.safetensors"))
    dtypes = {layer.lora_B[lora.ADAPTER].weight.dtype for _, layer in lora.lora_layers(model)}
    assert dtypes == {torch.bfloat16}


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param(renamed("transformer."), id="transformer. with alpha: diffusers finds no module"),
        pytest.param(without_alpha(renamed("")), id="bare: diffusers loads nothing and warns"),
        pytest.param(
            lora_tensors() | {"text_encoder.model.layers.0.self_attn.q_proj.lora_A.weight": EXTRA},
            id="text encoder keys: diffusers drops them",
        ),
        pytest.param(
            lora_tensors() | {"bundle_emb.person.qwen25_7b": EXTRA}, id="a token: diffusers crashes"
        ),
        pytest.param(lora_tensors() | {f"{MODULE}.dora_scale": EXTRA}, id="DoRA: diffusers drops the scale"),
        pytest.param(
            {f"{MODULE}.lokr_w1": EXTRA, f"{MODULE}.lokr_w2": EXTRA.clone()}, id="LoKr: diffusers crashes"
        ),
        pytest.param({"nothing": EXTRA}, id="no LoRA at all"),
    ],
)
def test_another_form_is_refused_before_anything_is_loaded(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    model = tiny_qwen.transformer()
    with pytest.raises(LoraBroken, match="keys of an unknown form"):
        lora.load(tiny_qwen.pipeline_of(model), write_lora(tmp_path / "lora.safetensors", tensors))
    assert not dict(lora.lora_layers(model))


@pytest.mark.parametrize("end", [".lora_A.weight", ".lora_B.weight"])
def test_half_a_lora_is_an_error(tmp_path: Path, end: str) -> None:
    tensors = lora_tensors()
    del tensors[MODULE + end]
    with pytest.raises(LoraBroken, match=r"half a LoRA of transformer_blocks\.0\.attn\.to_q"):
        load(tmp_path, tensors)


def test_a_module_that_this_transformer_lacks_is_an_error(tmp_path: Path) -> None:
    tensors = lora_tensors() | {
        key.replace("blocks.0", "blocks.7"): value.clone() for key, value in lora_tensors().items()
    }
    with pytest.raises(LoraBroken, match="3 of 6 LoRA modules do not fit"):
        load(tmp_path, tensors)


def test_a_module_of_another_width_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoraBroken, match="1 of 3 LoRA modules do not fit"):
        load(tmp_path, lora_tensors() | {f"{MODULE}.lora_B.weight": torch.zeros(128, 4)})


class Mover:
    """A pipeline whose transformer is elsewhere after loading, as diffusers' offloading once did."""

    def __init__(self, model: Any) -> None:
        self.transformer, self._inner = model, tiny_qwen.pipeline_of(model)

    def load_lora_weights(self, *args: Any, **options: Any) -> None:
        self._inner.load_lora_weights(*args, **options)
        self.transformer.proj_out.to("meta")


def test_a_transformer_that_moves_while_a_lora_loads_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoraBroken, match="moved the transformer"):
        lora.load(Mover(tiny_qwen.transformer()), write_lora(tmp_path / "lora.safetensors"))
