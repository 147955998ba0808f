"""Pose and depth for the miniature: a ControlNet of one block beside its finished, frozen transformer.

In: a `Painter`, the renders whose landmarks and depth are exact, their latents and captions. Out: a
`QwenImageControlNetModel` that plain diffusers loads. It starts as the transformer's own first block behind
two layers of zeros (Zhang, Rao and Agrawala 2023, section 3.1), so at first it changes nothing; the loss is
the transformer's own. One net learns both kinds of hint: their pictures tell it which. Knows nothing of the
engine.

M images that are portraits, N rows of the corpus, B batch, T image tokens, C packed channels.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage, QwenImageControlNetModel, QwenImageTransformer2DModel
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen2Tokenizer

from oblik.diffusion import still
from oblik.diffusion.real_rope import use_real_rope
from oblik.generation.control import FOLDER, depth_image, pose_image
from oblik.miniature.architecture import IMAGE_PX
from oblik.miniature.checkpoint import cosine, draw, resume, save, set_rate
from oblik.miniature.corpus import Corpus, shot_of
from oblik.miniature.improve import START
from oblik.miniature.manifest import write_manifest
from oblik.miniature.muon import StackedMuon
from oblik.miniature.people import Person
from oblik.miniature.prompts import write_prompts
from oblik.miniature.render import render
from oblik.miniature.train_transformer import (
    SHAPES,
    Captions,
    Material,
    Painter,
    TransformerRecipe,
    on_face,
)
from oblik.miniature.train_vae import as_tensor
from oblik.progress import Progress

if TYPE_CHECKING:
    from oblik.miniature.build import Build

NEW_PARTS = ("controlnet_x_embedder", "controlnet_blocks")


@dataclass(frozen=True)
class ControlRecipe:
    """Settings of the run. Hints are drawn for the portraits among the first ``images`` of the corpus, depth
    for ``depths`` of them. A hint says where things are, which is decided early: times lean to noise by
    ``time_shift``. The rate falls to zero as half a cosine."""

    seed: int = 8
    images: int = 3_000
    depths: int = 600
    steps: int = 400
    batch: int = 32
    matrix_rate: float = 3e-3
    learning_rate: float = 1e-3
    empty_share: float = 0.2
    time_shift: float = 3.0
    face_weight: float = 3.0
    ema: float = 0.97
    checkpoint_every: int = 50


@dataclass(frozen=True)
class Hints:
    """Latents (M, T, C) of the control images of corpus ``rows`` (M,), and which kind each is."""

    latents: NDArray[np.float16]
    rows: NDArray[np.int64]

    def of(self, rows_B: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """One hint for each row, any of those it has."""
        order = np.argsort(self.rows, kind="stable")
        low = np.searchsorted(self.rows[order], rows_B, "left")
        high = np.searchsorted(self.rows[order], rows_B, "right")
        return torch.from_numpy(self.latents[order[rng.integers(low, high)]]).float()


def new_controlnet(transformer: QwenImageTransformer2DModel, layers: int = 1) -> QwenImageControlNetModel:
    """The transformer's first blocks; what they say passes through layers of zeros. A hint is an image in the
    same latents, so the layer that reads it starts as the one that reads images."""
    config = transformer.config
    net = QwenImageControlNetModel(
        patch_size=config.patch_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=layers,
        attention_head_dim=config.attention_head_dim,
        num_attention_heads=config.num_attention_heads,
        joint_attention_dim=config.joint_attention_dim,
        axes_dims_rope=config.axes_dims_rope,
    )
    missing = net.load_state_dict(transformer.state_dict(), strict=False).missing_keys
    assert all(name.startswith(NEW_PARTS) for name in missing), missing  # `from_transformer` forgets txt_norm
    net.controlnet_x_embedder.load_state_dict(net.img_in.state_dict())
    return net


@torch.no_grad()
def without_text_out(net: QwenImageControlNetModel) -> QwenImageControlNetModel:
    """Zeros where the last block computes text that nobody reads; the files then compress."""
    block = net.transformer_blocks[-1]
    width = net.inner_dim
    for part in (block.txt_mlp, block.attn.add_q_proj, block.attn.to_add_out):
        for value in part.parameters():
            value.zero_()
    for value in block.txt_mod[1].parameters():
        value[2 * width :].zero_()  # gate of the attention; shift, scale and gate of the MLP
    return net


def build_control(build: Build, pack: Path, out: Path, recipe: ControlRecipe) -> None:
    """Train the ControlNet of the finished pack in ``pack``, which `improve.adopt` gave to ``build``; ``out``
    becomes that pack with it."""
    from oblik.miniature.build import shorten, special_ids

    material, corpus, tokenizer, progress = (
        build.material(),
        build.corpus(),
        build.tokenizer(),
        build.progress,
    )
    few, learned = material_of(corpus, material.latents, material.faces, tokenizer, recipe)
    rows_M = np.unique(np.concatenate(list(learned.prompts.rows.values())))
    hints = draw_hints(few, rows_M, build.vae(), build.work, recipe, progress, build.recipe.workers)
    painter = Painter(recipe.seed, special_ids(tokenizer))
    painter.load_state_dict(load_file(build.work / START), strict=False)
    net = train_control(painter, learned, hints, build.work, recipe, progress).to(torch.bfloat16)
    shorten(net)
    if out.resolve() != pack.resolve():
        shutil.copytree(pack, out, dirs_exist_ok=True)
    net.save_pretrained(out / FOLDER)
    write_manifest(out)


def few_of(corpus: Corpus, count: int) -> Corpus:
    """The first images."""
    return replace(
        corpus,
        images=corpus.images[:count],
        landmarks=corpus.landmarks[:count],
        people=corpus.people[:count],
        stress=corpus.stress[:count],
        descriptors=corpus.descriptors[:count],
    )


def material_of(
    corpus: Corpus, latents_NTC: NDArray[np.float16], faces_ND: NDArray[np.float32],
    tokenizer: Qwen2Tokenizer, recipe: ControlRecipe,
) -> tuple[Corpus, Material]:  # fmt: skip
    """The first images of the corpus, and what the transformer learned from them."""
    few = few_of(corpus, recipe.images)
    prompts = write_prompts(few.descriptors, few.landmarks, tokenizer, recipe.seed)
    count = len(few.images)
    return few, Material(latents_NTC[:count], faces_ND[:count], on_face(few.landmarks), prompts)


def draw_hints(
    corpus: Corpus, rows_M: NDArray[np.int64], vae: AutoencoderKLQwenImage, folder: Path,
    recipe: ControlRecipe, progress: Progress, workers: int = 1,
) -> Hints:  # fmt: skip
    """Control images of portraits, as latents; kept in ``folder``."""
    from oblik.miniature.build import pack_latents

    done = folder / "hints.npz"
    if not done.exists():
        deep_D = rows_M[:: max(1, len(rows_M) // recipe.depths)][: recipe.depths]
        poses = np.stack([_pixels(pose_image(corpus.landmarks[row], IMAGE_PX, IMAGE_PX)) for row in rows_M])
        depths = _depths(corpus, deep_D, folder, progress, workers)
        mean, std = (
            torch.tensor(v).view(1, -1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std)
        )
        latents = _encode(vae, np.concatenate([poses, depths]), progress)
        packed = pack_latents((latents - mean) / std).half().numpy()
        np.savez(done, latents=packed, rows=np.concatenate([rows_M, deep_D]))
    known = np.load(done)
    return Hints(known["latents"], known["rows"])


def train_control(
    painter: Painter,
    material: Material,
    hints: Hints,
    folder: Path,
    recipe: ControlRecipe,
    progress: Progress,
) -> QwenImageControlNetModel:
    """Train, or go on from ``folder/control.pt``; returns the averaged weights."""
    painter.requires_grad_(False)
    net = new_controlnet(painter.transformer)
    average = deepcopy(net).requires_grad_(False)
    optimisers = _optimisers(net, recipe)
    state: dict[str, Any] = {"net": net, "average": average, "muon": optimisers[0], "adamw": optimisers[1]}
    start = resume(folder / "control.pt", state)
    captions = Captions(
        material, TransformerRecipe(recipe.seed, batch=recipe.batch, empty_share=recipe.empty_share)
    )
    captions.freeze(painter, progress)
    frozen = deepcopy(painter.transformer).to(torch.bfloat16)
    use_real_rope(frozen)
    use_real_rope(net)
    log = (folder / "control.log").open("a", encoding="utf-8")
    running = 0.0
    with progress.stage("train ControlNet", recipe.steps) as advance, log:
        advance(start)
        for step in range(start, recipe.steps):
            loss = _step_loss(net, frozen, painter, captions, hints, recipe, step)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            for optimiser in optimisers:
                set_rate(optimiser, cosine(step, recipe.steps, warmup=20))
                optimiser.step()
                optimiser.zero_grad()
            _average(average, net, min(recipe.ema, (step + 1) / (step + 10)))
            running = float(loss.detach()) if step == start else 0.97 * running + 0.03 * float(loss.detach())
            advance(1, f"loss {running:.4f}" if step % 10 == 0 else "")
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                save(folder / "control.pt", step + 1, state)
                print(step + 1, f"{running:.4f}", file=log, flush=True)
            progress.check_cancelled()
    return without_text_out(average)


def control_times(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Logit-normal times in (0, 1), shifted towards noise (Esser et al. 2024, eq. 23). Shape (count,)."""
    t = torch.sigmoid(torch.randn(count, generator=generator))
    return shift * t / (1 + (shift - 1) * t)


