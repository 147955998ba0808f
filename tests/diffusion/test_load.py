"""A whole pipeline from a pack whose transformer or text encoder is stored packed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.diffusion.tiny_qwen import CPU, distance
from torch import Tensor

from oblik.diffusion.fp8_files import FLOAT8, Fp8Linear
from oblik.diffusion.load import open_pipeline
from oblik.diffusion.quantize import Quantisation
from oblik.errors import InvalidInput
from oblik.packs.manifest import OpenPack, PackFile
from oblik.packs.store import open_pack
from oblik.paths import Home

WEIGHTS = "diffusion_pytorch_model.safetensors"
PROMPT = "a photo of a woman"


@pytest.fixture(scope="module")
def plain() -> OpenPack:
    return open_pack("miniature", Home(Path("nowhere")))


def packed(plain: OpenPack, folder: Path, stored: str, name: str) -> OpenPack:
    """The pack with its transformer's folder replaced by one file; the configuration stays."""
    shutil.copytree(plain.folder, folder, ignore=shutil.ignore_patterns("faces"))
    (folder / "transformer" / WEIGHTS).unlink()
    manifest = plain.manifest.model_copy(deep=True)
    transformer = manifest.components["transformer"]
    transformer.format, transformer.files = stored, [PackFile(path=f"transformer/{name}", bytes=0, sha256="")]
    return OpenPack(manifest=manifest, folder=folder)


def weights(plain: OpenPack) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(plain.folder / "transformer" / WEIGHTS)
    return tensors


def latents(pack: OpenPack, **how: Any) -> Tensor:
    """Two steps of the pipeline, before decoding."""
    pipeline = open_pipeline(pack, None, dtype=torch.float32, device=CPU, **how)
    pipeline.set_progress_bar_config(disable=True)
    return drawn(pipeline)


def drawn(pipeline: Any) -> Tensor:
    image: Tensor = pipeline(
        prompt=PROMPT, negative_prompt=" ", width=64, height=64, num_inference_steps=2, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    return image


def test_a_pipeline_draws_with_an_fp8_transformer(plain: OpenPack, tmp_path: Path) -> None:
    pack = packed(plain, tmp_path / "pack", "fp8", "tiny.safetensors")
    fp8 = {name: tensor.to(FLOAT8) if tensor.ndim == 2 else tensor for name, tensor in weights(plain).items()}
    save_file(fp8, pack.folder / "transformer" / "tiny.safetensors")
    pipeline = open_pipeline(pack, None, dtype=torch.float32, device=CPU)
    pipeline.set_progress_bar_config(disable=True)
    assert any(isinstance(layer, Fp8Linear) for layer in pipeline.transformer.modules())
    assert 0 < distance(drawn(pipeline), latents(plain)) < 0.1
    with pytest.raises(InvalidInput, match="packed already"):
        latents(pack, how=Quantisation.all("torchao-int8"))


def test_a_pipeline_draws_with_a_gguf_transformer(plain: OpenPack, tmp_path: Path) -> None:
    pack = packed(plain, tmp_path / "pack", "gguf", "tiny.gguf")
    eight = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(pack.folder / "transformer" / "tiny.gguf", arch="qwen_image")
    for name, tensor in weights(plain).items():
        values = tensor.float().numpy()
        if tensor.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(values, eight), raw_dtype=eight)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert 0 < distance(latents(pack), latents(plain)) < 0.05


def test_a_pipeline_draws_with_weights_packed_as_they_are_read(plain: OpenPack) -> None:
    pytest.importorskip("torchao", reason="needs pip install 'oblik[quantised]'")
    how = Quantisation(attention="torchao-int8", mlp="torchao-int8")
    assert 0 < distance(latents(plain, how=how, text_how="torchao-int8"), latents(plain)) < 0.05
