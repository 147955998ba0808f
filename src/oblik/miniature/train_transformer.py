"""Pretraining of the miniature's transformer, text encoder and identity projector, together.

In: cached latents, captions by length, a face embedding for every image. Out: an MMDiT that turns
captions into latents by flow matching (Lipman et al. 2023; rectified flow with logit-normal times,
Esser et al. 2024, section 3.1). Weights are an exponential average. Knows nothing of pixels.

B batch, T image tokens, C packed channels, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import QwenImageTransformer2DModel
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from oblik.diffusion.real_rope import use_real_rope
from oblik.miniature.architecture import IMAGE_PX, new_projector, new_text_encoder, new_transformer
from oblik.miniature.checkpoint import draw, resume, save, set_rate
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
    """Settings of the run. The rate is flat and falls linearly to zero over the last third.

    After ``text_steps`` the text encoder and the projector stand still and every caption is encoded once:
    a third of each step's time. Image tokens on the face count ``face_weight`` times as much.

    The bundled pack took three runs: ``text_steps`` from nothing, ``steps`` more with `improve.adopt`, and
    1,500 on the latents of a better VAE.
    """

    seed: int = 3
    steps: int = 3_800
    text_steps: int = 2_100
    batch: int = 128
    matrix_rate: float = 5e-3
    learning_rate: float = 2e-3
    empty_share: float = 0.1
    ema: float = 0.998
    name_noise: float = 0.04
    face_weight: float = 3.0
    checkpoint_every: int = 150
    sample_every: int = 450


class Painter(nn.Module):
    """The three networks that learn together."""

    def __init__(self, seed: int, special: dict[str, int]) -> None:
        super().__init__()
        self.transformer: QwenImageTransformer2DModel = new_transformer(seed)
        self.text_encoder: Qwen2_5_VLForConditionalGeneration = new_text_encoder(seed, special)
        torch.manual_seed(seed)
        self.projector = new_projector()

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
    of the *other* shots of the same person; ``on_face`` (N, T) the share of each token that is face."""

    latents: NDArray[np.float16]
    faces: NDArray[np.float32]
    on_face: NDArray[np.float32]
    prompts: Prompts


@dataclass(frozen=True)
class Batch:
    """Rows of the material and the text states (B, L, D) that go with them."""

    rows: NDArray[np.int64]
    text: Tensor


