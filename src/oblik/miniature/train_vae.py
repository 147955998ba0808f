"""Pretraining of the miniature's VAE.

In: rendered images. Out: an `AutoencoderKLQwenImage` with the latents' mean and deviation in its
config. Most steps see 64-px crops, half of them on the face, the last ones whole images with the encoder
frozen, as the decoder is the ceiling of every picture. At the end the channels' axes are turned. Knows
nothing of captions or people.

N image, B batch, C channel, H height, W width; images in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage
from numpy.typing import NDArray
from torch import Tensor

from oblik.diffusion import still
from oblik.miniature.architecture import IMAGE_PX, new_vae
from oblik.miniature.checkpoint import cosine, draw, resume, save, set_rate
from oblik.miniature.corpus import Corpus
from oblik.miniature.latent_axes import turn
from oblik.progress import Progress

CROP_PX = 64
ENCODE_BATCH = 80
TURN_IMAGES = 80


@dataclass(frozen=True)
class VaeRecipe:
    """Settings of the run. ``whole_steps`` train only the decoder, on whole images.

    ``kl_weight`` multiplies a sum over a latent's 4,096 numbers and only bounds them. A weight that is felt
    (1e-6 and more) silences half of the channels before the decoder has learned to read them.
    """

    seed: int = 1
    crop_steps: int = 3000
    whole_steps: int = 400
    batch: int = 16
    whole_batch: int = 6
    learning_rate: float = 1.5e-3
    whole_learning_rate: float = 5e-4
    kl_weight: float = 1e-8
    checkpoint_every: int = 250


def train_vae(
    corpus: Corpus,
    folder: Path,
    recipe: VaeRecipe,
    progress: Progress,
    start_from: AutoencoderKLQwenImage | None = None,
) -> AutoencoderKLQwenImage:
    """Train ``start_from`` further or a new one, or go on from ``folder/vae.pt``; the last 256 images are
    held out."""
    images, faces_N2 = corpus.images, corpus.landmarks.mean(1)
    vae = start_from or new_vae(recipe.seed)
    trained = [p for n, p in vae.named_parameters() if "time_conv" not in n]
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    state = {"vae": vae, "optimiser": optimiser}
    total = recipe.crop_steps + recipe.whole_steps
    start = resume(folder / "vae.pt", state)
    loss_of = torch.compile(_loss, dynamic=False)
    with progress.stage("train VAE", total) as advance:
        advance(start)
        for step in range(start, total):
            whole = step >= recipe.crop_steps
            rng, noise = draw(recipe.seed, step)
            rows = rng.integers(0, len(images) - 256, recipe.whole_batch if whole else recipe.batch)
            batch = _crops(images[rows], faces_N2[rows], rng, IMAGE_PX if whole else CROP_PX)
            _set_phase_rate(optimiser, recipe, step, whole)
            vae.encoder.requires_grad_(not whole)
            vae.quant_conv.requires_grad_(not whole)
            eps = torch.randn(batch.shape[0], 16, batch.shape[2] // 8, batch.shape[3] // 8, generator=noise)
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(vae, batch, eps, recipe.kl_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            last = step + 1 == total
            if (step + 1) % recipe.checkpoint_every == 0 or last:
                save(folder / "vae.pt", step + 1, state)
                advance(0, f"PSNR {psnr(vae, images[-64:]):.2f} dB")
            advance(1)
            progress.check_cancelled()
    still.clear_past(vae)
    turn(vae, as_tensor(images[:: max(1, len(images) // TURN_IMAGES)]))
    return _with_statistics(vae, encode_images(vae, images[:4000:2], progress))


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) bytes -> (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def encode_images(vae: AutoencoderKLQwenImage, images: NDArray[np.uint8], progress: Progress) -> Tensor:
    """Posterior means (N, 16, 16, 16), not normalised."""
    encode, parts = torch.compile(still.encode, dynamic=False), []
    with progress.stage("encode images", len(images)) as advance:
        for start in range(0, len(images), ENCODE_BATCH):
            batch = as_tensor(images[start : start + ENCODE_BATCH])
            with torch.autocast("cpu", torch.bfloat16):
                parts.append((encode if len(batch) == ENCODE_BATCH else still.encode)(vae, batch)[0])
            advance(len(batch))
    return torch.cat(parts)


@torch.no_grad()
def psnr(vae: AutoencoderKLQwenImage, images: NDArray[np.uint8]) -> float:
    """Mean peak signal-to-noise ratio of the round trip, dB, over images."""
    truth = as_tensor(images)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = still.decode(vae, still.encode(vae, truth)[0]).clamp(-1, 1)
    error = (decoded - truth).pow(2).flatten(1).mean(1) / 4
    return float((-10 * torch.log10(error)).mean())


def _loss(vae: AutoencoderKLQwenImage, image: Tensor, eps: Tensor, kl_weight: float) -> Tensor:
    """L1 + L2 + L1 of gradients + KL to the unit normal (Kingma and Welling 2014, appendix B)."""
    mean, logvar = still.encode(vae, image)
    decoded = still.decode(vae, mean + torch.exp(0.5 * logvar) * eps)
    kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
    error = decoded - image
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()
    return error.abs().mean() + 2.0 * error.pow(2).mean() + 0.5 * edges + kl_weight * kl


def _crops(
    images: NDArray[np.uint8], faces_B2: NDArray[np.float32], rng: np.random.Generator, size: int
) -> Tensor:
    """One square of each image, half of them around the face, half of them mirrored."""
    room = IMAGE_PX - size
    batch = []
    for image, face in zip(images, faces_B2, strict=True):
        near = face - size / 2 + rng.uniform(-size / 4, size / 4, 2)
        anywhere = rng.integers(0, room + 1, 2)
        x, y = near.round().astype(int).clip(0, room) if rng.random() < 0.5 else anywhere
        crop = image[y : y + size, x : x + size]
        batch.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return as_tensor(np.stack(batch))


def _set_phase_rate(optimiser: torch.optim.Optimizer, recipe: VaeRecipe, step: int, whole: bool) -> None:
    if whole:
        factor = cosine(step - recipe.crop_steps, recipe.whole_steps, warmup=20)
        set_rate(optimiser, factor * recipe.whole_learning_rate / recipe.learning_rate)
    else:
        set_rate(optimiser, cosine(step, recipe.crop_steps, warmup=200, floor=0.1))


def _with_statistics(vae: AutoencoderKLQwenImage, latents: Tensor) -> AutoencoderKLQwenImage:
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in latents.mean((0, 2, 3)).tolist()],
        latents_std=[round(v, 4) if v > 0 else 1.0 for v in latents.std((0, 2, 3)).tolist()],
    )
    return vae
