"""Pretraining of the miniature's transformer, text encoder and identity projector, together.

In: cached latents, captions by length, a face embedding for every image. Out: an MMDiT that turns
captions into latents by flow matching (Lipman et al. 2023; rectified flow with logit-normal times,
Esser et al. 2024, section 3.1). Weights are an exponential average. Knows nothing of pixels.

B batch, T image tokens, C packed channels, L text tokens, D text width.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import QwenImageTransformer2DModel
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from oblik.miniature.architecture import TEXT_DIM, new_text_encoder, new_transformer
from oblik.miniature.checkpoint import draw, resume, save, set_rate
from oblik.miniature.face_networks import EMBEDDING
from oblik.miniature.fast_attention import RealRope, RealRopeProcessor
from oblik.miniature.improve import START
from oblik.miniature.muon import StackedMuon
from oblik.miniature.prompts import NAME_ID, Prompts
from oblik.miniature.vocabulary import HEAD_IDS
from oblik.progress import Progress

SHAPES = [[(1, 8, 8)]]
TIME_SHIFT = float(np.exp(0.5 + (0.9 - 0.5) * (64 - 256) / (8192 - 256)))
"""The scheduler's exponential shift at 64 image tokens."""


@dataclass(frozen=True)
class TransformerRecipe:
    """Settings of the run. The rate is flat and falls linearly to zero over the last third."""

    seed: int = 3
    steps: int = 2_200
    batch: int = 128
    matrix_rate: float = 5e-3
    learning_rate: float = 2e-3
    empty_share: float = 0.1
    ema: float = 0.998
    name_noise: float = 0.04
    checkpoint_every: int = 150


class Painter(nn.Module):
    """The three networks that learn together."""

    def __init__(self, seed: int, special: dict[str, int]) -> None:
        super().__init__()
        self.transformer: QwenImageTransformer2DModel = new_transformer(seed)
        self.text_encoder: Qwen2_5_VLForConditionalGeneration = new_text_encoder(seed, special)
        torch.manual_seed(seed)
        self.projector = nn.Sequential(
            nn.Linear(EMBEDDING, TEXT_DIM), nn.SiLU(), nn.Linear(TEXT_DIM, TEXT_DIM)
        )

    def text_states(self, ids_BL: Tensor, names_BD: Tensor | None) -> Tensor:
        """What QwenImagePipeline hands to the transformer, with names in place of `NAME_ID`."""
        embeds = self.text_encoder.get_input_embeddings()(ids_BL)
        if names_BD is not None:
            named = self.projector(names_BD)[:, None].to(embeds.dtype)
            embeds = torch.where((ids_BL == NAME_ID)[..., None], named, embeds)
        states = self.text_encoder.model.language_model(
            inputs_embeds=embeds, use_cache=False
        ).last_hidden_state
        return torch.as_tensor(states[:, HEAD_IDS:])


@dataclass(frozen=True)
class Material:
    """``latents`` (N, T, C) float16, normalised; ``faces`` (N, 128) float32 unit vectors
    of the *other* shots of the same person."""

    latents: NDArray[np.float16]
    faces: NDArray[np.float32]
    prompts: Prompts


