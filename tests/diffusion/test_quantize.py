"""Packing a diffusers folder as it is read: torchao's schemes part by part, bitsandbytes, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.diffusion import tiny_qwen
from tests.diffusion.tiny_qwen import CPU, distance, velocity
from torch import nn

from oblik.diffusion import lora
from oblik.diffusion.quantize import (
    AS_STORED,
    Quantisation,
    Scheme,
    load_text_encoder,
    load_transformer,
    require,
)
from oblik.errors import BackendUnavailable, InvalidInput, LoraBroken, PackBroken
from oblik.packs.store import open_pack
from oblik.paths import Home
from oblik.training.config import TrainConfig

CUDA = torch.device("cuda")
FOLDER = tiny_qwen.component("diffusers")
TORCHAO: dict[Scheme, float] = {"torchao-int8": 0.01, "torchao-fp8": 0.04, "torchao-int4": 0.15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pack")
    tiny_qwen.transformer().save_pretrained(made / "transformer")
    return made


def read(folder: Path, how: Quantisation, dtype: torch.dtype = torch.float32) -> Any:
    return load_transformer(folder, FOLDER, how, dtype=dtype, device=CPU).requires_grad_(False)


def unpacked(model: Any) -> dict[str, torch.Tensor]:
    """Its values, packed layers as what torchao says they stand for."""
    values = {}
    for name, parameter in model.named_parameters():
        plain = parameter.dequantize() if type(parameter) is not nn.Parameter else parameter
        values[name] = plain.detach().float()
    return values


def test_a_folder_read_as_stored_is_what_was_saved(folder: Path) -> None:
    saved = tiny_qwen.transformer()
    model = read(folder, AS_STORED)
    assert all(torch.equal(tensor, saved.get_parameter(name)) for name, tensor in model.named_parameters())
    assert distance(velocity(model), velocity(saved)) < 1e-6


@pytest.mark.parametrize("scheme", TORCHAO)
def test_torchao_packs_the_blocks_and_a_lora_stands_beside_them(
    folder: Path, tmp_path: Path, scheme: Scheme
) -> None:
    pytest.importorskip("torchao", reason="needs pip install 'oblik[quantised]'")
    model = read(folder, Quantisation.all(scheme))
    for name, layer in tiny_qwen.linear_layers(model).items():
        assert (type(layer.weight) is not nn.Parameter) == name.startswith("transformer_blocks."), name
    values = unpacked(model)
    assert 0 < distance(velocity(model), velocity(tiny_qwen.transformer())) < TORCHAO[scheme]
    assert distance(velocity(model), velocity(tiny_qwen.with_weights(values))) < 1e-5
    pipeline = tiny_qwen.pipeline_of(model)
    lora.load(pipeline, tiny_qwen.write_lora(tmp_path / "lora.safetensors"))
    reference = velocity(tiny_qwen.with_weights(tiny_qwen.with_lora(values)))
    assert distance(velocity(model), reference) < 1e-5
    with pytest.raises(LoraBroken, match="not fused"):
        pipeline.fuse_lora()


def test_each_part_has_its_own_scheme(folder: Path) -> None:
    pytest.importorskip("torchao", reason="needs pip install 'oblik[quantised]'")
    how = Quantisation(attention="torchao-int8", mlp="torchao-int4")
    kinds: dict[str, set[str]] = {"attn": set(), "mlp": set(), "mod": set(), "outside": set()}
    for name, layer in tiny_qwen.linear_layers(read(folder, how)).items():
        part = next((part for part in ("attn", "mlp", "mod") if f"{part}." in name), "outside")
        kinds[part].add(type(layer.weight).__name__)
    assert kinds["mod"] == kinds["outside"] == {"Parameter"}
    assert [len(kinds["attn"]), len(kinds["mlp"]), len(kinds["attn"] | kinds["mlp"])] == [1, 1, 2]


@pytest.mark.parametrize("scheme", TORCHAO)
def test_a_lora_is_trained_beside_torchaos_weights(folder: Path, scheme: Scheme) -> None:
    pytest.importorskip("torchao", reason="needs pip install 'oblik[quantised]'")
    model = read(folder, Quantisation.all(scheme))
    plain = tiny_qwen.with_weights(unpacked(model))
    gradients = []
    for each in (model, plain):
        parameters = lora.attach(each, TrainConfig(rank=4, alpha=4.0, targets=("to_q", "img_mlp.net.2")))
        velocity(each).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    assert gradients[1].norm() > 0
    assert distance(gradients[0], gradients[1]) < 1e-4


def test_a_layer_of_no_whole_groups_is_named(tmp_path: Path) -> None:
    odd = tiny_qwen.transformer()
    odd = type(odd).from_config({**odd.config, "attention_head_dim": 20, "axes_dims_rope": (4, 8, 8)})
    odd.save_pretrained(tmp_path / "transformer")
    with pytest.raises(InvalidInput, match=r"blocks\.0\.attn\.to_q has 80 inputs; torchao-int4 packs 32"):
        read(tmp_path, Quantisation(attention="torchao-int4"))


def test_the_text_encoder_is_packed_too() -> None:
    pytest.importorskip("torchao", reason="needs pip install 'oblik[quantised]'")
    pack = open_pack("miniature", Home(Path("nowhere"))).folder
    ids = torch.tensor([[1, 7, 30, 200, 999]])
    states = []
    for scheme in ("none", "torchao-int8"):
        encoder = load_text_encoder(pack, FOLDER, scheme, dtype=torch.float32, device=CPU)
        states.append(encoder(input_ids=ids, output_hidden_states=True).hidden_states[-1])
        assert type(encoder.get_input_embeddings().weight) is nn.Parameter
    assert 0 < distance(states[1], states[0]) < 0.05


def test_nf4_is_refused_on_a_cpu_with_the_reason(folder: Path) -> None:
    pack = open_pack("miniature", Home(Path("nowhere"))).folder
    with pytest.raises(BackendUnavailable, match="NVIDIA GPU"):
        read(folder, Quantisation.all("bnb-nf4"))
    with pytest.raises(BackendUnavailable, match="NVIDIA GPU"):
        load_text_encoder(pack, FOLDER, "bnb-nf4", dtype=torch.float32, device=CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="bitsandbytes packs NF4 on an NVIDIA GPU only")
def test_nf4_packs_the_blocks_and_a_lora_stands_beside_them(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs pip install 'oblik[gpu]'")
    how = Quantisation(attention="bnb-nf4", mlp="bnb-nf4")
    model = load_transformer(folder, FOLDER, how, dtype=torch.bfloat16, device=CUDA)
    for name, layer in tiny_qwen.linear_layers(model).items():
        inside = ".attn." in name or "_mlp." in name
        assert (type(layer.weight).__name__ == "Params4bit") == inside, name
    pipeline = tiny_qwen.pipeline_of(model)
    lora.load(pipeline, tiny_qwen.write_lora(tmp_path / "lora.safetensors"))
    assert {layer.lora_A[lora.ADAPTER].weight.dtype for _, layer in lora.lora_layers(model)} == {
        torch.bfloat16
    }
    with pytest.raises(LoraBroken, match="not fused"):
        pipeline.fuse_lora()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torchao packs int4 in half bytes on a GPU only")
def test_int4_takes_half_a_byte_on_a_gpu(folder: Path) -> None:
    pytest.importorskip("torchao", reason="needs pip install 'oblik[quantised]'")
    how = Quantisation.all("torchao-int4")
    model = load_transformer(folder, FOLDER, how, dtype=torch.bfloat16, device=CUDA)
    weight = model.transformer_blocks[0].attn.to_q.weight
    assert type(weight).__name__ == "Int4TilePackedTo4dTensor"


def test_an_unknown_format_a_mixture_and_a_missing_extra_say_what_to_do(folder: Path) -> None:
    with pytest.raises(BackendUnavailable, match="'nunchaku'; known: diffusers, gguf, fp8"):
        load_transformer(folder, tiny_qwen.component("nunchaku"), AS_STORED, dtype=torch.float32, device=CPU)
    with pytest.raises(BackendUnavailable, match="GGUF is not read"):
        load_text_encoder(folder, tiny_qwen.component("gguf"), "none", dtype=torch.float32, device=CPU)
    both = tiny_qwen.component("fp8", "a.safetensors", "b.safetensors")
    with pytest.raises(PackBroken, match=r"one \.safetensors file; this component lists 2"):
        load_transformer(folder, both, AS_STORED, dtype=torch.float32, device=CPU)
    with pytest.raises(InvalidInput, match="cannot be mixed"):
        read(folder, Quantisation(attention="bnb-nf4", mlp="torchao-int8"))
    with pytest.raises(BackendUnavailable) as caught:
        require("no_such_package_at_all", "quantised")
    assert caught.value.hint == "pip install 'oblik[quantised]'"
