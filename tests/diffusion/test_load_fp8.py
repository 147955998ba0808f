"""fp8 safetensors: plain and with ComfyUI's scales, one byte per weight, a LoRA beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from tests.diffusion import tiny_qwen
from tests.diffusion.tiny_qwen import CPU, distance, velocity
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from oblik.diffusion import lora
from oblik.diffusion.fp8_files import FLOAT8, Fp8Linear
from oblik.diffusion.quantize import AS_STORED, load_text_encoder, load_transformer
from oblik.errors import BackendUnavailable, LoraBroken, PackBroken
from oblik.packs.store import open_pack
from oblik.paths import Home
from oblik.training.config import TrainConfig

FILE = "transformer/tiny_fp8.safetensors"
Layout = Literal["plain", "scale_weight", "comfy_quant", "rows", "metadata"]
LAYOUTS: tuple[Layout, ...] = ("plain", "scale_weight", "comfy_quant", "rows", "metadata")
PACKING = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}


def encoded(tensors: dict[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The file's tensors in the layout, and what they stand for.

    ``plain`` is a cast of every tensor, norms and biases too. ``scale_weight`` is ComfyUI's first layout with
    its mark, ``comfy_quant`` and ``metadata`` its later ones; ``rows`` has a scale for each output.
    """
    written, meant = {}, {}
    for name, tensor in tensors.items():
        if layout == "plain":
            written[name] = tensor.to(FLOAT8)
            meant[name] = written[name].float()
            continue
        if tensor.ndim != 2 or not name.startswith(("transformer_blocks.", "model.layers.")):
            written[name] = tensor.to(torch.bfloat16)
            meant[name] = written[name].float()
            continue
        largest = tensor.abs().amax(1, keepdim=True) if layout == "rows" else tensor.abs().max()
        scale = largest / 448
        written[name] = (tensor / scale).to(FLOAT8)
        meant[name] = written[name].float() * scale
        layer = name.removesuffix(".weight")
        if layout == "scale_weight":
            written[f"{layer}.scale_weight"], written[f"{layer}.scale_input"] = scale, torch.tensor(3.0)
        else:
            written[f"{layer}.weight_scale"], written[f"{layer}.input_scale"] = scale, torch.tensor(3.0)
        if layout == "comfy_quant":
            written[f"{layer}.comfy_quant"] = torch.tensor(
                list(json.dumps(PACKING).encode()), dtype=torch.uint8
            )
    if layout == "scale_weight":
        written["scaled_fp8"] = torch.empty(2, dtype=FLOAT8)
    return written, meant


def write(
    folder: Path, layout: Layout = "scale_weight", replaced: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """A pack folder with the transformer in fp8; what its tensors stand for."""
    model = tiny_qwen.transformer()
    (folder / "transformer").mkdir(parents=True, exist_ok=True)
    model.save_config(folder / "transformer")
    written, meant = encoded(model.state_dict(), layout)
    layers = {name.removesuffix(".weight_scale"): PACKING for name in written if name.endswith("_scale")}
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})} if layout == "metadata" else {}
    written |= replaced or {}
    save_file(
        {f"model.diffusion_model.{name}": tensor for name, tensor in written.items()}, folder / FILE, metadata
    )
    return meant


