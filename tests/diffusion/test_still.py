"""The VAE on one frame says what it said before, at a third of the work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLQwenImage

from oblik.diffusion.still import one_frame


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    made = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, attn_scales=[],
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return made.requires_grad_(False).eval()


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5])
def test_the_latents_are_the_same(vae: Any, frames: int) -> None:
    pixels = torch.randn(1, 3, frames, 32, 48)
    expected = vae.encode(pixels).latent_dist.mode()
    with one_frame(vae):
        found = vae.encode(pixels).latent_dist.mode()
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(vae.encode(pixels).latent_dist.mode(), expected), "the VAE is as it was"


@torch.no_grad()
def test_only_the_last_slice_in_time_is_read(vae: Any) -> None:
    pixels = torch.randn(1, 3, 1, 32, 32)
    with one_frame(vae):
        before = vae.encode(pixels).latent_dist.mode()
        first = vae.encoder.conv_in.weight[:, :, 0].clone()
        vae.encoder.conv_in.weight[:, :, 0] = float("nan")
        after = vae.encode(pixels).latent_dist.mode()
        vae.encoder.conv_in.weight[:, :, 0] = first
    assert torch.equal(before, after)
