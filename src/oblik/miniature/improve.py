"""Going on from a finished pack instead of from nothing.

In: a pack's folder and an empty work folder. Out: the work folder as if the earlier stages had just run:
the pack's VAE, tokenizer and face networks, and its transformer as a start. ONNX files keep the
parameters under their own names, so nothing else needs to be stored.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from diffusers import QwenImageTransformer2DModel
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from oblik.miniature.face_networks import Embedder, Landmarks

START = "start.safetensors"


def adopt(pack: Path, work: Path) -> None:
    """Fill ``work`` from ``pack``; what is there already stays."""
    work.mkdir(parents=True, exist_ok=True)
    for part in ("vae", "tokenizer"):
        if not (work / part).exists():
            shutil.copytree(pack / part, work / part)
    nets: tuple[tuple[str, nn.Module], ...] = (("embedder", Embedder()), ("landmarks", Landmarks()))
    for name, net in nets:
        file = pack / "faces" / ("detector.onnx" if name == "landmarks" else "embedder.onnx")
        if not (work / f"{name}.safetensors").exists():
            save_file(from_onnx(file, net), work / f"{name}.safetensors")
    if not (work / START).exists():
        save_file(painter_weights(pack), work / START)


def from_onnx(file: Path, net: nn.Module) -> dict[str, Tensor]:
    """The state of ``net`` as it was exported; counters of batch norm start at zero."""
    graph = onnx.load(str(file)).graph
    stored = {
        tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor))) for tensor in graph.initializer
    }
    for node in graph.node:  # the exporter keeps one of two equal parameters and refers to it
        if node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]].clone()
    return {name: stored.get(name, torch.zeros_like(value)) for name, value in net.state_dict().items()}


def painter_weights(pack: Path) -> dict[str, Tensor]:
    """Weights of a `Painter`, in float32, from the folders of a pack."""
    transformer = QwenImageTransformer2DModel.from_pretrained(pack / "transformer", local_files_only=True)
    encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(pack / "text_encoder", local_files_only=True)
    projector = load_file(pack / "identity" / "projector.safetensors")
    named = {
        **{f"transformer.{name}": value for name, value in transformer.state_dict().items()},
        **{f"text_encoder.{name}": value for name, value in encoder.state_dict().items()},
        **{f"projector.{name}": value for name, value in projector.items()},
    }
    return {name: value.float().clone() for name, value in named.items()}