def _step_loss(
    net: QwenImageControlNetModel, frozen: nn.Module, painter: Painter, captions: Captions, hints: Hints,
    recipe: ControlRecipe, step: int,
) -> Tensor:  # fmt: skip
    rng, noise = draw(recipe.seed, step)
    batch = captions.draw(painter, rng)
    latents = torch.from_numpy(captions.material.latents[batch.rows]).float()
    sigma = control_times(len(latents), recipe.time_shift, noise)
    eps = torch.randn(latents.shape, generator=noise)
    inputs: dict[str, Any] = {
        "hidden_states": torch.lerp(latents, eps, sigma[:, None, None]).bfloat16(),
        "encoder_hidden_states": batch.text.bfloat16(),
        "timestep": sigma,
        "img_shapes": SHAPES,
        "return_dict": False,
    }
    with torch.autocast("cpu", torch.bfloat16):
        samples = net(controlnet_cond=hints.of(batch.rows, rng).bfloat16(), **inputs)
        velocity = frozen(controlnet_block_samples=samples, **inputs)[0]
    weight_BT = 1 + (recipe.face_weight - 1) * torch.from_numpy(captions.material.on_face[batch.rows])
    squared_BT = (velocity.float() - (eps - latents)).square().mean(-1)
    loss: Tensor = (weight_BT * squared_BT).sum() / weight_BT.sum()
    return loss


