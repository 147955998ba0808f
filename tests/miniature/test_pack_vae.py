"""The bundled VAE: a channel speaks clearly or is silent, and a picture survives the round trip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLQwenImage
from numpy.typing import NDArray

from oblik.diffusion import still
from oblik.miniature.corpus import shot_of
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.train_vae import as_tensor, psnr
from oblik.packs.store import BUNDLED

STRANGERS = range(640_000, 640_012)
Photos = NDArray[np.uint8]


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage.from_pretrained(BUNDLED / "miniature" / "vae", local_files_only=True).eval()


@pytest.fixture(scope="module")
def photos() -> Photos:
    return np.stack([render(Person.from_seed(seed), shot_of(seed, 0)[0]).image for seed in STRANGERS])


@torch.no_grad()
def test_no_channel_murmurs(vae: AutoencoderKLQwenImage, photos: Photos) -> None:
    mean, logvar = still.encode(vae, as_tensor(photos))
    signal, noise = mean.std((0, 2, 3)), torch.exp(0.5 * logvar).mean((0, 2, 3))
    silent = signal < 1e-3
    assert (signal[~silent] > 4 * noise[~silent]).all()
    assert (~silent).sum() >= 6


@torch.no_grad()
def test_the_config_normalises_what_speaks(vae: AutoencoderKLQwenImage, photos: Photos) -> None:
    mean, _ = still.encode(vae, as_tensor(photos))
    share = mean.std((0, 2, 3)) / torch.tensor(vae.config.latents_std)
    assert ((share < 1e-3) | ((share > 0.6) & (share < 1.5))).all()


def test_the_round_trip_keeps_the_picture(vae: AutoencoderKLQwenImage, photos: Photos) -> None:
    assert psnr(vae, photos) > 31
