"""GGUF: the real block formats, read packed, compared with what they unpack to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGUFWriter, quants
from gguf import GGMLQuantizationType as Packing
from numpy.typing import NDArray
from tests.diffusion import tiny_qwen
from tests.diffusion.ggml_blocks import packed
from tests.diffusion.tiny_qwen import CPU, distance, velocity
from torch import Tensor

from oblik.diffusion import lora
from oblik.diffusion.quantize import AS_STORED, Quantisation, load_transformer
from oblik.errors import BackendUnavailable, InvalidInput, LoraBroken, PackBroken
from oblik.training.config import TrainConfig

FILE = "transformer/tiny.gguf"
# Rounding to the format's values moves a weight by this much of the weights' size, in the root mean square.
ERROR = {"Q8_0": 0.006, "Q6_K": 0.03, "Q4_K": 0.1}


def write(
    folder: Path, packing: str, *, prefix: str = "", drop: str = "", add: tuple[str, ...] = (), **config: Any
) -> dict[str, Tensor]:
    """A pack folder with the transformer in GGUF; what its tensors unpack to.

    The layout is that of published files: blocks packed, the layers around them BF16, norms and biases F32;
    two of those are BF16 as well.
    """
    model = tiny_qwen.transformer(**config)
    (folder / "transformer").mkdir(parents=True, exist_ok=True)
    model.save_config(folder / "transformer")
    writer = GGUFWriter(folder / FILE, arch="qwen_image")
    found = {}
    for name, tensor in model.state_dict().items():
        values: NDArray[np.float32] = tensor.numpy()
        kind = Packing.F32
        if tensor.ndim == 2:
            kind = Packing[packing] if name.startswith("transformer_blocks.") else Packing.BF16
        elif name in ("txt_norm.weight", "transformer_blocks.1.attn.to_q.bias"):
            kind = Packing.BF16
        data = values if kind == Packing.F32 else packed(values, kind)
        found[name] = torch.from_numpy(np.array(quants.dequantize(data, kind)).reshape(values.shape))
        if name != drop:
            writer.add_tensor(prefix + name, data, raw_dtype=kind)
    for name in add:
        writer.add_tensor(prefix + name, np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def read(folder: Path, dtype: torch.dtype = torch.float32, how: Quantisation = AS_STORED) -> Any:
    return load_transformer(folder, tiny_qwen.component("gguf", FILE), how, dtype=dtype, device=CPU)


def packed_bytes(model: Any) -> bytes:
    weight = model.transformer_blocks[0].attn.to_k.weight
    return bytes(weight.as_tensor().numpy().tobytes())


@pytest.mark.parametrize("packing", sorted(ERROR))
def test_the_blocks_written_here_are_llama_cpps(packing: str) -> None:
    kind = Packing[packing]
    values = np.random.default_rng(0).normal(0.0, 0.02, (64, 512)).astype(np.float32)
    values[3, :256] = 0.0
    data = packed(values, kind)
    block, size = GGML_QUANT_SIZES[kind]
    assert data.shape == (64, 512 // block * size)
    error = quants.dequantize(data, kind) - values
    assert np.sqrt((error**2).mean()) < ERROR[packing] * 0.02
    assert not error[3, :256].any()


@pytest.mark.parametrize("packing", sorted(ERROR))
def test_a_gguf_transformer_computes_with_what_its_blocks_unpack_to(tmp_path: Path, packing: str) -> None:
    values = write(tmp_path, packing)
    model = read(tmp_path)
    reference = velocity(tiny_qwen.with_weights(values))
    # diffusers unpacks in float16, the scales' own format.
    assert distance(velocity(model), reference) < 1e-3
    block, size = GGML_QUANT_SIZES[Packing[packing]]
    for name, layer in tiny_qwen.linear_layers(model).items():
        if name.startswith("transformer_blocks."):
            assert layer.weight.dtype == torch.uint8
            assert layer.weight.numel() == layer.in_features * layer.out_features // block * size
    half = read(tmp_path, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert distance(velocity(half, torch.bfloat16), reference) < 0.03


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
def test_a_prefix_before_the_names_is_taken_off(tmp_path: Path, prefix: str) -> None:
    write(tmp_path / "plain", "Q8_0")
    write(tmp_path / "prefixed", "Q8_0", prefix=prefix)
    assert torch.equal(velocity(read(tmp_path / "prefixed")), velocity(read(tmp_path / "plain")))


def test_the_configuration_is_the_packs_and_is_never_guessed(tmp_path: Path) -> None:
    write(tmp_path, "Q8_0")
    (tmp_path / "transformer" / "config.json").unlink()
    with pytest.raises(PackBroken, match=r"needs its config\.json"):
        read(tmp_path)


def test_a_second_transformer_may_lie_elsewhere_in_the_pack(tmp_path: Path) -> None:
    values = write(tmp_path / "edit", "Q8_0", zero_cond_t=True)
    component = tiny_qwen.component("gguf", f"edit/{FILE}")
    model = load_transformer(tmp_path, component, AS_STORED, dtype=torch.float32, device=CPU)
    assert model.config.zero_cond_t
    assert model.state_dict().keys() == values.keys()


def test_a_tensor_too_few_or_too_many_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "few", "Q8_0", drop="norm_out.linear.bias")
    with pytest.raises(
        PackBroken, match=r"1 tensors missing, 0 unknown, for example no norm_out\.linear\.bias"
    ):
        read(tmp_path / "few")
    write(tmp_path / "many", "Q8_0", add=("img_in.extra",))
    with pytest.raises(PackBroken, match=r"0 tensors missing, 1 unknown, for example img_in\.extra"):
        read(tmp_path / "many")


def test_the_mark_of_edit_2511_must_agree_with_the_configuration(tmp_path: Path) -> None:
    mark = "__index_timestep_zero__"
    write(tmp_path / "agrees", "Q8_0", prefix="model.diffusion_model.", add=(mark,), zero_cond_t=True)
    assert read(tmp_path / "agrees").config.zero_cond_t
    write(tmp_path / "differs", "Q8_0", add=(mark,))
    with pytest.raises(PackBroken, match="zero_cond_t"):
        read(tmp_path / "differs")


def test_a_packing_that_diffusers_does_not_know_is_named(tmp_path: Path) -> None:
    write(tmp_path, "TQ1_0")
    with pytest.raises(BackendUnavailable, match="TQ1_0"):
        read(tmp_path)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "Q8_0")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PackBroken, match=r"tiny\.gguf"):
        read(tmp_path)


def test_what_is_packed_is_not_packed_again(tmp_path: Path) -> None:
    write(tmp_path, "Q8_0")
    with pytest.raises(InvalidInput, match="packed already"):
        read(tmp_path, how=Quantisation.all("torchao-int8"))


@pytest.mark.parametrize("packing", ["Q8_0", "Q4_K"])
def test_a_lora_stands_beside_the_blocks_and_is_not_fused(tmp_path: Path, packing: str) -> None:
    values = write(tmp_path, packing)
    model = read(tmp_path)
    before = packed_bytes(model)
    pipeline = tiny_qwen.pipeline_of(model)
    lora.load(pipeline, tiny_qwen.write_lora(tmp_path / "lora.safetensors"))
    reference = velocity(tiny_qwen.with_weights(tiny_qwen.with_lora(values)))
    assert distance(reference, velocity(tiny_qwen.with_weights(values))) > 0.05
    assert distance(velocity(model), reference) < 2e-3
    with pytest.raises(LoraBroken, match="not fused"):
        pipeline.fuse_lora()
    assert packed_bytes(model) == before


def test_the_lora_computes_in_the_transformers_dtype(tmp_path: Path) -> None:
    write(tmp_path, "Q8_0")
    model = read(tmp_path, torch.bfloat16)
    lora.load(tiny_qwen.pipeline_of(model), tiny_qwen.write_lora(tmp_path / "lora.safetensors"))
    loaded = dict(lora.lora_layers(model))
    assert len(loaded) == 3
    assert {layer.lora_A[lora.ADAPTER].weight.dtype for layer in loaded.values()} == {torch.bfloat16}
    assert velocity(model, torch.bfloat16).isfinite().all()


def test_a_lora_is_trained_on_the_blocks(tmp_path: Path) -> None:
    write(tmp_path, "Q4_K")
    model = read(tmp_path)
    parameters = lora.attach(model, TrainConfig(rank=4, alpha=4.0, targets=("to_q", "img_mlp.net.2")))
    goal = velocity(model).detach() + 0.1
    losses = []
    optimiser = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(4):
        loss = (velocity(model) - goal).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in parameters)
