"""Going on from a finished pack instead of from nothing.

In: a pack's folder and an empty work folder. Out: the work folder as if the earlier stages had just run:
the pack's VAE, tokenizer and face networks, and its transformer as a start. ONNX files keep the
parameters under their own names, so nothing else needs to be stored.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from diffusers import QwenImageTransformer2DModel
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from oblik.diffusion import identity
from oblik.miniature.architecture import new_projector
from oblik.miniature.checkpoint import cosine, set_rate
from oblik.miniature.face_networks import Embedder, Landmarks

START = "start.safetensors"
PROJECTOR = "projector."
EMBEDDER, START_EMBEDDER = "embedder.safetensors", "embedder_start.safetensors"
VAE, START_VAE = "vae", "vae_start"


def adopt(pack: Path, work: Path, *, faces: bool = False, vae: bool = False) -> None:
    """Fill ``work`` from ``pack``; what is there already stays.

    With ``faces`` the pack's embedder, and with ``vae`` its VAE, is only where that network's own training
    starts.
    """
    work.mkdir(parents=True, exist_ok=True)
    for part, place in (("vae", START_VAE if vae else VAE), ("tokenizer", "tokenizer"), ("words", "words")):
        if (pack / part).exists() and not (work / place).exists():
            shutil.copytree(pack / part, work / place)
    nets: tuple[tuple[str, str, nn.Module], ...] = (
        (START_EMBEDDER if faces else EMBEDDER, "embedder.onnx", Embedder()),
        ("landmarks.safetensors", "detector.onnx", Landmarks()),
    )
    for name, source, net in nets:
        if not (work / name).exists():
            save_file(from_onnx(pack / "faces" / source, net), work / name)
    if not (work / START).exists():
        save_file(painter_weights(pack), work / START)


def carry_names(work: Path, old_ND: Callable[[], NDArray[np.float32]], new_ND: NDArray[np.float32]) -> None:
    """Fit the identity projector of the start to an embedder that has learned further. Does so once."""

    def carried(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        projector = new_projector()
        projector.load_state_dict({name: weights[PROJECTOR + name] for name in projector.state_dict()})
        carry_projector(projector, old_ND(), new_ND)
        return {PROJECTOR + name: value for name, value in projector.state_dict().items()}

    _carry_once(work / START, "names", carried)


def carry_latents(work: Path, old_NC: Callable[[], Tensor], new_NC: Tensor) -> None:
    """Fit the first and last layer of the start's transformer to the tokens of another VAE. Does so once.

    The least-squares maps between both VAEs' tokens of the same pictures are folded into ``img_in`` and
    ``proj_out``.
    """

    def carried(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        old = old_NC()
        to_old, to_new = _linear_map(new_NC, old), _linear_map(old, new_NC)
        into, out = "transformer.img_in", "transformer.proj_out"
        inward, outward = weights[f"{into}.weight"], weights[f"{out}.weight"]
        return {
            f"{into}.weight": inward @ to_old[:-1].T,
            f"{into}.bias": weights[f"{into}.bias"] + inward @ to_old[-1],
            f"{out}.weight": to_new[:-1].T @ outward,
            f"{out}.bias": to_new[:-1].T @ weights[f"{out}.bias"],
        }

    _carry_once(work / START, "latents", carried)


def _linear_map(from_NC: Tensor, to_NC: Tensor) -> Tensor:
    """(C + 1, C): the matrix, and the constant in its last row."""
    ones = torch.ones(len(from_NC), 1)
    return torch.as_tensor(torch.linalg.lstsq(torch.cat([from_NC, ones], 1), to_NC).solution)


def _carry_once(start: Path, what: str, carried: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Replace weights of the start by ``carried`` ones, and note in the file that it was done."""
    with safe_open(start, "pt") as file:
        done = dict(file.metadata() or {})
    if what not in done:
        weights = load_file(start)
        replaced = {name: value.contiguous() for name, value in carried(weights).items()}
        save_file(weights | replaced, start, metadata={**done, what: "carried"})


def carry_projector(
    projector: nn.Module, old_ND: NDArray[np.float32], new_ND: NDArray[np.float32], *, steps: int = 3000
) -> float:
    """Fit the identity projector, in place, to a new embedder: its vectors must give the names that the
    old ones gave. Returns the mean squared error as a share of the names' variance.
    """
    inputs = torch.from_numpy(new_ND)
    with torch.no_grad():
        names = projector(torch.from_numpy(old_ND))
    projector.requires_grad_(True)
    optimiser = torch.optim.AdamW(projector.parameters(), lr=2e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randint(len(inputs), (256,), generator=generator)
        loss = nn.functional.mse_loss(projector(inputs[rows]), names[rows])
        loss.backward()
        set_rate(optimiser, cosine(step, steps, warmup=50))
        optimiser.step()
        optimiser.zero_grad()
    projector.requires_grad_(False)
    with torch.no_grad():
        return float(nn.functional.mse_loss(projector(inputs), names) / names.var(0).mean())


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
    projector = load_file(pack / identity.FILE)
    named = {
        **{f"transformer.{name}": value for name, value in transformer.state_dict().items()},
        **{f"text_encoder.{name}": value for name, value in encoder.state_dict().items()},
        **{PROJECTOR + name: value for name, value in projector.items()},
    }
    return {name: value.float().clone() for name, value in named.items()}