class Captions:
    """Text states of batches: computed with gradients at first, looked up once the encoder is frozen."""

    def __init__(self, material: Material, recipe: TransformerRecipe) -> None:
        self.material, self.recipe, self.prompts = material, recipe, material.prompts
        self.lengths = sorted(self.prompts.ids)
        self.known: dict[int, Tensor] = {}

    def draw(self, painter: Painter, rng: np.random.Generator) -> Batch:
        """Captions of one length, or, now and then, empty prompts."""
        count = self.recipe.batch
        if rng.random() < self.recipe.empty_share:
            everywhere = self.prompts.rows[self.lengths[int(rng.integers(len(self.lengths)))]]
            rows = rng.choice(everywhere, count)
            if self.known:
                return Batch(rows, self.known[0].expand(count, -1, -1))
            ids = torch.from_numpy(self.prompts.empty)[None]
            return Batch(rows, painter.text_states(ids, None).expand(count, -1, -1))
        share = np.array([len(self.prompts.rows[length]) for length in self.lengths], float)
        length = int(rng.choice(self.lengths, p=share / share.sum()))
        chosen = rng.integers(0, len(self.prompts.rows[length]), count)
        if self.known:
            return Batch(self.prompts.rows[length][chosen], self.known[length][torch.from_numpy(chosen)])
        return Batch(self.prompts.rows[length][chosen], self._states(painter, length, chosen, rng))

    @torch.no_grad()
    def freeze(self, painter: Painter, progress: Progress) -> None:
        """Encode every caption once, with bfloat16 arithmetic as the steps use it."""
        rng = np.random.default_rng([self.recipe.seed, 6])
        with (
            progress.stage("encode captions", sum(map(len, self.prompts.ids.values()))) as advance,
            torch.autocast("cpu", torch.bfloat16),
        ):
            self.known[0] = painter.text_states(torch.from_numpy(self.prompts.empty)[None], None).bfloat16()
            for length, ids in self.prompts.ids.items():
                parts = []
                for chosen in np.array_split(np.arange(len(ids)), max(1, len(ids) // 256)):
                    parts.append(self._states(painter, length, chosen, rng).bfloat16())
                    advance(len(chosen))
                self.known[length] = torch.cat(parts)

    def _states(
        self, painter: Painter, length: int, chosen: NDArray[np.int64], rng: np.random.Generator
    ) -> Tensor:
        faces = self.material.faces[self.prompts.rows[length][chosen]]
        names = torch.from_numpy(faces + rng.normal(0, self.recipe.name_noise, faces.shape)).float()
        return painter.text_states(torch.from_numpy(self.prompts.ids[length][chosen]), names)


def train_transformer(
    material: Material,
    special: dict[str, int],
    folder: Path,
    recipe: TransformerRecipe,
    progress: Progress,
    look: Callable[[int, Painter], None] = lambda _step, _painter: None,
) -> Painter:
    """Train, or go on from ``folder/transformer.pt``; returns the averaged weights.

    ``look`` is shown the averaged weights every ``sample_every`` steps and at the end.

    In a folder that `improve.adopt` filled, the text encoder knows its words and is frozen from the start.
    """
    painter = Painter(recipe.seed, special)
    text_steps = 0 if (folder / START).exists() else recipe.text_steps
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
    prepare_for_speed(painter)
    captions = Captions(material, recipe)
    log = (folder / "transformer.log").open("a", encoding="utf-8")
    running = 0.0
    with progress.stage("train transformer", recipe.steps) as advance, log:
        advance(start)
        for step in range(start, recipe.steps):
            if step >= text_steps and not captions.known:
                _freeze_text(painter, average)
                captions.freeze(painter, progress)
            loss = _step_loss(painter, captions, recipe, step)
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
            if (step + 1) % recipe.sample_every == 0 or step + 1 == recipe.steps:
                look(step + 1, average)
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


def on_face(landmarks_N52: NDArray[np.float32], side: int = 8) -> NDArray[np.float32]:
    """The share of each of ``side * side`` tokens inside the square around five landmarks. Shape (N, T)."""
    centre = landmarks_N52.mean(1)
    half = 1.1 * np.ptp(landmarks_N52, axis=1).max(1)
    edges = np.arange(side + 1) * (IMAGE_PX / side)
    low, high = (centre - half[:, None])[..., None], (centre + half[:, None])[..., None]
    inside = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    share_N2S = inside.clip(0) / (IMAGE_PX / side)
    return np.asarray(
        (share_N2S[:, 1, :, None] * share_N2S[:, 0, None, :]).reshape(len(centre), -1), np.float32
    )


def _freeze_text(painter: Painter, average: Painter) -> None:
    """From here on the averaged text encoder and projector are the ones that stand still."""
    for name in ("text_encoder", "projector"):
        part = getattr(painter, name)
        part.load_state_dict(getattr(average, name).state_dict())
        part.requires_grad_(False)


def _step_loss(painter: Painter, captions: Captions, recipe: TransformerRecipe, step: int) -> Tensor:
    rng, noise = draw(recipe.seed, step)
    with torch.autocast("cpu", torch.bfloat16):
        batch = captions.draw(painter, rng)
    latents = torch.from_numpy(captions.material.latents[batch.rows]).float()
    sigma = flow_times(len(latents), noise)
    eps = torch.randn(latents.shape, generator=noise)
    noisy = torch.lerp(latents, eps, sigma[:, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        velocity = painter.transformer(
            hidden_states=noisy,
            encoder_hidden_states=batch.text,
            timestep=sigma,
            img_shapes=SHAPES,
            return_dict=False,
        )[0]
    weight_BT = 1 + (recipe.face_weight - 1) * torch.from_numpy(captions.material.on_face[batch.rows])
    squared_BT = (velocity.float() - (eps - latents)).square().mean(-1)
    loss: Tensor = (weight_BT * squared_BT).sum() / weight_BT.sum()
    return loss


def _optimisers(painter: Painter, recipe: TransformerRecipe) -> tuple[StackedMuon, torch.optim.AdamW]:
    """Muon (Jordan 2024) for the blocks' matrices, AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in painter.named_parameters():
        inside = ("transformer_blocks" in name and "_mod." not in name) or "language_model.layers" in name
        (matrices if inside and parameter.ndim == 2 else rest).append(parameter)
    muon = StackedMuon(matrices, lr=recipe.matrix_rate, weight_decay=0.01)
    rate, betas = recipe.learning_rate, (0.9, 0.98)
    return muon, torch.optim.AdamW(rest, lr=rate, betas=betas, weight_decay=0.0, fused=True)


def prepare_for_speed(painter: Painter) -> None:
    """Compile the blocks, once for each length of the captions."""
    use_real_rope(painter.transformer)
    torch._dynamo.config.cache_size_limit = 64
    for block in painter.transformer.transformer_blocks:
        block.compile(dynamic=False)


@torch.no_grad()
def _average(average: Painter, painter: Painter, decay: float) -> None:
    moving = [
        (mean, now)
        for mean, now in zip(average.parameters(), painter.parameters(), strict=True)
        if now.requires_grad
    ]
    torch._foreach_lerp_([mean for mean, _ in moving], [now for _, now in moving], 1 - decay)