def read(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_transformer(
        folder, tiny_qwen.component("fp8", FILE), AS_STORED, dtype=dtype, device=CPU
    ).requires_grad_(False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_fp8_transformer_computes_with_what_its_file_stands_for(tmp_path: Path, layout: Layout) -> None:
    meant = write(tmp_path, layout)
    assert distance(velocity(read(tmp_path)), velocity(tiny_qwen.with_weights(meant))) < 1e-6


def test_it_keeps_one_byte_per_weight_whatever_the_model_is_cast_to(tmp_path: Path) -> None:
    meant = write(tmp_path)
    reference = velocity(tiny_qwen.with_weights(meant))
    model = read(tmp_path, torch.bfloat16)
    # diffusers' own from_single_file widens such a file as a whole; a pipeline's .to(dtype) must not either.
    model.to(torch.float32).to(torch.bfloat16)
    packed = [layer for layer in model.modules() if isinstance(layer, Fp8Linear)]
    assert len(packed) == 2 * 14
    assert {layer.weight.element_size() for layer in packed} == {1}
    assert model.dtype == torch.bfloat16
    # bfloat16 arithmetic, with scales that were not rounded to bfloat16.
    assert distance(velocity(model, torch.bfloat16), reference) < 0.03
    assert distance(velocity(model.to(torch.float32)), reference) < 0.02
    name = "transformer_blocks.0.attn.to_q"
    assert torch.equal(model.get_submodule(name).widened(torch.float32), meant[f"{name}.weight"])


def test_a_lora_beside_fp8_is_not_fp8_and_is_not_fused(tmp_path: Path) -> None:
    meant = write(tmp_path)
    model = read(tmp_path)
    pipeline = tiny_qwen.pipeline_of(model)
    lora.load(pipeline, tiny_qwen.write_lora(tmp_path / "lora.safetensors"))
    layers = dict(lora.lora_layers(model))
    assert {layer.lora_B[lora.ADAPTER].weight.dtype for layer in layers.values()} == {torch.float32}
    assert distance(velocity(model), velocity(tiny_qwen.with_weights(tiny_qwen.with_lora(meant)))) < 1e-6
    with pytest.raises(LoraBroken, match="not fused"):
        pipeline.fuse_lora()


def test_training_beside_fp8_has_the_plain_gradient_and_keeps_no_widened_weight(tmp_path: Path) -> None:
    meant = write(tmp_path)
    config = TrainConfig(rank=4, alpha=4.0, targets=("to_q", "img_mlp.net.0.proj"))
    gradients, kept = [], []
    for model in (read(tmp_path), tiny_qwen.with_weights(meant)):
        parameters = lora.attach(model, config)
        shapes: set[tuple[int, ...]] = set()

        def keep(tensor: Tensor, shapes: set[tuple[int, ...]] = shapes) -> Tensor:
            shapes.add(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = velocity(model).square().mean()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
        kept.append(shapes)
    assert gradients[1].norm() > 0
    assert distance(gradients[0], gradients[1]) < 1e-5
    weight = (4 * tiny_qwen.WIDTH, tiny_qwen.WIDTH)
    assert not {weight, weight[::-1]} & kept[0]
    assert {weight, weight[::-1]} & kept[1]


QUERY = "transformer_blocks.0.attn.to_q."
ROTATED = torch.tensor(list(json.dumps(PACKING | {"convrot": True}).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "tensor", "named"),
    [
        ("weight", torch.zeros(256, 256, dtype=torch.int8), "torch.int8"),
        ("weight", torch.zeros(256, 256, dtype=torch.float8_e5m2), "float8_e5m2"),
        ("scale_weight", torch.ones(256, 4, 1), "blocks of shape"),
        ("comfy_quant", ROTATED, "convrot"),
    ],
)
def test_another_packing_is_refused_by_name(tmp_path: Path, name: str, tensor: Tensor, named: str) -> None:
    write(tmp_path, replaced={QUERY + name: tensor})
    with pytest.raises(BackendUnavailable, match=named):
        read(tmp_path)


def test_a_file_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, replaced={"img_in.extra": torch.ones(1)})
    with pytest.raises(PackBroken, match=r"0 tensors missing, 1 unknown, for example img_in\.extra"):
        read(tmp_path)
    write(tmp_path, replaced={"img_in.scale_weight": torch.ones(())})
    with pytest.raises(PackBroken, match="scales img_in, which is no float8 layer"):
        read(tmp_path)
    write(tmp_path, replaced={"img_in.weight": torch.ones(3, 3)})
    with pytest.raises(PackBroken, match="img_in"):
        read(tmp_path)
    (tmp_path / FILE).write_bytes(b"not safetensors")
    with pytest.raises(PackBroken, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("head", [True, False])
def test_an_fp8_text_encoder_with_comfyuis_names_gives_the_same_states(tmp_path: Path, head: bool) -> None:
    place = open_pack("miniature", Home(Path("nowhere"))).folder / "text_encoder"
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        place, dtype=torch.float32, local_files_only=True, tie_word_embeddings=False
    ).eval()
    names = {
        name: name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        for name in plain.state_dict()
    }
    written, meant = encoded({names[n]: t.clone() for n, t in plain.state_dict().items()}, "scale_weight")
    if not head:
        del written["lm_head.weight"]
    (tmp_path / "text_encoder").mkdir()
    plain.config.save_pretrained(tmp_path / "text_encoder")
    save_file(written, tmp_path / "text_encoder" / "tiny.safetensors")
    plain.load_state_dict({name: meant[names[name]] for name in names})
    component = tiny_qwen.component("fp8", "text_encoder/tiny.safetensors")
    encoder = load_text_encoder(tmp_path, component, "none", dtype=torch.float32, device=CPU)
    assert sum(isinstance(layer, Fp8Linear) for layer in encoder.modules()) == 3 * 7
    ids = torch.tensor([[1, 7, 30, 200, 999]])
    states = [model(input_ids=ids, output_hidden_states=True).hidden_states[-1] for model in (encoder, plain)]
    assert distance(states[0], states[1]) < 1e-5
    encoder.resize_token_embeddings(2000)
    assert encoder.get_input_embeddings().weight.shape == (2000, 128)