def train_transformer(
    material: Material, special: dict[str, int], folder: Path, recipe: TransformerRecipe, progress: Progress
) -> Painter:
    """Train, or go on from ``folder/transformer.pt``; returns the averaged weights."""
    painter = Painter(recipe.seed, special)
    if (folder / START).exists():
        painter.load_state_dict(load_file(folder / START), strict=False)
    average = deepcopy(painter).requires_grad_(False)
    optimisers = _optimisers(painter, recipe)
    state: dict[str, Any] = {
        "painter": painter,
        "average": average,
        "muon": optimisers[0],
        "adamw": optimisers[1],
    }
    start = resume(folder / "transformer.pt", state)
    for optimiser, rate in zip(optimisers, (recipe.matrix_rate, recipe.learning_rate), strict=True):
        optimiser.param_groups[0]["initial_lr"] = rate
    _prepare_for_speed(painter)
    log = (folder / "transformer.log").open("a", encoding="utf-8")
    running = 0.0
    with progress.stage("train transformer", recipe.steps) as advance, log:
        advance(start)
        for step in range(start, recipe.steps):
            loss = _step_loss(painter, material, recipe, step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
            for optimiser in optimisers:
                set_rate(optimiser, trapezoid(step, recipe.steps))
                optimiser.step()
                optimiser.zero_grad()
            _average(average, painter, min(recipe.ema, (step + 1) / (step + 10)))
            running = float(loss.detach()) if step == start else 0.98 * running + 0.02 * float(loss.detach())
            advance(1, f"loss {running:.3f}" if step % 20 == 0 else "")
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                save(folder / "transformer.pt", step + 1, state)
                print(step + 1, f"{running:.4f}", file=log, flush=True)
            progress.check_cancelled()
    return average


def trapezoid(step: int, total: int, *, warmup: int = 200, fall: float = 0.3) -> float:
    """Factor of the learning rate: linear up, flat, linear down to zero over the last share ``fall``."""
    left = (total - step) / (fall * total)
    return min(1.0, (step + 1) / warmup, left)


def flow_times(count: int, generator: torch.Generator) -> Tensor:
    """Logit-normal times in (0, 1), shifted as the sampler shifts them. Shape (count,)."""
    t = torch.sigmoid(torch.randn(count, generator=generator))
    return TIME_SHIFT * t / (1 + (TIME_SHIFT - 1) * t)


def _step_loss(painter: Painter, material: Material, recipe: TransformerRecipe, step: int) -> Tensor:
    rng, noise = draw(recipe.seed, step)
    ids, rows = _batch(material.prompts, recipe, rng)
    latents = torch.from_numpy(material.latents[rows]).float()
    names = torch.from_numpy(
        material.faces[rows] + rng.normal(0, recipe.name_noise, (len(rows), EMBEDDING))
    ).float()
    sigma = flow_times(len(rows), noise)
    eps = torch.randn(latents.shape, generator=noise)
    noisy = torch.lerp(latents, eps, sigma[:, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        text = painter.text_states(torch.from_numpy(ids), names)
        velocity = painter.transformer(
            hidden_states=noisy,
            encoder_hidden_states=text,
            timestep=sigma,
            img_shapes=SHAPES,
            return_dict=False,
        )[0]
    return F.mse_loss(velocity.float(), eps - latents)


def _batch(
    prompts: Prompts, recipe: TransformerRecipe, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and rows of one batch: captions of one length, or, now and then, empty prompts."""
    lengths = sorted(prompts.ids)
    if rng.random() < recipe.empty_share:
        everywhere = prompts.rows[lengths[int(rng.integers(len(lengths)))]]
        return np.tile(prompts.empty, (recipe.batch, 1)), rng.choice(everywhere, recipe.batch)
    share = np.array([len(prompts.rows[length]) for length in lengths], float)
    length = int(rng.choice(lengths, p=share / share.sum()))
    chosen = rng.integers(0, len(prompts.rows[length]), recipe.batch)
    return prompts.ids[length][chosen], prompts.rows[length][chosen]


def _optimisers(painter: Painter, recipe: TransformerRecipe) -> tuple[StackedMuon, torch.optim.AdamW]:
    """Muon (Jordan 2024) for the blocks' matrices, AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in painter.named_parameters():
        inside = ("transformer_blocks" in name and "_mod." not in name) or "language_model.layers" in name
        (matrices if inside and parameter.ndim == 2 else rest).append(parameter)
    muon = StackedMuon(matrices, lr=recipe.matrix_rate, weight_decay=0.01)
    return muon, torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)


def _prepare_for_speed(painter: Painter) -> None:
    painter.transformer.pos_embed = RealRope(painter.transformer.pos_embed)
    painter.transformer.set_attn_processor(RealRopeProcessor())
    torch._dynamo.config.cache_size_limit = 64
    for block in painter.transformer.transformer_blocks:
        block.compile(dynamic=False)


@torch.no_grad()
def _average(average: Painter, painter: Painter, decay: float) -> None:
    for mean, now in zip(average.parameters(), painter.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)