def _optimisers(
    net: QwenImageControlNetModel, recipe: ControlRecipe
) -> tuple[StackedMuon, torch.optim.AdamW]:
    """Muon for the matrices that carry the hint, AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        inside = name.startswith(NEW_PARTS) or ("transformer_blocks" in name and "_mod." not in name)
        (matrices if inside and parameter.ndim == 2 else rest).append(parameter)
    muon = StackedMuon(matrices, lr=recipe.matrix_rate, weight_decay=0.01)
    return muon, torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)


@torch.no_grad()
def _encode(vae: AutoencoderKLQwenImage, images: NDArray[np.uint8], progress: Progress) -> Tensor:
    """Posterior means (N, 16, 16, 16), not normalised; too few to compile for."""
    parts = []
    with progress.stage("encode hints", len(images)) as advance:
        for start in range(0, len(images), 32):
            batch = as_tensor(images[start : start + 32])
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(still.encode(vae, batch)[0].float())
            advance(len(batch))
    return torch.cat(parts)


def _depths(
    corpus: Corpus, rows_D: NDArray[np.int64], folder: Path, progress: Progress, workers: int
) -> NDArray[np.uint8]:
    """Depth of some shots, drawn again: the corpus keeps none. Shape (D, H, W, 3)."""
    done = folder / "depths.npy"
    if not done.exists():
        seeds = corpus.people[rows_D].tolist()
        places = [int(row - np.searchsorted(corpus.people, corpus.people[row])) for row in rows_D]
        with ProcessPoolExecutor(workers) as pool, progress.stage("draw depth", len(rows_D)) as advance:
            drawn = []
            for image in pool.map(_depth, seeds, places, chunksize=16):
                drawn.append(image)
                advance(1)
        np.save(done, np.stack(drawn))
    return np.asarray(np.load(done))


def _depth(person_seed: int, index: int) -> NDArray[np.uint8]:
    photo = render(Person.from_seed(person_seed), shot_of(person_seed, index)[0], IMAGE_PX)
    return _pixels(depth_image(photo.depth))


def _pixels(image: Any) -> NDArray[np.uint8]:
    return np.asarray(image, np.uint8)


@torch.no_grad()
def _average(average: nn.Module, net: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
